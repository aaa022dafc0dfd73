"""The fast step: the numbers of the plain one, the noise it draws, the same bits in every thread, nothing left set."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from problems import problem, small, xor
from scipy.stats import kstest, norm
from sklearn.base import clone
from threadpoolctl import threadpool_info, threadpool_limits

from feature_learning import _engine, mfld
from feature_learning._engine import Engine

SETTINGS = {"step_size": 0.3, "weight_decay": 0.4, "output_scale": 4.0}
CPU = torch.device("cpu")
# Every device there is, and the lines of a GPU on the CPU; Apple's has no double precision.
DEVICES = [("cpu", np, "float64", 1e-11), ("cpu", torch, "float64", 1e-11)]
DEVICES += [("cuda", torch, "float64", 1e-11)] if torch.cuda.is_available() else []
DEVICES += [("mps", torch, "float32", 1e-4)] if torch.backends.mps.is_available() else []
EACH_DEVICE = pytest.mark.parametrize("device, library, dtype, tolerance", DEVICES)


def engine_of(problems, *, dtype="float64", device=CPU, seeds=None, **settings):
    """An engine on particles, inputs and labels of several runs."""
    particles, inputs, labels = (np.stack([p[i] for p in problems]) for i in range(3))
    seeds = range(len(problems)) if seeds is None else seeds
    return Engine(particles, inputs, labels, seeds, dtype=dtype, device=torch.device(device), **SETTINGS | settings)


# ------------------------------------------------------------------------------------------------ beside the plain step
def side_by_side(temperatures, device="cpu", library=np, dtype="float64", tolerance=1e-11, change=None, **settings):
    """Four steps of the engine and of the plain functions, with the same noise: outputs, losses and particles agree."""
    problems = [problem(23, 18, 3, seed) for seed in range(len(temperatures))]
    engine = engine_of(problems, dtype=dtype, device=device, library=library, **settings)
    plain, close = [p[0] for p in problems], {"rtol": tolerance, "atol": tolerance}
    if change:
        change(engine)
    for k in range(4):
        outputs = [mfld.network(x, p[1], 4.0) for x, p in zip(plain, problems, strict=True)]
        output = engine.output()
        np.testing.assert_allclose(torch.as_tensor(output).cpu(), outputs, **close)
        losses = [mfld.logistic_loss(p[2] * f) for p, f in zip(problems, outputs, strict=True)]
        np.testing.assert_allclose(engine.measure(output)[0], losses, **close)
        noise = [np.roll(p[3], k, axis=0) for p in problems]
        xi = engine._array(np.stack(noise))
        engine.step(temperatures, output if k % 2 else None, noise=xi)  # the output is given, or found by the step
        for r, (_, inputs, labels, _) in enumerate(problems):
            plain[r] = mfld.langevin_step(plain[r], inputs, labels, noise[r], temperature=temperatures[r], **SETTINGS)
        np.testing.assert_allclose(engine.cloud(), plain, **close)


@EACH_DEVICE
@pytest.mark.parametrize("kept", [_engine.KEPT, 0], ids=["kept", "twice"])
@pytest.mark.parametrize("at_once", [2**22, 200, 1], ids=["one block", "blocks", "a particle a block"])
@pytest.mark.parametrize("temperatures", [[0.2], [0.2] * 3, [0.0, 0.5, 2.0], [0, 0]], ids=str)
def test_the_engine_is_the_plain_step(monkeypatch, device, library, dtype, tolerance, kept, at_once, temperatures):
    """For one run and several, of one temperature or of several, hidden values kept or computed twice."""
    monkeypatch.setattr(_engine, "AT_ONCE", at_once)
    side_by_side(temperatures, device, library, dtype, tolerance, kept=kept)


def every(engine, name, function):
    """Wrap a method of this engine."""
    method = getattr(engine, name)
    setattr(engine, name, lambda *a, **settings: function(method, *a, **settings))


def decay_without_temperature(engine):
    def wrong(step, heat, output, noise):
        engine.weight_decay = 0.4 / np.array(heat)[:, None, None]
        step(heat, output, noise=noise)

    every(engine, "step", wrong)


def hidden_values_of_another_block(engine):
    """The second half of a step takes what the first one left, though it is of the last block."""
    blocks, calls, last = len(engine.blocks), [0], []

    def wrong(total, block):
        calls[0] += 1
        last[:] = [total(block)] if (calls[0] - 1) % (2 * blocks) < blocks else last
        return last[0]

    every(engine, "_sum", wrong)


def output_of_the_first_step(engine):
    old = engine.output()
    every(engine, "step", lambda step, heat, output, noise: step(heat, old, noise=noise))


def scaled(name, factor, part=...):
    """A mistake in one of the engine's arrays or numbers."""

    def mistake(engine):
        value = getattr(engine, name)
        if isinstance(value, np.ndarray):
            value[part] *= factor
        else:
            setattr(engine, name, value * factor)

    return mistake


