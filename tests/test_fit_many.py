"""Many runs at once: the numbers of separate fits, one leading axis, all or none fitted."""

import time
from functools import partial

import numpy as np
import pytest
import torch
from problems import ctrl_c, fitted
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer

from feature_learning import MeanFieldLangevinClassifier, _engine, data, mfld

DEVICES = ["cpu", "gpu"] if torch.cuda.is_available() else ["cpu"]


def runs(count=3, n=40, d=4):
    """Data sets of one shape, stacked."""
    pairs = [data.sparse_parity(n, d, 2, seed) for seed in range(count)]
    return np.stack([x for x, _ in pairs]), np.stack([y for _, y in pairs])


def estimators(count=3, **settings):
    """Classifiers that differ in seed and temperature."""
    settings = {"n_particles": 50, "n_steps": 25, "record_every": 5, "device": "cpu"} | settings
    heats = [None, 0.1, lambda step: 0.2 * 0.5 ** (step // 5)]
    return [MeanFieldLangevinClassifier(random_state=k, temperature=heats[k % 3], **settings) for k in range(count)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "n_particles, n, dtype, tolerance",
    [
        (50, 40, "float64", 1e-9),  # alone by the plain step, together by the engine
        (1000, 300, "float64", 1e-9),  # by the engine, whose sums may run in another order
        (50, 40, "float32", 1e-3),  # 25 steps from roundings of 6e-8
    ],
)
def test_the_same_as_separate_fits(n_particles, n, dtype, tolerance, device):
    X, y = runs(5, n)
    settings = {"n_particles": n_particles, "dtype": dtype, "device": device}
    together = mfld.fit_many(estimators(5, **settings), X, y)
    for k, alone in enumerate(estimators(5, **settings)):
        alone.fit(X[k], y[k])
        np.testing.assert_allclose(together[k].particles_, alone.particles_, rtol=tolerance, atol=tolerance)
        assert together[k].particles_.dtype == dtype and together[k].classes_.tolist() == [-1, 1]
        for name, series in alone.history_.series.items():
            np.testing.assert_allclose(together[k].history_.series[name], series, rtol=tolerance)
        for name, snapshots in alone.history_.snapshots.items():
            found = together[k].history_.snapshots[name]
            np.testing.assert_allclose(found, snapshots, rtol=tolerance, atol=tolerance)
        if dtype == "float64":
            np.testing.assert_array_equal(together[k].predict(X[k]), alone.predict(X[k]))
        assert together[k].history_.finished and together[k].history_.settings == alone.history_.settings


def test_the_runs_are_different_runs_and_each_has_its_own_temperature():
    X, y = runs()
    models = mfld.fit_many(estimators(), X, y)
    heats = [model.history_.series["temperature"] for model in models]
    np.testing.assert_allclose(heats, [[0.1 / 40] * 6, [0.1] * 6, 0.2 * 0.5 ** np.arange(6)], rtol=1e-12)
    assert len({model.particles_.tobytes() for model in models}) == 3
    for k, model in enumerate(models):
        assert model.history_.snapshots["particles"].shape == (6, 50, 6)
        np.testing.assert_array_equal(model.history_.snapshots["particles"][-1], model.particles_)
        output = mfld.network(model.particles_.astype(float), data.with_bias(X[k]))
        assert model.history_.series["loss"][-1] == pytest.approx(mfld.logistic_loss(y[k] * output), rel=1e-5)


def test_shared_data_and_lists():
    X, y = runs(1)
    shared = mfld.fit_many(estimators(), X[0], y[0])
    for inputs, labels in (([X[0]] * 3, [list(y[0])] * 3), (X[0].tolist(), y[0].tolist()), (X[0][::-1][::-1], y[0])):
        for a, b in zip(shared, mfld.fit_many(estimators(), inputs, labels), strict=True):
            np.testing.assert_array_equal(a.particles_, b.particles_)
    assert not np.array_equal(shared[0].particles_, shared[1].particles_)


def test_data_of_one_and_labels_of_many():
    X, y = runs()
    words = np.where(y > 0, "same", "different")
    for k, model in enumerate(mfld.fit_many(estimators(), X[0], words)):
        assert model.classes_.tolist() == ["different", "same"]
        alone = estimators()[k].fit(X[0], y[k])
        np.testing.assert_allclose(model.particles_, alone.particles_, rtol=1e-3, atol=1e-3)


def test_a_single_run_is_a_fit():
    X, y = runs(1)
    (one,) = mfld.fit_many(estimators(1), X, y)
    np.testing.assert_array_equal(one.particles_, estimators(1)[0].fit(X[0], y[0]).particles_)


@pytest.mark.parametrize("every, steps", [(np.array([0, 3]), [0, 3]), ([3, 0], [0, 3]), (None, [0, 25])])
def test_arrays_as_parameters(every, steps):
    models = mfld.fit_many([e.set_params(record_every=every) for e in estimators()], *runs())
    assert all(e.history_.steps.tolist() == steps for e in models)
    with pytest.raises(ValueError, match=r"got unequal \['record_every'\]"):
        mfld.fit_many([*models[:2], clone(models[2]).set_params(record_every=[0, 4])], *runs())


def test_small_integer_types_count_all_steps():
    models = mfld.fit_many(estimators(n_steps=np.int8(127), record_every=None), *runs())
    assert all(e.history_.steps.tolist() == [0, 127] and e.history_.finished for e in models)


@pytest.mark.parametrize("device", DEVICES)
def test_divergence_of_one_run_is_an_error(device):
    with pytest.raises(FloatingPointError, match="lower step_size .now 1000.0."):
        mfld.fit_many(estimators(device=device, step_size=1e3), *runs())


def test_one_warning_for_data_that_is_not_scaled():
    X, y = load_breast_cancer(return_X_y=True)
    with pytest.warns(UserWarning, match="X has rows of typical length") as caught:
        mfld.fit_many(estimators(n_steps=1, record_every=None), [X, X / 2, X * 2], [y] * 3)
    assert len(caught) == 1 and caught[0].filename == __file__


# ------------------------------------------------------------------------------------------------ Ctrl-C
def assert_all_at_step(models, steps, X, y, every):
    """The records are kept, no run is finished, and every one has made exactly so many steps."""
    recorded = [step for step in every if step < steps]
    assert not any(e.history_.finished for e in models)
    assert all(e.history_.steps.tolist() == e.history_.snapshot_steps.tolist() == recorded for e in models)
    again = [clone(e).set_params(n_steps=steps, temperature=0.1, record_every=None) for e in models]
    for model, whole in zip(models, mfld.fit_many(again, X, y), strict=True):
        np.testing.assert_array_equal(model.particles_, whole.particles_)
        assert model.predict(np.zeros((1, 4))).shape == (1,)


def test_ctrl_c_stops_all_runs_and_keeps_their_records():
    """The interrupt comes while the first run is at step 12; no run goes on for long after."""

    def heat(step):
        if step == 12:
            raise KeyboardInterrupt
        return 0.1

    some = [e.set_params(temperature=0.1) for e in estimators(4, n_steps=100_000, record_every=[0, 5, 100_000])]
    some[0].set_params(temperature=heat)
    X, y = runs(4)
    start = time.perf_counter()
    mfld.fit_many(some, X, y)
    assert time.perf_counter() - start < 20  # 100,000 steps of four runs take longer
    assert_all_at_step(some, 12, X, y, [0, 5])


@pytest.mark.parametrize("kept", [_engine.KEPT, 0], ids=["one block", "blocks"])
@pytest.mark.parametrize("seconds", [0, 0.003, 0.01, 0.03])
def test_a_real_ctrl_c_at_any_moment_tears_no_step(monkeypatch, seconds, kept):
    """The signal comes by a thread, from step 3 on."""
    monkeypatch.setattr(mfld, "Engine", partial(_engine.Engine, kept=kept))
    monkeypatch.setattr(_engine, "AT_ONCE", 400)
    X, y, asked = *runs(4), []
    with ctrl_c() as press:

        def heat(step):
            asked.append(step)
            if step == 3:
                press(seconds)
            return 0.1

        some = [e.set_params(temperature=0.1) for e in estimators(4, n_steps=20_000, record_every=7)]
        some[0].set_params(temperature=heat)
        mfld.fit_many(some, X, y)
    assert_all_at_step(some, asked[-1], X, y, range(0, 20_000, 7))


# ------------------------------------------------------------------------------------------------ refusals
BAD_INPUT = [
    (lambda e, X, y: ([], X, y), "estimators must hold one or more, each once; got none"),
    (lambda e, X, y: ([e[0]] * 3, X, y), "estimators must hold one or more, each once; got"),
    (lambda e, X, y: ([*e[:2], clone(e[2]).set_params(n_steps=3)], X, y), r"got unequal \['n_steps'\]"),
    (lambda e, X, y: (e, [X[0], X[1], X[2][:20]], y), r"X must hold 3 runs of one shape; got 3, shapes \[\(20, 4"),
    (lambda e, X, y: (e, X[:2], y), "X must hold 3 runs of one shape; got 2"),
    (lambda e, X, y: (e, X, y[:2]), "y must hold 3 runs of one shape; got 2"),
    (lambda e, X, y: (e, X * np.nan, y), "NaN"),
    (lambda e, X, y: (e, X, [y[0], y[1], y[2] * 0]), "y must hold two classes, got 1 class"),
    (lambda e, X, y: (e, np.ma.masked_array(X, X > 0), y), "X must have no masked entries"),
    (lambda e, X, y: (e, X, np.ma.masked_array(y, y > 0)), "y must have no masked entries"),
    (lambda e, X, y: (e, X.astype(str), y), "X must hold real numbers; got dtype <U"),
    *[
        (lambda e, X, y, bad=bad: (e, bad, y), "X must be an array or a list that is not empty; got")
        for bad in ([], None, 5, np.array(5), {"a": 1}, np.empty((0, 40, 4)))
    ],
    *[
        (lambda e, X, y, bad=bad: (e, X, bad), "y must be an array or a list that is not empty; got")
        for bad in ([], None, 5, np.float64(5))
    ],
]


@pytest.mark.parametrize("change, message", BAD_INPUT)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        mfld.fit_many(*change(estimators(), *runs()))


@pytest.mark.filterwarnings("ignore:X has rows of typical length")
def test_a_refit_that_fails_leaves_all_estimators_as_they_were():
    """For every reason, in the last run too: what fits would have changed in the others is not changed."""
    X, y = runs()
    models = mfld.fit_many(estimators(), X, np.where(y > 0, "same", "different"))
    before, plain = [fitted(e) for e in models], [e.get_params() for e in models]
    new = np.array([X[0], X[1], X[2] * 1e300])[:, :, :3]

    def cold(step):
        return 0.1 if step < 5 else -1.0

    failures = [(ValueError, {}, change) for change, _ in BAD_INPUT]
    failures += [
        (FloatingPointError, {}, lambda e, X, y: (e, new, y)),
        (FloatingPointError, {"step_size": 1e3}, lambda e, X, y: (e, X[:, :, :3], y)),
        (ValueError, {"temperature": cold}, lambda e, X, y: (e, X[:, :, :3], y)),
        (ValueError, {"dtype": "float16"}, lambda e, X, y: (e, X[:, :, :3], y)),
        (ValueError, {"random_state": -1}, lambda e, X, y: (e, X[:, :, :3], y)),
    ]
    for error, settings, change in failures:
        with pytest.raises(error):
            mfld.fit_many(*change([e.set_params(**settings) for e in models], X, y))
        for model, old, parameters in zip(models, before, plain, strict=True):
            after = fitted(model.set_params(**parameters))
            assert after.keys() == old.keys() and all(after[k] is old[k] for k in old)
    assert set(models[2].predict(X[2])) <= {"same", "different"}
