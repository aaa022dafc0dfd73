"""Full-batch training of many networks at once, recorded into one `History`."""

import math
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from ._checks import number
from .history import Recorder
from .training import BLOW_UP, DATA, TEST, answer, make_optimiser, tensors, trained_parameters


def _tanh(x):
    # NumPy takes a third of torch's time with AVX-512; in float64 it takes longer than torch without
    if x.dtype == torch.float64 and torch.backends.cpu.get_cpu_capability() == "AVX2":
        return torch.tanh(x)
    return torch.from_numpy(np.tanh(x.numpy()))


def _bmm(a, b):
    # NumPy takes down to a fifth of torch's time for stacks of small products
    return a * b if a.shape[-1] == 1 else torch.from_numpy(a.numpy() @ b.numpy())


FASTER = {torch.ops.aten.tanh.default: _tanh, torch.ops.aten.bmm.default: _bmm}


class _Stack:
    """Models that print alike, side by side: `part` of the parameters and data, which have an axis for the models."""

    def __init__(self, part, models, parameters, trained, data, test):
        self.models, self.data, self.test = models[part], [a[part] for a in data], [a[part] for a in test]
        self.part, self.stacked = part, (trained, parameters)
        self._check(*self.data, DATA)
        if test:
            self._check(*self.test, TEST)
        # traced once: a step is then a list of tensor operations, without what vmap and grad cost in Python
        gradients = vmap(grad_and_value(self._loss))
        self._step = make_fx(lambda *given: gradients(*given))(*self._own(), *self.data)
        if self.data[0].device.type == "cpu":
            for node in self._step.graph.nodes:
                node.target = FASTER.get(node.target, node.target)
            self._step.recompile()

    def _own(self):  # cut out at each step, because an optimiser may put another tensor into `p.data`
        return [{name: p[self.part] for name, p in stacked.items()} for stacked in self.stacked]

    def _forward(self, parameters, x):
        return functional_call(self.models[0], parameters, (x,))

    def _loss(self, trained, parameters, x, y):
        return nn.functional.mse_loss(self._forward(parameters | trained, x), y)

    def _check(self, x, y, names):
        """Whether each model alone answers in y's shape, and as it does in the stack."""
        with torch.no_grad():
            alone = [answer(model, *pair, names) for model, *pair in zip(self.models, x, y, strict=True)]
            for one, output in zip(alone, vmap(self._forward)(self._own()[1], x), strict=True):
                close = math.sqrt(torch.finfo(one.dtype).eps) * one.nan_to_num().abs().max().item()
                if not torch.allclose(one, output, rtol=0, atol=close, equal_nan=True):
                    raise ValueError(f"models that print alike must compute the same function; not so {self.models[0]}")

    def gradients(self):
        """Gradients of all models, by name, and their losses."""
        with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite is an error of its own
            return self._step(*self._own(), *self.data)

    def test_losses(self):
        """Mean squared errors on the test data."""
        with torch.no_grad():
            return vmap(self._loss)(*self._own(), *self.test)


def _signature(model, layers):
    """Of each parameter, all that copies must agree in."""
    trained = trained_parameters(model, layers)
    return {k: (tuple(p.shape), str(p.dtype), str(p.device), k in trained) for k, p in model.named_parameters()}


