"""Mean-field Langevin dynamics: the gradient, the step, the classifier, its devices, its refusals."""

import os
import sys
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import get_ident

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import kstest, norm
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from feature_learning import data, mfld
from feature_learning.mfld import MeanFieldLangevinClassifier

SHAPES = [(1, 1, 1), (1, 5, 3), (7, 1, 2), (20, 30, 5), (3, 4, 1)]  # particles, data points, dimension


def problem(n_particles, n, d, seed=0, dtype=np.float64):
    """Particles, inputs with a column of ones, labels, and a matrix of noise."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([-1.0, 1.0], n)
    arrays = rng.standard_normal((n_particles, d + 2)), mfld.with_bias(rng.standard_normal((n, d))), labels
    return *(a.astype(dtype) for a in arrays), rng.standard_normal((n_particles, d + 2)).astype(dtype)


def xor(n=60, d=4, seed=0):
    return data.sparse_parity(n, d, 2, seed)


def small(**settings):
    """A classifier that is quick to fit."""
    return MeanFieldLangevinClassifier(**({"n_particles": 20, "n_steps": 12, "random_state": 0} | settings))


STEP = {"step_size": 0.3, "temperature": 0.2, "weight_decay": 0.4}


# ------------------------------------------------------------------------------------------------ output and loss
def test_with_bias():
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    z = mfld.with_bias(x)
    assert z.dtype == np.float32 and z.tolist() == [[0, 1, 1], [2, 3, 1], [4, 5, 1]]


def test_logistic_loss():
    margins = np.array([-2.0, 0.0, 3.0])
    assert mfld.logistic_loss(margins) == pytest.approx(np.log1p(np.exp(-margins)).mean(), rel=1e-14)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mfld.logistic_loss(np.array([-1e4])) == 1e4
        assert mfld.logistic_loss(np.array([1e4])) == 0
        assert mfld.logistic_loss(np.array([-1e300, 1e300])) == 5e299
        assert mfld.logistic_loss(np.array([40.0])) == pytest.approx(np.exp(-40.0), rel=1e-14, abs=0)  # not 0


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
    output, gradient = mfld.risk_gradient(particles, inputs, labels, scale)
    # h^2 / 6 times a third derivative of order R^3 (6e-8 at R = 15), N * 1e-15 / h = 2e-9 of rounding; six times that
    np.testing.assert_allclose(gradient, expected, atol=1e-10 * scale**3 + 1e-8)
    np.testing.assert_allclose(output, mfld.network(particles, inputs, scale), rtol=1e-12, atol=1e-12)  # order of sums


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1.0, 15.0])
def test_gradient_against_autograd(shape, scale):
    particles, inputs, labels, _ = problem(*shape, seed=1)
    x, z, y = (torch.tensor(a) for a in (particles, inputs, labels))
    x.requires_grad_()
    output = scale * (torch.tanh(x[:, :-1] @ z.T) + 2 * torch.tanh(x[:, -1:])).mean(dim=0) / 3
    torch.nn.functional.softplus(-y * output).mean().backward()
    found_output, found = mfld.risk_gradient(particles, inputs, labels, scale)
    tolerance = {"rtol": 1e-11, "atol": 1e-12}  # the same float64 sums in another order
    np.testing.assert_allclose(found, len(particles) * x.grad.numpy(), **tolerance)
    np.testing.assert_allclose(found_output, output.detach().numpy(), **tolerance)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_formula_before_it_was_folded(shape):
    """sum_j s_j (1 - A_j^2) z_j as it stands in the documentation, without the trick that saves an array."""
    particles, inputs, labels, _ = problem(*shape, seed=2)
    a, c = np.tanh(particles[:, :-1] @ inputs.T), np.tanh(particles[:, -1])
    s = -labels * expit(-labels * 5 * (a + 2 * c[:, None]).mean(axis=0)) / len(labels)
    expected = 5 * np.column_stack([(s * (1 - a**2)) @ inputs, 2 * (1 - c**2) * s.sum()])
    np.testing.assert_allclose(mfld.risk_gradient(particles, inputs, labels)[1], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [*SHAPES, (500, 300, 20)])
def test_float32_agrees_with_float64(shape):
    particles, inputs, labels, _ = problem(*shape, dtype=np.float32)
    exact = mfld.risk_gradient(*(a.astype(np.float64) for a in (particles, inputs, labels)))
    for found, expected in zip(mfld.risk_gradient(particles, inputs, labels), exact, strict=True):
        assert found.dtype == np.float32
        # float32 carries 6e-8; sums of hundreds of terms that partly cancel lose two digits at most
        assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


def test_buffers_change_nothing():
    work = {}
    for seed in range(3):
        particles, inputs, labels, _ = problem(6, 9, 3, seed)
        output, gradient = mfld.risk_gradient(particles, inputs, labels, work=work)
        fresh_output, fresh = mfld.risk_gradient(particles, inputs, labels)
        np.testing.assert_array_equal(gradient, fresh)
        np.testing.assert_array_equal(output, fresh_output)
        assert gradient is work["gradient"]


def test_gradient_leaves_its_arguments_alone():
    arrays = problem(6, 9, 3)[:3]
    before = [a.copy() for a in arrays]
    mfld.risk_gradient(*arrays)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradient_where_the_loss_is_flat():
    """Saturated neurons and margins of thousands give finite numbers."""
    particles, inputs, labels, _ = problem(4, 6, 2)
    with np.errstate(over="ignore"):
        output, gradient = mfld.risk_gradient(particles * 1e6, inputs, labels, 5000.0)
    assert np.isfinite(output).all() and np.isfinite(gradient).all()


# ------------------------------------------------------------------------------------------------ the step
def test_step_is_the_formula():
    particles, inputs, labels, noise = problem(6, 9, 3)
    gradient = mfld.risk_gradient(particles, inputs, labels, 7.0)[1]
    expected = particles - 0.3 * gradient - 2 * 0.3 * 0.2 * 0.4 * particles + np.sqrt(2 * 0.2 * 0.3) * noise
    moved = particles.copy()
    output = mfld.langevin_step(moved, inputs, labels, noise, output_scale=7.0, **STEP)
    np.testing.assert_allclose(moved, expected, rtol=1e-12, atol=1e-13)  # rounding
    np.testing.assert_allclose(output, mfld.network(particles, inputs, 7.0), rtol=1e-12, atol=1e-13)  # before the step


def test_without_noise_it_is_gradient_descent():
    """At temperature 0 neither noise nor weight decay act, and the loss falls at every small step."""
    particles, inputs, labels, noise = problem(30, 20, 3)
    gradient = mfld.risk_gradient(particles, inputs, labels)[1]
    moved = particles.copy()
    mfld.langevin_step(moved, inputs, labels, noise, step_size=0.01, temperature=0, weight_decay=9.0)
    np.testing.assert_allclose(moved, particles - 0.01 * gradient, rtol=1e-13)  # 0.01 is folded into the slopes
    losses = []
    for _ in range(100):
        output = mfld.langevin_step(moved, inputs, labels, noise, step_size=0.01, temperature=0, weight_decay=9.0)
        losses.append(mfld.logistic_loss(labels * output))
    assert np.all(np.diff(losses) < 0)


def test_steps_in_a_row_have_the_autocorrelation_of_the_linear_recursion():
    """Without a loss x(t + 1) = a x(t) + noise with a = 1 - 2 eta lambda lambda_1, so neighbours correlate by a."""
    rng = np.random.default_rng(0)
    q = 0.3 * 0.2 * 0.4
    exact = 1 / (2 * 0.4 * (1 - q))
    x = np.sqrt(exact) * rng.standard_normal((20_000, 5))
    before = x.copy()
    mfld.langevin_step(x, np.ones((1, 4)), np.ones(1), rng.standard_normal(x.shape), output_scale=0.0, **STEP)
    found = np.mean(x * before) / exact
    # the product of two unit normal numbers of correlation a has variance 1 + a^2: five standard deviations
    assert found == pytest.approx(1 - 2 * q, abs=5 * np.sqrt(2 / x.size))


def test_permuting_particles_only_permutes_the_result():
    particles, inputs, labels, noise = problem(40, 25, 4)
    order = np.random.default_rng(9).permutation(40)
    straight, permuted = particles.copy(), particles[order]
    for _ in range(3):
        one = mfld.langevin_step(straight, inputs, labels, noise.copy(), **STEP)
        two = mfld.langevin_step(permuted, inputs, labels, noise[order], **STEP)
        np.testing.assert_allclose(one, two, rtol=1e-11, atol=1e-12)  # the mean over particles, in another order
    np.testing.assert_allclose(permuted, straight[order], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_working_in_blocks_changes_nothing(count):
    particles, inputs, labels, noise = problem(7, 9, 3)
    whole, blocked, threaded = (particles.copy() for _ in range(3))
    edges = [7 * k // count for k in range(count + 1)]
    blocks = [slice(*pair) for pair in pairwise(edges)]
    mfld.langevin_step(whole, inputs, labels, noise.copy(), **STEP)
    mfld.langevin_step(blocked, inputs, labels, lambda block: noise[block].copy(), blocks=blocks, **STEP)
    with ThreadPoolExecutor(3) as pool:
        mfld.langevin_step(threaded, inputs, labels, noise.copy(), blocks=blocks, parallel=pool.map, **STEP)
    np.testing.assert_allclose(blocked, whole, rtol=1e-12, atol=1e-13)  # the mean over particles, in another order
    np.testing.assert_array_equal(threaded, blocked)


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
    expected = mfld.network(classifier.particles_.astype(float), mfld.with_bias(X), 15.0)
    np.testing.assert_allclose(f, expected, rtol=1e-12, atol=1e-12)  # the same float64 sums


def test_decisions_in_blocks():
    """Ten million numbers at a time: with three million particles three rows, so four rows are two blocks."""
    classifier = small(n_steps=0).fit(*xor(10, 1 + 1))
    classifier.particles_ = np.random.default_rng(0).standard_normal((3_000_000, 4)).astype(np.float32)
    X = np.random.default_rng(1).standard_normal((4, 2))
    blocked = classifier.decision_function(X)
    particles = classifier.particles_.astype(float)
    one_by_one = [mfld.network(particles, mfld.with_bias(row[None]), 15.0)[0] for row in X]
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


def test_threads_do_not_change_a_large_run(monkeypatch):
    """Threads share the blocks of a large run; the blocks do not depend on their number, so the bits do not either."""
    X, y = data.sparse_parity(300, 5, 2, 0)
    runs = []
    for threads in (1, 2, 3, 3):
        monkeypatch.setattr(mfld, "cpu_count", lambda threads=threads: threads)
        runs.append(small(n_particles=2000, n_steps=5).fit(X, y).particles_)
    for run in runs[1:]:
        np.testing.assert_array_equal(run, runs[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hidden_values_computed_twice_are_the_same(monkeypatch, dtype):
    """Clouds too large for memory forget the hidden values between the two halves of a step: the same bits."""
    X, y = data.sparse_parity(300, 5, 2, 0)
    kept = small(n_particles=2000, n_steps=5, dtype=dtype).fit(X, y).particles_
    monkeypatch.setattr(mfld, "KEPT", 0)
    np.testing.assert_array_equal(small(n_particles=2000, n_steps=5, dtype=dtype).fit(X, y).particles_, kept)


@pytest.mark.parametrize("shape", [(1, 1), (7, 10**9), (100, 100), (1000, 200), (2001, 499), (10**6, 2000)])
def test_blocks_hold_every_particle_once(shape):
    blocks = mfld._blocks(*shape)
    assert blocks[0].start == 0 and blocks[-1].stop == shape[0]
    assert all(a.stop == b.start for a, b in pairwise(blocks)) and all(b.start < b.stop for b in blocks)
    longest = max(b.stop - b.start for b in blocks)
    assert longest == 1 or longest * shape[1] <= 2**19 + shape[1]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_team_keeps_order_and_passes_errors_on(size):
    with mfld._Team(size) as team:
        for _ in range(50):
            assert team.map(lambda k: k * k, range(7)) == [k * k for k in range(7)]
        for bad in range(4):
            with pytest.raises(ZeroDivisionError):
                team.map(lambda k, bad=bad: 1 / (k - bad), range(4))
        assert team.map(str, [1, 2]) == ["1", "2"]  # and goes on


@pytest.mark.parametrize("n", [20, 300])
def test_noise_drawn_ahead_is_the_same_noise(monkeypatch, n):
    """A thread of its own draws noise for one block (n = 20), each one its own for two: the bits of one thread."""
    X, y = data.sparse_parity(n, 5, 2, 0)
    drawn = []
    fill = mfld._Ahead.fill

    def watched(self):
        drawn.append(get_ident())
        fill(self)

    monkeypatch.setattr(mfld._Ahead, "fill", watched)
    runs, threads = [], []
    for count in (1, 2, 2, 3):
        monkeypatch.setattr(mfld, "cpu_count", lambda count=count: count)
        drawn.clear()
        runs.append(small(n_particles=2000, n_steps=40).fit(X, y).particles_)
        threads.append(set(drawn))
    assert [len(some) > 1 for some in threads] == [False, True, True, True]
    for run in runs[1:]:
        np.testing.assert_array_equal(run, runs[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_particles, n", [(50, 20), (2001, 20), (2001, 300)])
def test_noise_of_several_steps_is_that_of_each(monkeypatch, n_particles, n, dtype):
    """Drawn step by step or in pieces, of few numbers or of many, in one block or two: the same bits."""
    X, y = data.sparse_parity(n, 5, 2, 0)
    pieces = []
    for size in (1, 50_000, mfld.PIECE):
        monkeypatch.setattr(mfld, "PIECE", size)
        pieces.append(small(n_particles=n_particles, n_steps=25, dtype=dtype).fit(X, y).particles_)
    for some in pieces[1:]:
        np.testing.assert_array_equal(some, pieces[0])


def test_an_error_while_idle_comes_up_where_the_noise_is_needed(monkeypatch):
    X, y = data.sparse_parity(300, 5, 2, 0)

    def broken(*_):
        raise OSError("no more random numbers")

    monkeypatch.setattr(mfld, "cpu_count", lambda: 2)
    monkeypatch.setattr(mfld, "_normals", broken)
    with pytest.raises(OSError, match="no more random numbers"):
        small(n_particles=2000, n_steps=5, dtype="float32").fit(X, y)


def test_noise_of_a_run_is_independent_between_particles_and_steps():
    """Threads draw from generators of their own, which must not repeat each other."""
    X, y = data.sparse_parity(300, 5, 2, 0)
    settings = {"n_particles": 1000, "n_steps": 2, "step_size": 1e-6, "temperature": 1e5, "weight_decay": 0.0}
    snapshots = small(**settings, record_every=1, dtype="float64").fit(X, y).history_.snapshots["particles"]
    noise = np.diff(snapshots, axis=0).reshape(2, 4, 250, 7) / np.sqrt(2 * 0.1)  # two steps, four blocks
    parts = noise.reshape(8, -1)
    correlation = np.corrcoef(parts)
    assert np.abs(correlation - np.eye(8)).max() < 6 / np.sqrt(parts.shape[1])  # six standard deviations, 28 pairs
    assert noise.var() == pytest.approx(1, abs=5 * np.sqrt(2 / noise.size))  # five


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 3), (5, 7), (1000, 22)])
def test_normal_numbers_fill_every_place(shape):
    out = np.full(shape, np.nan, "f4")
    mfld._normals(np.random.default_rng(0), out, np.empty((2, -(-out.size // 2)), "f4"))
    assert np.isfinite(out).all() and len(np.unique(out)) > 0.99 * out.size  # few of 22,000 floats coincide


def test_normal_numbers_are_normal():
    """A million of them: law, moments to five standard errors, tails, and no dependence between the two of a pair."""
    out = np.empty((1000, 1000), "f4")
    mfld._normals(np.random.default_rng(1), out, np.empty((2, 500_000), "f4"))
    z = out.ravel().astype(float)
    assert kstest(z, "norm").pvalue > 1e-3
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - mean) < 5 * np.sqrt(variance / z.size), power
    beyond = (np.abs(z) > 4).sum()
    assert abs(beyond - 2 * norm.sf(4) * z.size) < 5 * np.sqrt(2 * norm.sf(4) * z.size) and np.abs(z).max() < 5.8
    first, second = z.reshape(2, -1)
    for f in (lambda x: x, np.abs, np.square):
        assert abs(np.corrcoef(f(first), f(second))[0, 1]) < 5 / np.sqrt(first.size)


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
        expected = mfld.logistic_loss(y * mfld.network(particles.astype(float), mfld.with_bias(X)))
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
@pytest.mark.parametrize("n_particles, n", [(20, 60), (1000, 300)], ids=["plain", "threads"])
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
        small().fit(X * 1e300, y)


@pytest.mark.parametrize("n_particles, n, d", [(1, 2, 1), (1, 50, 3), (3, 2, 1), (2, 7, 30)])
def test_smallest_shapes(n_particles, n, d):
    X = np.random.default_rng(0).standard_normal((n, d))
    classifier = small(n_particles=n_particles).fit(X, np.arange(n) % 2)
    assert classifier.particles_.shape == (n_particles, d + 2) and classifier.predict(X[:1]).shape == (1,)


# ------------------------------------------------------------------------------------------------ devices
class FakeArray(np.ndarray):
    """A NumPy array under another name, as strict as CuPy: it has `get`, and mixes with its own kind only."""

    def get(self):
        return np.array(self.view(np.ndarray))

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **settings):
        for a in (*inputs, *out):
            if isinstance(a, np.ndarray) and not isinstance(a, FakeArray):
                raise TypeError(f"{ufunc.__name__}: an array on the host met one on the device")
        inputs, plain = ([a.view(np.ndarray) if isinstance(a, FakeArray) else a for a in b] for b in (inputs, out))
        result = getattr(ufunc, method)(*inputs, **settings, **({"out": tuple(plain)} if out else {}))
        return out[0] if out else np.asarray(result).view(FakeArray)


class FakeGenerator:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def standard_normal(self, size, dtype):
        return self.rng.standard_normal(size, dtype=dtype).view(FakeArray)


def fake_cupy(**changes):
    """A module that is NumPy under another name."""
    module = types.ModuleType("cupy")
    module.__getattr__ = lambda name: getattr(np, name)
    for make in (np.asarray, np.empty, np.empty_like, np.zeros, np.full, np.arange):
        setattr(module, make.__name__, lambda *a, make=make, **settings: np.array(make(*a, **settings)).view(FakeArray))
    module.cuda = types.SimpleNamespace(is_available=lambda: True)
    module.random = types.SimpleNamespace(default_rng=FakeGenerator)
    for name, value in changes.items():
        setattr(module, name, value)
    return module


class DriverError(Exception):
    """CuPy's errors share no narrower base class."""


