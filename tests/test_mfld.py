"""Mean-field Langevin dynamics: the gradient, the step, the classifier, its devices, its refusals."""

import os
import warnings

import numpy as np
import pytest
import torch
from problems import STEP, DeviceArray, ctrl_c, fitted, problem, small, xor
from scipy.special import expit
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from feature_learning import _engine, data, mfld
from feature_learning.mfld import MeanFieldLangevinClassifier

SHAPES = [(1, 1, 1), (1, 5, 3), (7, 1, 2), (20, 30, 5), (3, 4, 1)]  # particles, data points, dimension


# ------------------------------------------------------------------------------------------------ output and loss
def test_logistic_loss():
    margins = np.array([-2.0, 0.0, 3.0])
    assert mfld.logistic_loss(margins) == pytest.approx(np.log1p(np.exp(-margins)).mean(), rel=1e-14)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mfld.logistic_loss(np.array([-1e4])) == 1e4
        assert mfld.logistic_loss(np.array([1e4])) == 0
        assert mfld.logistic_loss(np.array([-1e300, 1e300])) == 5e299
        assert mfld.logistic_loss(np.array([40.0])) == pytest.approx(np.exp(-40.0), rel=1e-14, abs=0)  # not 0
    two = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]])
    np.testing.assert_allclose(mfld.logistic_loss(two), [mfld.logistic_loss(row) for row in two], rtol=1e-14)
    assert mfld.logistic_loss(margins.astype("f4")).dtype == np.float64


# ------------------------------------------------------------------------------------------------ the gradient
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1.0, 15.0])
def test_gradient_against_finite_differences(shape, scale):
    """It is N times the gradient of the loss in the particles' coordinates."""
    particles, inputs, labels, _ = problem(*shape)
    h, expected = 1e-5, np.empty_like(particles)
    for i in np.ndindex(particles.shape):
        e = np.zeros_like(particles)
        e[i] = h
        up, down = (mfld.logistic_loss(labels * mfld.network(particles + s * e, inputs, scale)) for s in (1, -1))
        expected[i] = len(particles) * (up - down) / (2 * h)
    gradient = mfld.risk_gradient(particles, inputs, labels, scale)
    # h^2 / 6 times a third derivative of order R^3 (6e-8 at R = 15), N * 1e-15 / h = 2e-9 of rounding; six times that
    np.testing.assert_allclose(gradient, expected, atol=1e-10 * scale**3 + 1e-8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1.0, 15.0])
def test_gradient_against_autograd(shape, scale):
    particles, inputs, labels, _ = problem(*shape, seed=1)
    x, z, y = (torch.tensor(a) for a in (particles, inputs, labels))
    x.requires_grad_()
    output = scale * (torch.tanh(x[:, :-1] @ z.T) + 2 * torch.tanh(x[:, -1:])).mean(dim=0) / 3
    torch.nn.functional.softplus(-y * output).mean().backward()
    tolerance = {"rtol": 1e-11, "atol": 1e-12}  # the same float64 sums in another order
    found = mfld.risk_gradient(particles, inputs, labels, scale)
    np.testing.assert_allclose(found, len(particles) * x.grad.numpy(), **tolerance)
    np.testing.assert_allclose(mfld.network(particles, inputs, scale), output.detach().numpy(), **tolerance)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_is_the_formula(shape):
    """sum_j s_j (1 - A_j^2) z_j as it stands in the documentation, with the sigmoid of another library."""
    particles, inputs, labels, _ = problem(*shape, seed=2)
    a, c = np.tanh(particles[:, :-1] @ inputs.T), np.tanh(particles[:, -1])
    s = -labels * expit(-labels * 5 * (a + 2 * c[:, None]).mean(axis=0)) / len(labels)
    expected = 5 * np.column_stack([(s * (1 - a**2)) @ inputs, 2 * (1 - c**2) * s.sum()])
    np.testing.assert_allclose(mfld.risk_gradient(particles, inputs, labels), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [*SHAPES, (500, 300, 20)])
def test_float32_agrees_with_float64(shape):
    particles, inputs, labels, _ = problem(*shape, dtype=np.float32)
    twins = [a.astype(np.float64) for a in (particles, inputs, labels)]
    for f, arguments in ((mfld.network, slice(2)), (mfld.risk_gradient, slice(3))):
        found, expected = f(*(particles, inputs, labels)[arguments]), f(*twins[arguments])
        assert found.dtype == np.float32
        # float32 carries 6e-8; sums of hundreds of terms that partly cancel lose two digits at most
        assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