def train_ensemble(models, x, y, *, n_steps, step_size=None, optimiser="adam", layers=None, test=None, record_every=1,
                   snapshot_every=None, max_gradient_norm=None):  # fmt: skip
    """Train many copies of a network at once: what `train` does for each of them, in a fraction of the time.

    The copies' parameters are stacked along a first axis; torch.func's vmap and grad turn the loss of one network into
    the gradients of all. SGD and Adam work entry by entry, so torch's own serve for the stack.

    Parameters
    ----------
    models : sequence of torch.nn.Module
        R networks whose parameters agree in name, shape, dtype and device, and in what is frozen; trained in place.
        Activations may differ: models that print alike are stacked together. The forward pass must be without
        randomness.
    x, y : array_like, shapes (n, dim) and (n,) or (n, outputs)
        The data of all copies, or with a leading axis of length R the data of each.
    n_steps, step_size, layers, record_every, snapshot_every
        As in `train`.
    optimiser : {"adam", "sgd"} or callable
        As in `train`; one of your own must work entry by entry too.
    test : pair of arrays, optional
        As x and y.
    max_gradient_norm : float, optional
        Clip each copy's gradient to this norm before each step.

    Returns
    -------
    History
        As from `train`, with an axis for the copies after that of the steps: series of shape (T, R), snapshots of
        shape (S, R, ...); `History.run` gives the record of one. The settings hold R as "copies". Ctrl-C keeps what
        was recorded.

    Raises
    ------
    ValueError
        As `train`; also if there is no model, if their parameters differ in shape (the message names the shapes), or if
        models that print alike do not compute the same function.
    FloatingPointError
        If any copy diverges (see `train`); the message names the copies. No copy reads another's numbers, so the models
        keep the parameters that each of them would have alone at that step.

    Examples
    --------
    >>> from feature_learning import data, networks
    >>> models = [networks.initialise_gaussian(networks.fully_connected([5, 50, 1]), 1, seed) for seed in range(3)]
    >>> history = train_ensemble(models, *data.sine_sum(80, 0), n_steps=20)
    >>> history.series["loss"].shape, history.run(2).series["loss"].shape
    ((21, 3), (21,))
    """
    n_steps = number("n_steps", n_steps, 0, integer=True)
    models = list(models)
    if not models:
        raise ValueError("models must hold at least one torch.nn.Module; got none")
    signatures = [_signature(model, layers) for model in models]
    for i, signature in enumerate(signatures):
        if signature != signatures[0]:
            raise ValueError(
                f"models must agree in their parameters' names, shapes, dtypes, devices and in which are trained; got "
                f"{signatures[0]} in model 0 and {signature} in model {i}"
            )
    kind = np.unique([repr(model) for model in models], return_inverse=True)[1]
    order = np.argsort(kind, kind="stable")  # models that print alike come to stand side by side

    def arranged(pair, names):  # what all models share is stored once
        return [a if a.stride(0) == 0 else a[order] for a in tensors(models[0], pair, names, len(models))]

    def gather(stacked):  # in the order of `models` again
        return stacked.cpu().numpy()[np.argsort(order)]

    x, y = arranged((x, y), DATA)
    test = () if test is None else arranged(test, TEST)
    sizes = gather((y**2).mean((1, 2)))
    recorder = Recorder(n_steps, record_every, snapshot_every, bound=lambda first: BLOW_UP * np.maximum(first, sizes))
    # Linux' C library asks the system for every large array, page by page, until it has seen one as large come and go
    torch.empty(31 * 2**20, dtype=torch.uint8)
    models = [models[i] for i in order]
    each = [dict(model.named_parameters()) for model in models]
    parameters = {name: torch.stack([p[name].detach() for p in each]) for name in each[0]}
    trained = {name: parameters[name] for name in trained_parameters(models[0], layers)}
    parts = (slice(*ends) for ends in pairwise([0, *np.bincount(kind).cumsum()]))
    stacks = [_Stack(part, models, parameters, trained, (x, y), test) for part in parts]
    stepper, settings = make_optimiser(optimiser, step_size, max_gradient_norm, list(trained.values()))
    settings |= {"n_steps": n_steps, "n": x.shape[1], "copies": len(models)}
    with recorder:
        try:
            for step in range(n_steps + 1):
                recorded = recorder.records(step)
                slopes, losses = zip(*(stack.gradients() for stack in stacks), strict=True)
                slopes = [torch.cat([slope[name] for slope in slopes]) for name in trained]
                values = gather(torch.cat(losses)).astype(float)
                bad = np.flatnonzero(recorder.diverged(values))
                if bad.size:
                    before = None if recorder.last is None else recorder.last[bad].tolist()
                    raise FloatingPointError(
                        f"training diverged at step {step} in {bad.size} of {len(models)} copies, numbers "
                        f"{bad.tolist()}: losses {values[bad].tolist()}, last finite losses {before}; leave these "
                        f"copies out, lower step_size (now {settings['step_size']}), start smaller, or clip with "
                        "max_gradient_norm"
                    )
                if recorded or max_gradient_norm is not None:
                    norms = sum((g**2).flatten(1).sum(1) for g in slopes).sqrt()
                if recorded:
                    more = {"test_loss": gather(torch.cat([stack.test_losses() for stack in stacks]))} if test else {}
                    recorder.record(step, loss=values, gradient_norm=gather(norms), **more)
                if recorder.copies(step):
                    recorder.copy(step, **{name: gather(p) for name, p in parameters.items()})
                if step < n_steps:
                    for p, g in zip(trained.values(), slopes, strict=True):
                        if max_gradient_norm is not None:
                            g *= (max_gradient_norm / (norms + 1e-6)).clamp(max=1).view(-1, *[1] * (g.ndim - 1))
                        p.grad = g
                    stepper.step()
        finally:
            for i, model in enumerate(models):
                model.load_state_dict({name: p[i] for name, p in parameters.items()}, strict=False)
    return recorder.history(settings if layers is None else settings | {"layers": np.ravel(layers).tolist()})