def broken(*_args, **_settings):
    raise DriverError("driver too old")


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(cuda=types.SimpleNamespace(is_available=lambda: False)))


def quietly(call):
    """The result of `call`, which must not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call()


def test_cpu_asks_no_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(arange=broken))
    assert quietly(lambda: mfld.array_module("cpu")) is np


def test_machine_without_gpu(no_gpu):
    assert quietly(mfld.array_module) is np
    with pytest.raises(RuntimeError, match="device='gpu' cannot be used here: CuPy finds no GPU; take device='cpu'"):
        mfld.array_module("gpu")
    with pytest.raises(RuntimeError, match="CuPy finds no GPU"):
        small(device="gpu").fit(*xor())


def test_machine_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # makes the import fail
    assert quietly(mfld.array_module) is np
    with pytest.raises(RuntimeError, match="device='gpu' cannot be used here: .*cupy"):
        mfld.array_module("gpu")


def test_gpu_that_does_not_work(monkeypatch):
    """`auto` says once why it falls back; a GPU that was asked for by name is an error."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(arange=broken))
    with pytest.warns(RuntimeWarning, match="cannot be used .driver too old.; NumPy does the work") as caught:
        assert mfld.array_module("auto") is np
    assert len(caught) == 1
    with pytest.raises(RuntimeError, match="device='gpu' cannot be used here: driver too old"):
        mfld.array_module("gpu")
    with pytest.warns(RuntimeWarning, match="driver too old") as caught:
        classifier = small().fit(*xor())
    assert len(caught) == 1
    np.testing.assert_array_equal(classifier.particles_, small(device="cpu").fit(*xor()).particles_)


