"""Many runs at once: on the CPU the same bits as separate fits, on a device one run with a leading axis."""

import sys
import time

import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn.base import clone
from test_mfld import FakeArray, fake_cupy
from threadpoolctl import threadpool_info

from feature_learning import MeanFieldLangevinClassifier, data, mfld


def stack(arrays):
    """On the pretended device, as CuPy does."""
    return np.stack(list(arrays)).view(FakeArray)


def runs(count=3, n=40, d=4):
    """Data sets of one shape, stacked."""
    pairs = [data.sparse_parity(n, d, 2, seed) for seed in range(count)]
    return np.stack([x for x, _ in pairs]), np.stack([y for _, y in pairs])


def estimators(count=3, **settings):
    """Classifiers that differ in seed and temperature."""
    settings = {"n_particles": 50, "n_steps": 25, "record_every": 5, "device": "cpu"} | settings
    heats = [None, 0.1, lambda step: 0.2 * 0.5 ** (step // 5)]
    return [MeanFieldLangevinClassifier(random_state=k, temperature=heats[k % 3], **settings) for k in range(count)]


@pytest.mark.parametrize(
    "n_particles, n, dtype, rtol",
    [
        (50, 40, "float64", 1e-9),  # stacked: sums over particles may run in another order
        (2000, 300, "float32", 0),  # whole runs a thread: the last bit
    ],
)
def test_the_same_as_separate_fits(n_particles, n, dtype, rtol):
    X, y = runs(5, n)
    together = mfld.fit_many(estimators(5, n_particles=n_particles, dtype=dtype), X, y)
    for k, alone in enumerate(estimators(5, n_particles=n_particles, dtype=dtype)):
        alone.fit(X[k], y[k])
        np.testing.assert_allclose(together[k].particles_, alone.particles_, rtol=rtol, atol=rtol)
        for name, series in alone.history_.series.items():
            np.testing.assert_allclose(together[k].history_.series[name], series, rtol=rtol)
        np.testing.assert_array_equal(together[k].predict(X[k]), alone.predict(X[k]))
        assert together[k].history_.finished and together[k].history_.settings == alone.history_.settings


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads(monkeypatch, threads):
    monkeypatch.setattr(mfld, "cpu_count", lambda: threads)
    X, y = runs(5)
    together = mfld.fit_many(estimators(5, dtype="float64"), X, y)
    alone = [e.fit(X[k], y[k]) for k, e in enumerate(estimators(5, dtype="float64"))]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.particles_, b.particles_, rtol=1e-9, atol=1e-9)


def test_shared_data_and_lists():
    X, y = runs(1)
    shared = mfld.fit_many(estimators(), X[0], y[0])
    listed = mfld.fit_many(estimators(), [X[0]] * 3, [list(y[0])] * 3)
    for a, b in zip(shared, listed, strict=True):
        np.testing.assert_array_equal(a.particles_, b.particles_)
    assert not np.array_equal(shared[0].particles_, shared[1].particles_)


@pytest.mark.parametrize("kept", [mfld.KEPT, 0])
def test_a_leading_axis_is_that_many_steps(monkeypatch, kept):
    """The step on stacked runs, each with a temperature of its own, is the step on each run."""
    monkeypatch.setattr(mfld, "KEPT", kept)
    rng, settings = np.random.default_rng(0), {"step_size": 0.2, "weight_decay": 0.3, "output_scale": 4.0}
    clouds, noise = rng.standard_normal((2, 3, 7, 5))
    inputs, labels = rng.standard_normal((3, 9, 4)), rng.choice([-1.0, 1.0], (3, 9))
    heat, stacked = np.array([0.0, 0.5, 2.0]), clouds.copy()
    output = mfld.langevin_step(stacked, inputs, labels, noise.copy(), temperature=heat[:, None, None], **settings)
    for k in range(3):
        alone, kicks = clouds[k].copy(), noise[k].copy()
        expected = mfld.langevin_step(alone, inputs[k], labels[k], kicks, temperature=heat[k], **settings)
        np.testing.assert_allclose(output[k], expected, rtol=1e-12)
        np.testing.assert_allclose(stacked[k], alone, rtol=1e-12, atol=1e-13)


def test_on_a_device_runs_share_an_axis(monkeypatch):
    """Noise comes from the device's one generator, so runs without noise are compared."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(stack=stack))
    X, y = runs()
    cold = [e.set_params(temperature=0) for e in estimators(device="gpu")]
    together = mfld.fit_many(cold, X, y)
    for k, alone in enumerate(estimators(device="cpu")):
        alone.set_params(temperature=0).fit(X[k], y[k])
        np.testing.assert_allclose(together[k].particles_, alone.particles_, rtol=1e-5, atol=1e-6)  # float32
        np.testing.assert_allclose(together[k].history_.series["loss"], alone.history_.series["loss"], rtol=1e-5)
        snapshots = together[k].history_.snapshots["particles"]
        assert type(snapshots) is np.ndarray and snapshots.shape == (6, 50, 6)
    warm = mfld.fit_many(estimators(device="gpu"), X, y)
    heats = [e.history_.series["temperature"] for e in warm]
    np.testing.assert_allclose(heats, [[0.1 / 40] * 6, [0.1] * 6, 0.2 * 0.5 ** np.arange(6)], rtol=1e-6)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_divergence_of_one_run_is_an_error(monkeypatch, device):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(stack=stack))
    with pytest.raises(FloatingPointError, match="lower step_size .now 1000.0."):
        mfld.fit_many(estimators(device=device, step_size=1e3), *runs())


def test_ctrl_c_stops_all_runs_and_keeps_their_records():
    """The interrupt comes while the first run is at step 12; no run goes on for long after."""

    def heat(step):
        if step == 12:
            raise KeyboardInterrupt
        return 0.1

    some = estimators(4, n_steps=100_000, record_every=[0, 5, 100_000])
    some[0].set_params(temperature=heat)
    start = time.perf_counter()
    mfld.fit_many(some, *runs(4))
    assert time.perf_counter() - start < 20  # 100,000 steps of four runs take longer
    assert not any(e.history_.finished for e in some) and some[0].history_.steps.tolist() == [0, 5]
    assert all(e.predict(np.zeros((1, 4))).shape == (1,) for e in some)


def test_fits_that_overlap_leave_the_linear_algebra_its_threads():
    """Each fit holds products to one thread; with overlapping fits the last one to end must restore the number."""
    X, y = data.sparse_parity(300, 5, 2, 0)

    def threads():
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before, model = threads(), MeanFieldLangevinClassifier(1000, 40, random_state=0, device="cpu")
    jobs = (delayed(clone(model).set_params(n_steps=k).fit)(X, y) for k in (10, 80, 30, 60, 20, 50))
    Parallel(n_jobs=3, backend="threading")(jobs)
    assert threads() == before
    with pytest.raises(FloatingPointError):
        model.set_params(step_size=1e3).fit(X, y)
    assert threads() == before


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda e, X, y: ([], X, y), "estimators must hold one or more; got none"),
        (lambda e, X, y: ([*e[:2], e[2].set_params(n_steps=3)], X, y), r"got unequal \['n_steps'\]"),
        (lambda e, X, y: (e, [X[0], X[1], X[2][:20]], y), r"X must hold 3 runs of one shape; got 3, shapes \[\(20, 4"),
        (lambda e, X, y: (e, X[:2], y), "X must hold 3 runs of one shape; got 2"),
        (lambda e, X, y: (e, X, y[:2]), "y must hold 3 runs of one shape; got 2"),
        (lambda e, X, y: (e, X * np.nan, y), "NaN"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        mfld.fit_many(*change(estimators(), *runs()))


def test_too_little_memory_says_what_to_lower(monkeypatch):
    def empty(*_args, **_settings):
        raise MemoryError("Unable to allocate")

    monkeypatch.setattr(mfld.np, "empty", empty)
    with pytest.raises(MemoryError, match="lower n_particles, or how many of them are kept, .*KEPT"):
        mfld.risk_gradient(np.ones((2, 3)), np.ones((4, 2)), np.ones(4))