def test_nothing_is_changed_in_place():
    arrays = problem(6, 9, 3)
    before = [a.copy() for a in arrays]
    mfld.risk_gradient(*arrays[:3])
    moved = mfld.langevin_step(*arrays, **STEP)
    assert not any(np.shares_memory(moved, a) for a in arrays)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradient_where_the_loss_is_flat():
    """Saturated neurons and margins of thousands give finite numbers, and no warning."""
    particles, inputs, labels, _ = problem(4, 6, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradient = mfld.risk_gradient(particles * 1e6, inputs, labels, 5000.0)
        output = mfld.network(particles * 1e6, inputs, 5000.0)
    assert np.isfinite(gradient).all() and np.abs(labels * output).max() > 800  # exp overflows from 710 on


def test_views_of_arrays_are_arrays():
    """Reversed, strided and Fortran-ordered: the same numbers as of copies."""
    rng = np.random.default_rng(0)
    particles, inputs = rng.standard_normal((12, 10))[::-2, ::2], rng.standard_normal((4, 9)).T[::-1]
    labels, noise = rng.choice([-1.0, 1.0], 18)[::-2], np.asfortranarray(rng.standard_normal((6, 5)))
    copies = [np.ascontiguousarray(a) for a in (particles, inputs, labels, noise)]
    found, expected = mfld.langevin_step(particles, inputs, labels, noise, **STEP), mfld.langevin_step(*copies, **STEP)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)
    one, two = (
        small().fit(X, y).particles_ for X, y in ((xor()[0][::-1], xor()[1][::-1]), map(np.flip, xor(), (0, 0)))
    )
    np.testing.assert_array_equal(one, two)


# ------------------------------------------------------------------------------------------------ the step
def test_step_is_the_formula():
    particles, inputs, labels, noise = problem(6, 9, 3)
    gradient = mfld.risk_gradient(particles, inputs, labels, 7.0)
    expected = particles - 0.3 * gradient - 2 * 0.3 * 0.2 * 0.4 * particles + np.sqrt(2 * 0.2 * 0.3) * noise
    moved = mfld.langevin_step(particles, inputs, labels, noise, output_scale=7.0, **STEP)
    np.testing.assert_allclose(moved, expected, rtol=1e-12, atol=1e-13)  # rounding


def test_without_noise_it_is_gradient_descent():
    """At temperature 0 neither noise nor weight decay act, and the loss falls at every small step."""
    particles, inputs, labels, noise = problem(30, 20, 3)
    settings = {"step_size": 0.01, "temperature": 0, "weight_decay": 9.0}
    expected = particles - 0.01 * mfld.risk_gradient(particles, inputs, labels)
    np.testing.assert_array_equal(mfld.langevin_step(particles, inputs, labels, noise, **settings), expected)
    losses = []
    for _ in range(100):
        losses.append(mfld.logistic_loss(labels * mfld.network(particles, inputs)))
        particles = mfld.langevin_step(particles, inputs, labels, noise, **settings)
    assert np.all(np.diff(losses) < 0)


def test_steps_in_a_row_have_the_autocorrelation_of_the_linear_recursion():
    """Without a loss x(t + 1) = a x(t) + noise with a = 1 - 2 eta lambda lambda_1, so neighbours correlate by a."""
    rng = np.random.default_rng(0)
    q = 0.3 * 0.2 * 0.4
    exact = 1 / (2 * 0.4 * (1 - q))
    x = np.sqrt(exact) * rng.standard_normal((20_000, 5))
    noise = rng.standard_normal(x.shape)
    after = mfld.langevin_step(x, np.ones((1, 4)), np.ones(1), noise, output_scale=0.0, **STEP)
    # the product of two unit normal numbers of correlation a has variance 1 + a^2: five standard deviations
    assert np.mean(x * after) / exact == pytest.approx(1 - 2 * q, abs=5 * np.sqrt(2 / x.size))


def test_permuting_particles_only_permutes_the_result():
    straight, inputs, labels, noise = problem(40, 25, 4)
    order = np.random.default_rng(9).permutation(40)
    permuted = straight[order]
    for _ in range(3):
        straight = mfld.langevin_step(straight, inputs, labels, noise, **STEP)
        permuted = mfld.langevin_step(permuted, inputs, labels, noise[order], **STEP)
    np.testing.assert_allclose(permuted, straight[order], rtol=1e-10, atol=1e-12)  # the mean, in another order


def cupy():
    """CuPy's arrays, where there is a card."""
    module = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not module.cuda.is_available():
        pytest.skip("CuPy finds no GPU")
    return module.asarray


@pytest.mark.parametrize("kind", ["stand-in", "cupy"])
def test_the_same_lines_run_on_the_arrays_of_a_device(kind):
    """No array leaves the device on its way through the formulas."""
    make = DeviceArray if kind == "stand-in" else cupy()
    host = problem(6, 9, 3)
    device = particles, inputs, labels, noise = [make(a) for a in host]
    with pytest.raises(TypeError):
        particles + host[0]  # the stand-in is as strict
    with pytest.raises(TypeError):
        np.asarray(particles)
    output, expected = mfld.network(particles, inputs, 7.0), mfld.network(*host[:2], 7.0)
    pairs = [
        (output, expected),
        (mfld.logistic_loss(labels * output), mfld.logistic_loss(host[2] * expected)),
        (mfld.risk_gradient(particles, inputs, labels), mfld.risk_gradient(*host[:3])),
        (mfld.langevin_step(*device, **STEP), mfld.langevin_step(*host, **STEP)),
        (data.with_bias(noise), data.with_bias(host[3])),
    ]
    for found, wanted in pairs:
        assert type(found) is type(particles)
        np.testing.assert_allclose(found.get(), wanted, rtol=1e-12, atol=1e-13)


