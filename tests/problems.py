"""What several files of tests begin with: particles and data, a small classifier, parameters, arrays of a device."""

import signal
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from feature_learning import MeanFieldLangevinClassifier, data

STEP = {"step_size": 0.3, "temperature": 0.2, "weight_decay": 0.4}


def problem(n_particles, n, d, seed=0, dtype=np.float64):
    """Particles, inputs with a column of ones, labels of both signs, and a matrix of noise."""
    rng = np.random.default_rng(seed)
    labels = np.where(np.arange(n) % 3 == 0, -1.0, 1.0)
    arrays = rng.standard_normal((n_particles, d + 2)), data.with_bias(rng.standard_normal((n, d))), labels
    return *(a.astype(dtype) for a in arrays), rng.standard_normal((n_particles, d + 2)).astype(dtype)


def xor(n=60, d=4, seed=0):
    """Data and labels of an exclusive or of two of d signs."""
    return data.sparse_parity(n, d, 2, seed)


def small(**settings):
    """A classifier that is quick to fit."""
    return MeanFieldLangevinClassifier(**({"n_particles": 20, "n_steps": 12, "random_state": 0} | settings))


@contextmanager
def ctrl_c():
    """Python's own handling of Ctrl-C, whatever it was; gives a function that presses Ctrl-C some seconds later."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread only")
    timers, before = [], signal.signal(signal.SIGINT, signal.default_int_handler)

    def press(seconds):
        timers.append(threading.Timer(seconds, signal.raise_signal, (signal.SIGINT,)))
        timers[-1].start()

    try:
        yield press
    finally:
        for timer in timers:
            timer.cancel()
            timer.join()
        signal.signal(signal.SIGINT, before)


def fitted(model):
    """All that a fit has set: attributes whose names end with an underscore, and how wide the data was."""
    return {k: v for k, v in vars(model).items() if k.endswith("_")}


def parameters(model):
    """A copy of every parameter of a torch model, by name."""
    return {k: p.detach().numpy().copy() for k, p in model.named_parameters()}


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array as strict as CuPy's: it works with its own kind and with numbers, and only `get` copies it to the host.

    NumPy's functions reach it as they reach CuPy's arrays: by `__array_ufunc__` and `__array_function__`.
    """

    def __init__(self, values):
        self.values = np.array(values)

    def get(self):
        return self.values.copy()

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc, method, *inputs, **settings):
        return self.call(getattr(ufunc, method), inputs, settings)

    def __array_function__(self, function, _types, inputs, settings):
        return self.call(function, inputs, settings)

    def call(self, function, inputs, settings):
        def plain(a):
            if isinstance(a, (list, tuple)):
                return [plain(part) for part in a]
            if isinstance(a, np.ndarray):
                raise TypeError(f"{function}: an array on the host met one on the device")
            return a.values if isinstance(a, DeviceArray) else a

        return DeviceArray(function(*plain(inputs), **settings))

    def mean(self, **settings):
        return DeviceArray(self.values.mean(**settings))

    def sum(self):
        return DeviceArray(self.values.sum())

    def __getitem__(self, key):
        return DeviceArray(self.values[key])

    def __len__(self):
        return len(self.values)

    T = property(lambda self: DeviceArray(self.values.T))
    shape, ndim, dtype = (
        property(lambda self, name=name: getattr(self.values, name)) for name in ("shape", "ndim", "dtype")
    )