def swapped(engine):
    engine.across[:, :3] = engine.across[:, 2::-1].copy()


def label_twice(engine):
    engine.down[:, : engine.n] *= -engine.minus_y[..., None]


MISTAKES = {
    "sign": scaled("down", -1),
    "label twice": label_twice,
    "label never": scaled("minus_y", -1, (slice(None), 0)),
    "data not doubled": scaled("across", 0.5),
    "pull without 1 / n": scaled("down", 18, (slice(None), slice(None, 18))),
    "no offset in the output": scaled("across", 0, (slice(None), -1)),
    "no pull of the offset": scaled("pull_of_offset", 0),
    "half the pull of the offset": scaled("pull_of_offset", 0.5),
    "no pull of the bias": scaled("down", 0, (slice(None), slice(None, 18), 3)),
    "coordinates in another order": swapped,
    "decay without its 2": scaled("weight_decay", 0.5),
    "decay without temperature": decay_without_temperature,
    "noise without its 2": lambda e: every(e, "step", lambda step, heat, f, noise: step(heat, f, noise=noise / 2**0.5)),
    "noise of other particles": lambda e: every(e, "step", lambda step, t, f, noise: step(t, f, noise=noise[:, ::-1])),
    "noise of another run": lambda e: every(e, "step", lambda step, t, f, noise: step(t, f, noise=noise[::-1])),
    "one temperature for all": lambda e: every(e, "step", lambda step, t, f, noise: step(t[:1] * 3, f, noise=noise)),
    "hidden values of another block": hidden_values_of_another_block,
    "output of the first step": output_of_the_first_step,
    "output without its constant": lambda e: every(e, "output", lambda output: output() + 4.0),
    "scale of the output": scaled("output_scale", 2),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_engine_is_seen_beside_the_plain_step(monkeypatch, mistake):
    monkeypatch.setattr(_engine, "AT_ONCE", 400)  # 7 of 23 particles at once
    side_by_side([0.1, 0.5, 2.0], kept=0)
    with pytest.raises(AssertionError):
        side_by_side([0.1, 0.5, 2.0], kept=0, change=mistake)


def test_a_forgotten_square_is_seen():
    def forget(engine):
        def wrong(total, block):
            found = total(block)
            engine.hidden **= 0.5
            return found

        every(engine, "_sum", wrong)

    with pytest.raises(AssertionError):
        side_by_side([0.2], change=forget)


@EACH_DEVICE
def test_measured_are_the_loss_and_the_largest_move_of_an_offset(device, library, dtype, tolerance):
    """An offset moves most where tanh is steep, at c = 0, if there is neither noise nor decay."""
    problems = [problem(9, 30, 3, seed) for seed in range(3)]
    engine = engine_of(problems, dtype=dtype, device=device, library=library)
    loss, move = engine.measure(engine.output())
    assert loss.shape == move.shape == (3,) and loss.dtype == move.dtype == np.float64
    for k, (x, inputs, labels, _) in enumerate(problems):
        output = mfld.network(x, inputs, 4.0)
        assert loss[k] == pytest.approx(mfld.logistic_loss(labels * output), rel=tolerance)
        pull = np.mean(labels / (1 + np.exp(labels * output)))
        assert move[k] == pytest.approx(2 / 3 * 4.0 * 0.3 * abs(pull), rel=tolerance)
        x[0, -1] = 0
        flat = {"temperature": 0, **SETTINGS}
        moved = mfld.langevin_step(x, inputs, labels, np.zeros_like(x), **flat)[:, -1] - x[:, -1]
        slack = 0.3 * 8 / 3 * abs(np.mean(labels / (1 + np.exp(labels * mfld.network(x, inputs, 4.0)))) - pull)
        assert np.abs(moved).max() == pytest.approx(move[k], abs=slack + 1e-12)


def test_margins_of_any_size_are_measured():
    engine = engine_of([problem(2, 3, 1)])
    huge = np.array([[-1e4, -1e4, 1e4]])  # of labels -1, 1, 1
    assert engine.measure(huge)[0] == pytest.approx([1e4 / 3])
    assert np.isnan(engine.measure(huge * np.nan)).all()


# ------------------------------------------------------------------------------------------------ the noise
def drawn(seeds, count, d, steps, dtype="float32"):
    """The normal numbers of some steps, of shape (runs, steps, count, d + 2)."""
    engine = engine_of([problem(count, 1, d)] * len(seeds), dtype=dtype, seeds=seeds)
    return np.stack([next(engine.noise).copy() for _ in range(steps)], axis=1)


def test_a_step_takes_the_next_numbers():
    """From zero, with factors that make a step the noise itself."""
    engine = engine_of([problem(7, 1, 3)] * 2, step_size=1.0, output_scale=1e-30)
    for noise in drawn(range(2), 7, 3, 3, "float64").swapaxes(0, 1):
        engine.particles[:] = 0
        engine.step([0.5, 0.5])
        np.testing.assert_allclose(engine.cloud(), noise, rtol=1e-14, atol=1e-29)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "count, d, steps, piece",
    [
        (1, 1, 50_000, 2**16),  # clouds of three numbers, more than two pieces
        (1, 1, 20_000, 1),  # a piece for each
        (5, 3, 8000, 100),  # four steps a piece
        (1000, 20, 9, 2**16),  # three steps before the next piece
        (20_000, 8, 2, 2**16),  # more numbers than a piece
    ],
)
def test_noise_is_normal(monkeypatch, count, d, steps, piece, dtype):
    """Law, moments to five standard errors, tails; and no number comes twice."""
    monkeypatch.setattr(_engine, "PIECE", piece)
    noise = drawn([3], count, d, steps, dtype)
    z = noise.ravel().astype(float)
    assert kstest(z, "norm").pvalue > 1e-3
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - mean) < 5 * np.sqrt(variance / z.size), power
    beyond = (np.abs(z) > 3).sum()
    assert abs(beyond - 2 * norm.sf(3) * z.size) < 5 * np.sqrt(2 * norm.sf(3) * z.size) and np.abs(z).max() < 6
    assert len(np.unique(z)) > 0.98 * z.size  # few of some hundred thousand floats coincide
    for lag in {1, d + 2, count * (d + 2), piece // (count * (d + 2)) * count * (d + 2)} - {0}:
        if lag < z.size:  # neighbours, particles, steps, pieces
            assert abs(np.mean(z[lag:] * z[:-lag])) < 5 / np.sqrt(z.size - lag), lag


def test_noise_is_independent_between_runs_steps_and_particles():
    noise = drawn(range(4), 1000, 8, 4).reshape(4, 4, 2, -1)  # runs, steps, halves of the cloud
    parts = noise.reshape(32, -1)
    correlation = np.corrcoef(parts) - np.eye(32)
    assert np.abs(correlation).max() < 6 / np.sqrt(parts.shape[1])  # six standard deviations, 496 pairs


@pytest.mark.parametrize("piece", [1, 100, 2**16])
@pytest.mark.parametrize("count", [1, 7, 300])
def test_a_run_draws_the_same_numbers_alone_and_among_others(monkeypatch, count, piece):
    monkeypatch.setattr(_engine, "PIECE", piece)
    together = drawn([5, 6, 7], count, 4, 5)
    for k, seed in enumerate((5, 6, 7)):
        np.testing.assert_array_equal(drawn([seed], count, 4, 5)[0], together[k])
    assert len({noise.tobytes() for noise in together.reshape(15, -1)}) == 15


def test_noise_of_a_fit_is_independent_between_particles_and_steps():
    """As the classifier draws it, for few and many data points."""
    settings = {"n_steps": 2, "step_size": 1e-6, "temperature": 1e5, "weight_decay": 0.0, "record_every": 1}
    for n in (20, 300):
        X, y = xor(n, 5)
        model = small(n_particles=1000, dtype="float64", **settings).fit(X, y)
        parts = np.diff(model.history_.snapshots["particles"], axis=0).reshape(8, -1) / np.sqrt(2 * 0.1)
        assert np.abs(np.corrcoef(parts) - np.eye(8)).max() < 6 / np.sqrt(parts.shape[1])
        assert parts.var() == pytest.approx(1, abs=5 * np.sqrt(2 / parts.size))


# ------------------------------------------------------------------------------------------------ threads
SIZES = {"small": (20, 60), "large": (2000, 500)}  # particles and data points; the linear algebra wakes threads or not


@pytest.fixture
def two_threads():
    """Two threads for PyTorch and for the linear algebra, whatever the environment says; gives what they are now."""

    def now():
        return [(lib["internal_api"], lib["num_threads"]) for lib in threadpool_info()], torch.get_num_threads()

    before = torch.get_num_threads()
    with threadpool_limits(2):
        torch.set_num_threads(2)
        yield now
        torch.set_num_threads(before)


@pytest.mark.parametrize("n_particles, n", SIZES.values(), ids=SIZES)
def test_one_thread_of_pytorch_or_two_give_the_same_bits(two_threads, n_particles, n):
    two = small(n_particles=n_particles).fit(*xor(n)).particles_
    torch.set_num_threads(1)
    np.testing.assert_array_equal(small(n_particles=n_particles).fit(*xor(n)).particles_, two)


@pytest.mark.parametrize("n_particles, n", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_bits_in_any_thread(two_threads, dtype, n_particles, n):
    """In workers of a pool that stays open, one after another and at once, after a fit in the main thread."""
    data, model = xor(n), small(n_particles=n_particles, dtype=dtype)
    expected = clone(model).fit(*data).particles_
    with ThreadPoolExecutor(3) as pool:
        alone = pool.submit(clone(model).fit, *data).result().particles_
        at_once = [job.result().particles_ for job in [pool.submit(clone(model).fit, *data) for _ in range(6)]]
        again = clone(model).fit(*data).particles_
        for found in (alone, *at_once, again):
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(clone(model).fit(*data).particles_, expected)


@pytest.mark.parametrize("n_particles, n", SIZES.values(), ids=SIZES)
def test_fits_leave_the_threads_of_every_library_as_they_were(two_threads, n_particles, n):
    """Alone, many at once, one that overlaps with others, one that diverges, one that is interrupted."""

    def interrupted(step):
        if step == 7:
            raise KeyboardInterrupt
        return 0.1

    X, y = xor(n)
    model, before = small(n_particles=n_particles), two_threads()
    changes = [{"n_steps": 40}, {"step_size": 1e3}, {"temperature": interrupted}, {"n_steps": 20}, {"n_steps": 0}]
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(clone(model).set_params(**c).fit, X, y) for c in changes]
        jobs.append(
            pool.submit(mfld.fit_many, [small(n_particles=n_particles, random_state=k) for k in range(3)], X, y)
        )
        errors = [job.exception() for job in jobs]
        assert [type(e) for e in errors] == [type(None), FloatingPointError] + [type(None)] * 4
        assert two_threads() == before and jobs[2].result().history_.finished is False
    for c in changes:
        try:
            clone(model).set_params(**c).fit(X, y)
        except FloatingPointError:
            pass
        assert two_threads() == before