# ------------------------------------------------------------------------------------------------ the classifier
def test_learns_xor_from_labels_that_are_words():
    X, y = data.sparse_parity(300, 10, 2, 0)
    X_test, y_test = data.sparse_parity(1000, 10, 2, 1)
    words, words_test = (np.where(v > 0, "same", "different") for v in (y, y_test))
    classifier = MeanFieldLangevinClassifier(500, 300, step_size=0.5, random_state=0).fit(X, words)
    assert classifier.classes_.tolist() == ["different", "same"] and classifier.n_features_in_ == 10
    assert classifier.score(X_test, words_test) > 0.95
    assert classifier.score(X_test, np.where(words_test == "same", "different", "same")) < 0.05
    loss = classifier.history_.series["loss"]
    assert loss[-1] < 0.5 * loss[0]


@pytest.mark.parametrize("labels", [(0, 1), (-1.0, 1.0), (False, True), ("no", "yes"), (5, 3)])
def test_labels_of_any_kind_give_the_same_run(labels):
    X, y = xor()
    low, high = sorted(labels)
    one = small().fit(X, y)
    two = small().fit(X, np.where(y > 0, high, low))
    np.testing.assert_array_equal(one.particles_, two.particles_)
    np.testing.assert_array_equal(two.predict(X) == high, one.predict(X) > 0)
    assert two.predict(X).dtype == two.classes_.dtype


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probabilities_and_decisions(dtype):
    X, y = xor()
    classifier = small(dtype=dtype).fit(X.astype(np.float32), y.astype(np.float32))
    f, p = classifier.decision_function(X), classifier.predict_proba(X)
    assert classifier.particles_.dtype == dtype and f.dtype == np.float64 and f.shape == (60,) and p.shape == (60, 2)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-15)
    np.testing.assert_allclose(p[:, 1], expit(f), rtol=1e-15)
    np.testing.assert_array_equal(classifier.predict(X), np.where(f > 0, 1, -1))
    expected = mfld.network(classifier.particles_.astype(float), data.with_bias(X), 15.0)
    np.testing.assert_allclose(f, expected, rtol=1e-12, atol=1e-12)  # the same float64 sums


def test_decisions_in_blocks():
    """Ten million numbers at a time: with three million particles three rows, so four rows are two blocks."""
    classifier = small(n_steps=0).fit(*xor(10, 1 + 1))
    classifier.particles_ = np.random.default_rng(0).standard_normal((3_000_000, 4)).astype(np.float32)
    X = np.random.default_rng(1).standard_normal((4, 2))
    blocked = classifier.decision_function(X)
    particles = classifier.particles_.astype(float)
    one_by_one = [mfld.network(particles, data.with_bias(row[None]), 15.0)[0] for row in X]
    np.testing.assert_allclose(blocked, one_by_one, rtol=1e-9, atol=1e-12)  # means of three million numbers


def test_parameters_clone_and_cross_validation():
    classifier = small(temperature=0.01, output_scale=3.0)
    copy = clone(classifier)
    assert copy is not classifier and copy.get_params() == classifier.get_params()
    assert copy.set_params(n_particles=7).n_particles == 7 and classifier.n_particles == 20
    assert set(classifier.get_params()) == {
        "n_particles",
        "n_steps",
        "step_size",
        "temperature",
        "weight_decay",
        "output_scale",
        "record_every",
        "dtype",
        "device",
        "random_state",
    }
    X, y = data.sparse_parity(200, 3, 2, 0)
    scores = cross_val_score(MeanFieldLangevinClassifier(200, 200, step_size=0.5, random_state=0), X, y, cv=3)
    assert scores.min() > 0.95


def test_seeds():
    X, y = xor()
    a, b, c = (small(random_state=s).fit(X, y).particles_ for s in (0, np.random.default_rng(0), 1))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, small().fit(X, y).particles_)
    assert not np.array_equal(a, c)
    rng = np.random.default_rng(0)
    first, second = (small(random_state=rng).fit(X, y).particles_ for _ in range(2))
    assert not np.array_equal(first, second)  # a generator moves on
    assert not np.array_equal(*(small(random_state=None).fit(X, y).particles_ for _ in range(2)))


def test_global_random_state_is_neither_read_nor_written():
    before, torch_before = np.random.get_state(), torch.get_rng_state()
    small().fit(*xor())
    small(random_state=None).fit(*xor())
    after = np.random.get_state()
    assert before[2:] == after[2:] and np.array_equal(before[1], after[1])
    assert torch.equal(torch_before, torch.get_rng_state())