@pytest.mark.parametrize("device", ["auto", "gpu"])
def test_working_gpu_is_taken(monkeypatch, device):
    module = fake_cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    assert quietly(lambda: mfld.array_module(device)) is module


def test_step_on_the_device_is_the_step_on_the_host():
    xp = fake_cupy()
    particles, inputs, labels, noise = problem(6, 9, 3)
    device = [xp.asarray(a) for a in (particles, inputs, labels, noise)]
    with pytest.raises(TypeError, match="host met one on the device"):
        device[0] + particles  # the pretence is strict
    output = mfld.langevin_step(*device, xp=xp, **STEP)
    expected = mfld.langevin_step(particles, inputs, labels, noise, **STEP)
    assert isinstance(output, FakeArray)
    np.testing.assert_array_equal(mfld.to_numpy(device[0]), particles)
    np.testing.assert_array_equal(mfld.to_numpy(output), expected)


def test_fit_on_the_device(monkeypatch):
    """The same lines run on the device; noise comes from its own generator, so a run without noise is the same run."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    X, y = xor()
    host, device = (small(temperature=0, record_every=4, device=d).fit(X, y) for d in ("cpu", "gpu"))
    np.testing.assert_allclose(device.particles_, host.particles_, rtol=1e-5, atol=1e-6)  # float32
    for array in (device.particles_, device.history_.snapshots["particles"], *device.history_.series.values()):
        assert type(array) is np.ndarray  # what is handed on lies on the host
    np.testing.assert_allclose(device.history_.series["loss"], host.history_.series["loss"], rtol=1e-5)
    np.testing.assert_allclose(device.decision_function(X), host.decision_function(X), rtol=1e-3, atol=1e-4)
    noisy = [small(device="gpu", random_state=s).fit(X, y).particles_ for s in (0, 0, 1)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2])
    assert not np.array_equal(noisy[0], device.particles_)


def test_gpu_run_interrupted(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())

    def schedule(step):
        if step == 3:
            raise KeyboardInterrupt
        return 0.1

    classifier = small(device="gpu", temperature=schedule).fit(*xor())
    assert type(classifier.particles_) is np.ndarray and classifier.history_.finished is False


# ------------------------------------------------------------------------------------------------ bad input
WHOLE, POSITIVE, NOT_NEGATIVE = "must be a whole number >= 1", "must be a number > 0", "must be a number >= 0"
STEPS = "must be None, a whole number >= 1, or steps from 0 to 12"
SOURCE_OF_RANDOMNESS = "must be a numpy.random.Generator, a whole number >= 0 or None"
BAD_PARAMETERS = [
    *[("n_particles", v, WHOLE) for v in (0, -5, 2.0, True, "10", None, float("nan"))],
    *[("n_steps", v, "must be a whole number >= 0") for v in (-1, 1.5, False, None)],
    *[("step_size", v, POSITIVE) for v in (0, -0.2, float("inf"), float("nan"), "0.2", None, True, 1j)],
    *[("temperature", v, NOT_NEGATIVE) for v in (-0.1, float("nan"), float("inf"), "0.1", True, [0.1])],
    *[("weight_decay", v, NOT_NEGATIVE) for v in (-1e-9, None, "x")],
    *[("output_scale", v, POSITIVE) for v in (0, -15, None)],
    *[("dtype", v, "must be one of float32, float64") for v in ("float16", np.float32, None, 32)],
    *[("device", v, "must be one of auto, cpu, gpu") for v in ("cuda", None, 0)],
    *[("record_every", v, STEPS) for v in (0, -1, 2.5, [13], [], True)],
    *[("random_state", v, SOURCE_OF_RANDOMNESS) for v in ("0", -1, 1.5, True)],
]


@pytest.mark.parametrize("name, value, allowed", BAD_PARAMETERS, ids=[f"{n}={v!r}" for n, v, _ in BAD_PARAMETERS])
def test_bad_parameter_before_any_work(name, value, allowed, monkeypatch):
    """The message names the argument, what is allowed and what came; no step is made and nothing is fitted."""
    monkeypatch.setattr(mfld, "langevin_step", broken)
    classifier = small(**{name: value})
    with pytest.raises(ValueError) as caught:
        classifier.fit(*xor())
    assert str(caught.value) == f"{name} {allowed}; got {value!r}"
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
def test_bad_data_leaves_a_fitted_classifier_as_it_was(bad_X, bad_y, message):
    classifier = small().fit(X, Y)
    particles, classes, history = classifier.particles_.copy(), classifier.classes_.copy(), classifier.history_
    with pytest.raises(ValueError, match=message):
        classifier.fit(bad_X, bad_y)
    np.testing.assert_array_equal(classifier.particles_, particles)
    np.testing.assert_array_equal(classifier.classes_, classes)
    assert classifier.history_ is history
    assert set(classifier.predict(X)) <= {-1.0, 1.0}


def test_words_as_data():
    with pytest.raises(ValueError, match=r"could not convert string to float: 'red'"):
        small().fit([["red"], ["blue"]], [0, 1])


# ------------------------------------------------------------------------------------------------ scikit-learn's checks
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