# ------------------------------------------------------------------------------------------------ record and schedule
@pytest.mark.parametrize(
    "every, steps",
    [
        (None, [0, 12]),
        (5, [0, 5, 10, 12]),
        (1, list(range(13))),
        (1000, [0, 12]),
        ([3, 0, 3], [0, 3]),
        ([2], [2]),
        (np.array([12]), [12]),
    ],
)
def test_recording(every, steps):
    X, y = xor()
    plain = small().fit(X, y)
    classifier = small(record_every=every).fit(X, y)
    history = classifier.history_
    assert history.steps.tolist() == history.snapshot_steps.tolist() == steps and history.finished is True
    assert set(history.series) == {"loss", "temperature"} and set(history.snapshots) == {"particles"}
    assert history.snapshots["particles"].shape == (len(steps), 20, 6)
    assert history.snapshots["particles"].dtype == np.float32
    np.testing.assert_array_equal(classifier.particles_, plain.particles_)  # recording does not change the run
    for step, loss, particles in zip(steps, history.series["loss"], history.snapshots["particles"], strict=True):
        expected = mfld.logistic_loss(y * mfld.network(particles.astype(float), data.with_bias(X)))
        assert loss == pytest.approx(expected, rel=1e-5)  # the run is in float32
        if step == 12:
            np.testing.assert_array_equal(particles, classifier.particles_)
    np.testing.assert_array_equal(history.series["temperature"], np.full(len(steps), 0.1 / 60))


def test_no_steps():
    X, y = xor()
    classifier = small(n_steps=0).fit(X, y)
    assert classifier.history_.steps.tolist() == [0] and classifier.history_.finished
    start = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    np.testing.assert_array_equal(classifier.particles_, start)


def test_settings_are_kept():
    settings = small(temperature=0.5, n_particles=np.int64(20)).fit(*xor()).history_.settings
    assert settings == {
        "n_particles": 20,
        "n_steps": 12,
        "step_size": 0.2,
        "temperature": 0.5,
        "weight_decay": 0.1,
        "output_scale": 15.0,
        "record_every": None,
        "dtype": "float32",
        "device": "auto",
        "random_state": 0,
        "n": 60,
    }


def test_annealing():
    asked = []

    def schedule(step):
        asked.append(step)
        return 0.1 * 0.5 ** (step // 4)

    X, y = xor()
    history = small(temperature=schedule, record_every=[0, 3, 4, 11, 12]).fit(X, y).history_
    assert asked == list(range(13))
    np.testing.assert_array_equal(history.series["temperature"], [0.1, 0.1, 0.05, 0.025, 0.0125])
    constant, called = (small(temperature=t).fit(X, y).particles_ for t in (0.1, lambda _: 0.1))
    np.testing.assert_array_equal(constant, called)
    assert not np.array_equal(constant, small(temperature=schedule).fit(X, y).particles_)


def test_no_temperature_means_the_papers():
    X, y = xor()
    np.testing.assert_array_equal(small().fit(X, y).particles_, small(temperature=0.1 / 60).fit(X, y).particles_)


def test_noiseless_run_descends():
    X, y = xor()
    classifier = small(temperature=0, n_steps=60, step_size=0.05, dtype="float64", record_every=1).fit(X, y)
    assert np.all(np.diff(classifier.history_.series["loss"]) < 0)


@pytest.mark.parametrize("value", [-1e-9, float("nan"), None, "0.1", np.array([0.1])], ids=repr)
def test_schedule_that_gives_no_temperature(value):
    classifier = small(temperature=lambda step: 0.1 if step < 5 else value)
    with pytest.raises(ValueError, match="temperature must be a number >= 0; got"):
        classifier.fit(*xor())
    assert not hasattr(classifier, "particles_")


# ------------------------------------------------------------------------------------------------ ends of a run
@pytest.mark.parametrize("n_particles, n", [(20, 60), (1000, 300)], ids=["plain", "engine"])
@pytest.mark.parametrize("every", [None, 2, [9]])
def test_interrupted_fit_is_usable(n_particles, n, every):
    def schedule(step):
        if step == 7:
            raise KeyboardInterrupt
        return 0.1

    X, y = xor(n)
    classifier = small(n_particles=n_particles, temperature=schedule, record_every=every).fit(X, y)
    history = classifier.history_
    expected = {"None": [0], "2": [0, 2, 4, 6], "[9]": []}[str(every)]
    assert history.finished is False
    assert history.steps.tolist() == history.snapshot_steps.tolist() == expected
    assert all(len(v) == len(expected) for v in (*history.series.values(), *history.snapshots.values()))
    seven = small(n_particles=n_particles, temperature=0.1, n_steps=7).fit(X, y)
    np.testing.assert_array_equal(classifier.particles_, seven.particles_)
    np.testing.assert_array_equal(classifier.predict_proba(X), seven.predict_proba(X))
    assert clone(classifier).set_params(temperature=0.1).fit(X, y).history_.finished


@pytest.mark.parametrize("n_particles, n", [(20, 60), (1000, 300)], ids=["plain", "engine"])
@pytest.mark.parametrize("seconds", [0, 0.003, 0.01, 0.03])
def test_ctrl_c_keeps_whole_steps(n_particles, n, seconds):
    """A real signal, from step 3 on at any moment: the records are kept and the particles are those of a whole step."""
    X, y, asked = *xor(n), []
    settings = {"n_particles": n_particles, "dtype": "float64"}
    with ctrl_c() as press:

        def schedule(step):
            asked.append(step)
            if step == 3:
                press(seconds)
            return 0.1

        classifier = small(**settings, n_steps=50_000, temperature=schedule, record_every=2).fit(X, y)
    history, steps = classifier.history_, asked[-1]
    assert history.finished is False and history.steps.tolist() == list(range(0, steps, 2))
    assert len(history.snapshots["particles"]) == len(history.series["loss"]) == len(history.steps)
    whole = small(**settings, n_steps=steps, temperature=0.1, record_every=[history.steps[-1]]).fit(X, y)
    np.testing.assert_array_equal(classifier.particles_, whole.particles_)
    np.testing.assert_array_equal(history.snapshots["particles"][-1], whole.history_.snapshots["particles"][0])


@pytest.mark.parametrize("n_steps", [np.int8(127), np.uint8(255), np.int16(300)])
def test_small_integer_types_count_all_steps(n_steps):
    X, y = xor()
    found = small(n_particles=np.int8(20), n_steps=n_steps, record_every=np.uint8(100)).fit(X, y)
    plain = small(n_steps=int(n_steps)).fit(X, y)
    assert found.history_.steps[-1] == n_steps and found.history_.steps[1] == 100 and found.history_.finished
    np.testing.assert_array_equal(found.particles_, plain.particles_)


def test_divergence_between_two_records_ends_the_run_within_ten_steps():
    asked = []

    def schedule(step):
        asked.append(step)
        return 0.1 if step < 33 else 1e30

    with pytest.raises(FloatingPointError, match="diverged by step 40: loss nan"):
        small(temperature=schedule, n_steps=10_000).fit(*xor())
    assert asked[-1] == 40


@pytest.mark.parametrize("n_particles", [1, 10, 50, 500, 2000])
@pytest.mark.parametrize("seed", range(3))
def test_step_size_of_a_thousand_diverges(n_particles, seed):
    """With few particles the loss need not rise: the network is bounded. The size of the move gives it away."""
    X, y = data.sparse_parity(100, 5, 2, seed)
    classifier = MeanFieldLangevinClassifier(n_particles, 30, step_size=1e3, random_state=seed)
    with warnings.catch_warnings(), pytest.raises(FloatingPointError, match=r"diverged by step \d+: loss") as caught:
        warnings.simplefilter("error")
        classifier.fit(X, y)
    assert "lower step_size (now 1000.0)" in str(caught.value)
    assert not hasattr(classifier, "particles_") and not hasattr(classifier, "history_")


@pytest.mark.parametrize("every", [None, [0], 1])
@pytest.mark.parametrize(
    "settings",
    [{"temperature": 1e3, "weight_decay": 1e3}, {"temperature": 1e3, "weight_decay": 1e3, "output_scale": 1e-6}],
    ids=["loud", "quiet"],
)
def test_never_returns_nan(settings, every):
    """A decay of more than 2 a step makes particles grow to infinity; no choice of what to record hides it."""
    with warnings.catch_warnings(), pytest.raises(FloatingPointError, match="lower step_size"):
        warnings.simplefilter("error")
        small(**settings, record_every=every, n_steps=37).fit(*xor())


def test_never_returns_nan_when_only_the_last_steps_go_wrong():
    """Steps 33 to 37 lie between two of the regular checks; the last step is looked at all the same."""
    with pytest.raises(FloatingPointError, match="diverged by step 37: loss nan"):
        small(temperature=lambda step: 0.1 if step < 33 else 1e30, n_steps=37, record_every=[0]).fit(*xor())


@pytest.mark.parametrize("n_particles", [1, 20, 500])
@pytest.mark.parametrize("temperature", [None, 0, 1.0])
@pytest.mark.parametrize("step_size", [0.05, 1.0])
def test_no_false_alarm(n_particles, temperature, step_size):
    X, y = data.sparse_parity(50, 5, 2, 0)
    for seed in range(3):
        settings = {"step_size": step_size, "temperature": temperature, "random_state": seed}
        assert np.isfinite(MeanFieldLangevinClassifier(n_particles, 60, **settings).fit(X, y).particles_).all()


@pytest.mark.filterwarnings("ignore:X has rows of typical length")
@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_of_any_size_give_finite_numbers(scale, dtype):
    X, y = xor(40, 1 + 1)
    classifier = small(dtype=dtype).fit(X * scale, y)
    assert np.isfinite(classifier.particles_).all() and np.isfinite(classifier.predict_proba(X * scale)).all()


def test_inputs_too_large_for_float32():
    X, y = xor()
    with warnings.catch_warnings(), pytest.raises(FloatingPointError, match="scale X"):
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="X has rows of typical length inf")
        small().fit(X * 1e300, y)


def test_data_that_is_not_scaled_is_warned_of_once():
    """As it comes, this data set gives one class for all rows; scaled as the warning says, the network learns it."""
    X, y = load_breast_cancer(return_X_y=True)
    model = MeanFieldLangevinClassifier(200, 200, random_state=0)
    with pytest.warns(UserWarning, match="X has rows of typical length 897.*make_pipeline.StandardScaler") as caught:
        model.fit(X, y)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert quietly(lambda: make_pipeline(StandardScaler(), model).fit(X, y)).score(X, y) > 0.95


@pytest.mark.parametrize("d", [1, 4, 100, 1000])
def test_data_of_ordinary_size_brings_no_warning(d):
    X = np.random.default_rng(0).standard_normal((100, d))
    for inputs in (X, StandardScaler().fit_transform(X), data.sparse_parity(100, d, 1, 0)[0]):
        quietly(lambda inputs=inputs: small(n_steps=1).fit(inputs, np.arange(100) % 2))


@pytest.mark.parametrize("d, longest", [(1, 10), (4, 10), (100, 20)])
def test_how_long_rows_may_be_before_they_are_warned_of(d, longest):
    """Half of them longer than 10, or than twice the length of scaled data in high dimensions; a few may be."""
    X = np.full((60, d), longest / np.sqrt(d))
    X[:20] *= 100
    model, y = small(n_steps=0), np.arange(60) % 2
    quietly(lambda: model.fit(np.where(X > 100, X, 0.95 * X), y))
    with pytest.warns(UserWarning, match=f"typical length {1.05 * longest:.3g}, where"):
        model.fit(1.05 * X, y)


@pytest.mark.parametrize("n_particles, n, d", [(1, 2, 1), (1, 50, 3), (3, 2, 1), (2, 7, 30)])
def test_smallest_shapes(n_particles, n, d):
    X = np.random.default_rng(0).standard_normal((n, d))
    classifier = small(n_particles=n_particles).fit(X, np.arange(n) % 2)
    assert classifier.particles_.shape == (n_particles, d + 2) and classifier.predict(X[:1]).shape == (1,)


# ------------------------------------------------------------------------------------------------ devices
class DriverError(Exception):
    """The errors of a GPU's library share no narrower base class."""


def broken(*_args, **_settings):
    raise DriverError("driver too old")


@pytest.fixture
def gpu(monkeypatch):
    """Pretends that PyTorch finds a GPU, or none, which takes a small computation, or refuses it."""

    def pretend(kind, works=True):
        arange = torch.arange
        monkeypatch.setattr(torch.cuda, "is_available", lambda: kind == "cuda")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: kind == "mps")
        monkeypatch.setattr(torch, "arange", (lambda *a, device, **k: arange(*a, **k)) if works else broken)

    return pretend


def quietly(call):
    """The result of `call`, which must not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call()


def test_cpu_asks_no_gpu(gpu):
    gpu("cuda", works=False)
    assert quietly(lambda: _engine.find_device("cpu", "float32")).type == "cpu"


def test_machine_without_gpu(gpu):
    gpu(None)
    assert quietly(lambda: _engine.find_device("auto", "float32")).type == "cpu"
    with pytest.raises(RuntimeError, match="device='gpu' cannot be used here: PyTorch finds no GPU; take device='cpu'"):
        small(device="gpu").fit(*xor())


def test_gpu_that_does_not_work(gpu):
    """`auto` says once why it falls back, and where it was called; a GPU that was asked for by name is an error."""
    gpu("cuda", works=False)
    with pytest.raises(RuntimeError, match="device='gpu' cannot be used here: driver too old"):
        small(device="gpu").fit(*xor())
    with pytest.warns(UserWarning, match="cannot be used .driver too old.; the CPU does the work") as caught:
        classifier = small().fit(*xor())
    assert len(caught) == 1 and caught[0].filename == __file__
    np.testing.assert_array_equal(classifier.particles_, small(device="cpu").fit(*xor()).particles_)


@pytest.mark.parametrize(
    "kind, name, dtype, expected",
    [
        ("cuda", "auto", "float32", "cuda"),
        ("cuda", "gpu", "float64", "cuda"),
        ("mps", "auto", "float32", "mps"),
        ("mps", "auto", "float64", "cpu"),  # Apple's card has no double precision
        ("mps", "gpu", "float64", "mps"),  # and says so when it is asked
    ],
)
def test_working_gpu_is_taken(gpu, kind, name, dtype, expected):
    gpu(kind)
    assert quietly(lambda: _engine.find_device(name, dtype)).type == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")
def test_fit_on_the_gpu():
    """Noise comes from a generator of its own, so a run without noise is the same run."""
    X, y = xor()
    host, device = (small(temperature=0, record_every=4, device=d).fit(X, y) for d in ("cpu", "gpu"))
    np.testing.assert_allclose(device.particles_, host.particles_, rtol=1e-5, atol=1e-6)  # float32
    for array in (device.particles_, device.history_.snapshots["particles"], *device.history_.series.values()):
        assert type(array) is np.ndarray  # what is handed on lies on the host
    np.testing.assert_allclose(device.history_.series["loss"], host.history_.series["loss"], rtol=1e-5)
    np.testing.assert_allclose(device.decision_function(X), host.decision_function(X), rtol=1e-3, atol=1e-4)
    noisy = [small(device="gpu", random_state=s).fit(X, y).particles_ for s in (0, 0, 1)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2]) and not np.array_equal(noisy[0], device.particles_)


# ------------------------------------------------------------------------------------------------ bad input
WHOLE, POSITIVE, NOT_NEGATIVE = "must be a whole number >= 1", "must be a number > 0", "must be a number >= 0"
STEPS = "must be None, a whole number >= 1, or steps from 0 to 12"
SOURCE_OF_RANDOMNESS = "must be a numpy.random.Generator, a whole number >= 0 or None"
BAD_PARAMETERS = [
    *[("n_particles", v, WHOLE) for v in (0, -5, 2.0, True, "10", None, float("nan"))],
    *[("n_steps", v, "must be a whole number >= 0") for v in (-1, 1.5, False, None)],
    *[("step_size", v, POSITIVE) for v in (0, -0.2, 10**400, float("inf"), float("nan"), "0.2", None, True, 1j)],
    *[("temperature", v, NOT_NEGATIVE) for v in (-0.1, 10**400, float("nan"), float("inf"), "0.1", True, [0.1])],
    *[("weight_decay", v, NOT_NEGATIVE) for v in (-1e-9, None, "x")],
    *[("output_scale", v, POSITIVE) for v in (0, -15, None)],
    *[("dtype", v, "must be one of float32, float64") for v in ("float16", np.float32, None, 32)],
    *[("device", v, "must be one of auto, cpu, gpu") for v in ("cuda", None, 0)],
    *[("record_every", v, STEPS) for v in (0, -1, 2.5, [13], [], True)],
    *[("random_state", v, SOURCE_OF_RANDOMNESS) for v in ("0", -1, 1.5, True)],
]


@pytest.mark.parametrize("name, value, allowed", BAD_PARAMETERS, ids=[f"{n}={v!r:.20}" for n, v, _ in BAD_PARAMETERS])
def test_bad_parameter_before_any_work(name, value, allowed, monkeypatch):
    """The message names the argument, what is allowed and what came; no step is made and nothing is fitted."""
    monkeypatch.setattr(mfld, "Engine", broken)
    classifier = small(**{name: value})
    with pytest.raises(ValueError) as caught:
        classifier.fit(*xor())
    assert (
        str(caught.value)
        == f"{name} {allowed}; got {'a whole number above 10^100' if value == 10**400 else repr(value)}"
    )
    assert not hasattr(classifier, "particles_") and not hasattr(classifier, "classes_")


X, Y = xor()
BAD_DATA = [
    (X[:0], Y[:0], "0 sample"),
    (np.where(X > 0, np.nan, X), Y, "X contains NaN"),
    (np.where(X > 0, np.inf, X), Y, "X contains infinity"),
    (X[:, :0], Y, "0 feature"),
    (X[0], Y[:1], "Expected 2D array"),
    (X, Y[:-1], "inconsistent numbers of samples"),
    (X, np.arange(60) % 3, "y must hold two classes, got 3 classes"),
    (X, np.ones(60), "y must hold two classes, got 1 class"),
    (X, np.where(Y > 0, np.nan, Y), "y contains NaN"),
    (X, X[:, 0] + np.arange(60) / 7, "Unknown label type"),
]


@pytest.mark.parametrize("bad_X, bad_y, message", BAD_DATA, ids=[m for *_, m in BAD_DATA])
def test_bad_data(bad_X, bad_y, message):
    with pytest.raises(ValueError, match=message):
        small().fit(bad_X, bad_y)


DATES = np.arange(240).reshape(60, 4)
NO_NUMBERS = [
    (np.ma.masked_array(X, X > 0), "X must have no masked entries; got 131"),
    (list(np.ma.masked_array(X, X > 0)), "X must have no masked entries; got 131"),
    (X.astype(str), "X must hold real numbers; got dtype <U"),
    (X.astype(str).tolist(), "X must hold real numbers; got dtype <U"),
    (X.astype(bytes), "X must hold real numbers; got dtype .S"),
    (X.astype(str).astype(object), "X must hold real numbers; got dtype object"),
    ([["red"], ["blue"]] * 30, "X must hold real numbers; got dtype <U"),
    (DATES.astype("M8[D]"), "X must hold real numbers; got dtype datetime64"),
    (DATES.astype("m8[s]"), "X must hold real numbers; got dtype timedelta64"),
    ([[np.datetime64("2020-01-01")]] * 60, "X must hold real numbers; got dtype datetime64"),
    (X + 1j, "Complex data not supported"),
]


@pytest.mark.parametrize("values, message", NO_NUMBERS)
def test_what_is_no_number_is_refused(values, message):
    """In `fit` and in what uses a fitted classifier."""
    model = small(n_steps=0).fit(X[:, : np.shape(values)[1]], Y)
    for method in (lambda x: model.fit(x, Y), model.predict, model.predict_proba, model.decision_function):
        with pytest.raises(ValueError, match=message):
            method(values)


def test_masks_that_hide_nothing_and_objects_that_are_numbers_are_taken():
    plain = small().fit(X, Y)
    for values, labels in (
        (np.ma.masked_array(X), np.ma.masked_array(Y)),
        (X.astype(object), Y),
        (X.tolist(), list(Y)),
    ):
        np.testing.assert_array_equal(small().fit(values, labels).particles_, plain.particles_)
    with pytest.raises(ValueError, match="y must have no masked entries; got 31"):
        small().fit(X, np.ma.masked_array(Y, Y > 0))


def heat_that_turns_negative(step):
    return 0.1 if step < 5 else -1.0


class Stop(BaseException):
    """What no handler of errors expects."""


def heat_that_stops(step):
    if step == 5:
        raise Stop
    return 0.1


BAD_REFITS = [
    *[({}, bad_X, bad_y, ValueError) for bad_X, bad_y, _ in BAD_DATA],
    *[({}, bad_X, Y, ValueError) for bad_X, _ in NO_NUMBERS],
    *[({name: value}, X, Y, ValueError) for name, value, _ in BAD_PARAMETERS],
    ({"step_size": 1e3}, X, Y > 0, FloatingPointError),
    ({"step_size": 1e3, "n_particles": 2000}, X, Y > 0, FloatingPointError),
    ({}, X[:, :3] * 1e300, Y > 0, FloatingPointError),
    ({"temperature": heat_that_turns_negative}, X[:, :2], Y > 0, ValueError),
    ({"temperature": heat_that_stops}, X[:, :2], Y > 0, Stop),
    *([] if torch.cuda.is_available() else [({"device": "gpu"}, X[:, :2], Y > 0, RuntimeError)]),
]


@pytest.mark.filterwarnings("ignore:X has rows of typical length")
def test_a_refit_that_fails_leaves_a_fitted_classifier_as_it_was():
    """For every reason: data, labels, parameters, divergence, a schedule, an error of another kind."""
    model = small().fit(X, np.where(Y > 0, "same", "different"))
    plain, before, answers = model.get_params(), fitted(model), model.predict_proba(X)
    assert set(before) == {"particles_", "history_", "classes_", "n_features_in_"}
    for settings, bad_X, bad_y, error in BAD_REFITS:
        with pytest.raises(error):
            model.set_params(**settings).fit(bad_X, bad_y)
        after = fitted(model.set_params(**plain))
        assert after.keys() == before.keys() and all(after[k] is before[k] for k in before), settings
    np.testing.assert_array_equal(model.predict_proba(X), answers)
    assert set(model.predict(X)) <= {"same", "different"}
    model.fit(X[:, :3], Y > 0)  # and one that succeeds leaves nothing of the old one
    assert model.classes_.tolist() == [False, True] and model.n_features_in_ == 3


def test_a_refit_forgets_the_names_of_columns():
    model = small().fit(X, Y)
    model.feature_names_in_ = np.array(["a", "b", "c", "d"], dtype=object)  # as a table with names leaves it
    quietly(lambda: model.fit(X, Y).predict(X))
    assert not hasattr(model, "feature_names_in_")


# ------------------------------------------------------------------------------------------------ scikit-learn's checks
@pytest.mark.filterwarnings("ignore:X has rows of typical length")
@parametrize_with_checks([MeanFieldLangevinClassifier(n_particles=200, n_steps=300)])
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif("CI" not in os.environ, reason="takes more than a minute: set CI=1 to run it")
def test_scikit_learn_conventions_of_the_default_estimator():
    """Every check passes; skipped are only those of packages that are not there."""
    results = check_estimator(MeanFieldLangevinClassifier(), on_skip=None, on_fail=None)
    assert len(results) > 40
    for result in results:
        absent = result["status"] == "skipped" and any(
            reason in str(result["exception"]) for reason in ("SCIPY_ARRAY_API is not set", "pandas is not installed")
        )
        assert result["status"] == "passed" or absent, (result["check_name"], result["exception"])
