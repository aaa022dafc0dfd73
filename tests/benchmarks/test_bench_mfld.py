"""Timings of the mean-field Langevin step: against JAX, against its own parts, in memory, many at once."""

import math
import statistics
import time
import tracemalloc

import numpy as np
import pytest

from feature_learning import MeanFieldLangevinClassifier, array_module, data, mfld

pytest.importorskip("pytest_benchmark")

SIZES = [(500, 20, 2000), (200, 20, 1000), (2000, 50, 2000), (100, 10, 100)]  # n, d, N
ROUNDS = 7


def steps_for(n, particles):
    """So many that what a fit does before its first step does not count."""
    return min(10_000, max(150, 400_000_000 // (n * particles)))


def fit(n, d, particles, n_steps, **settings):
    """Seconds a step of one fit."""
    model = MeanFieldLangevinClassifier(particles, n_steps, random_state=0, device="cpu", **settings)
    X, y = data.sparse_parity(n, d, 2, 0)
    start = time.perf_counter()
    model.fit(X, y)
    return (time.perf_counter() - start) / n_steps


def best_of(function, repeat=30):
    """Shortest time of one call, after a warm-up."""
    times = []
    for _ in range(repeat + 3):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times[3:])


def in_turn(benchmark, ours, other, unit, goal, **notes):
    """Run `ours` and `other`, which return seconds, in turn; record the ratio of their medians."""
    theirs, mine = [], []
    ours(), other()
    benchmark.pedantic(lambda: mine.append(ours()), setup=lambda: theirs.append(other()), rounds=ROUNDS)
    a, b = statistics.median(mine), statistics.median(theirs)
    benchmark.extra_info |= {
        "measured": a / b,
        "goal": goal,
        "unit": unit,
        "ours": f"{a * 1e3:.3f} ms",
        "theirs": f"{b * 1e3:.3f} ms",
        **notes,
    }


@pytest.mark.parametrize("n, d, particles", SIZES)
def test_step_against_jax(benchmark, n, d, particles):
    """The same step as a jitted scan in JAX, in one process, in turn."""
    jax = pytest.importorskip("jax", reason="the peer, JAX, is not installed")
    jnp = jax.numpy
    X, y = data.sparse_parity(n, d, 2, 0)
    inputs, labels = (jnp.asarray(a, dtype=jnp.float32) for a in (mfld.with_bias(X), y))
    eta, heat, decay, scale, steps = 0.2, 0.1 / n, 0.1, 15.0, 50

    def step(x, key):
        hidden, top = jnp.tanh(x[:, :-1] @ inputs.T), jnp.tanh(x[:, -1])
        f = scale / 3 * (hidden.mean(0) + 2 * top.mean())
        slope = -labels * jax.nn.sigmoid(-labels * f) / n
        g = jnp.concatenate([((1 - hidden**2) * slope) @ inputs, (2 * (1 - top**2) * slope.sum())[:, None]], 1)
        drift = scale / 3 * g + 2 * decay * heat * x
        return x - eta * drift + math.sqrt(2 * heat * eta) * jax.random.normal(key, x.shape), None

    run = jax.jit(lambda x, key: jax.lax.scan(step, x, jax.random.split(key, steps))[0])
    start = jnp.asarray(np.random.default_rng(0).standard_normal((particles, d + 2)), dtype=jnp.float32)
    repeat = max(1, steps_for(n, particles) // steps)

    def peer():
        begin, x = time.perf_counter(), start
        for k in range(repeat):
            x = run(x, jax.random.key(k))
        x.block_until_ready()
        return (time.perf_counter() - begin) / steps / repeat

    in_turn(benchmark, lambda: fit(n, d, particles, steps_for(n, particles)), peer, "x JAX", 1.0, jax=jax.__version__)


@pytest.mark.parametrize("n, d, particles", SIZES)
def test_step_against_its_parts(benchmark, n, d, particles):
    """Two products, one tanh and the normal numbers, each measured alone with all the threads it takes by itself."""
    rng = np.random.default_rng(0)
    x, z = (rng.standard_normal(shape, dtype="float32") for shape in ((particles, d + 1), (n, d + 1)))
    hidden, out, noise = np.empty((particles, n), "f4"), np.empty_like(x), np.empty((particles, d + 2), "f4")

    def parts():
        return sum(
            best_of(f)
            for f in (
                lambda: np.matmul(x, z.T, out=hidden),
                lambda: np.tanh(hidden, out=hidden),
                lambda: np.matmul(hidden, z, out=out),
                lambda: rng.standard_normal(out=noise, dtype="float32"),
            )
        )

    in_turn(benchmark, lambda: fit(n, d, particles, steps_for(n, particles)), parts, "x the parts", 1.25)


def test_memory_of_a_million_particles(benchmark):
    """N = 1,000,000, n = 2,000, d = 20: the peak of one step above the particles themselves."""
    rng = np.random.default_rng(0)
    particles = rng.standard_normal((1_000_000, 22), dtype="float32")
    X, y = data.sparse_parity(2000, 20, 2, 0)
    inputs, labels = mfld.with_bias(X).astype("f4"), y.astype("f4")
    blocks = mfld._blocks(len(particles), len(labels))

    def step():
        noise = rng.standard_normal(particles.shape, dtype="float32")
        with mfld._threads(len(blocks)) as team:
            mfld.langevin_step(
                particles,
                inputs,
                labels,
                noise,
                step_size=0.2,
                temperature=1e-4,
                weight_decay=0.1,
                blocks=blocks,
                parallel=team.map,
            )

    def traced():
        tracemalloc.start()
        step()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak = benchmark.pedantic(traced, rounds=1)
    benchmark.extra_info |= {"measured": peak / 2**30, "goal": 1, "unit": "GiB"}


def test_time_of_a_particle_without_kept_values(benchmark, monkeypatch):
    """Hidden values computed twice against kept, n = 2,000, d = 20: time a particle, in turn."""
    kept = mfld.KEPT

    def twice():
        monkeypatch.setattr(mfld, "KEPT", 0)
        seconds = fit(2000, 20, 20_000, 6) / 20_000
        monkeypatch.setattr(mfld, "KEPT", kept)
        return seconds

    in_turn(benchmark, twice, lambda: fit(2000, 20, 20_000, 6) / 20_000, "x kept", 1.1)


@pytest.mark.parametrize("n, d, particles, count", [(500, 20, 1000, 8), (100, 10, 100, 64)])
def test_many_runs_against_one_after_another(benchmark, n, d, particles, count):
    X, y = data.sparse_parity(n, d, 2, 0)
    settings = {"n_particles": particles, "n_steps": steps_for(n, particles) // count + 50, "device": "cpu"}

    def models():
        return [MeanFieldLangevinClassifier(random_state=k, **settings) for k in range(count)]

    def timed(function):
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    in_turn(
        benchmark,
        lambda: timed(lambda: mfld.fit_many(models(), X, y)),
        lambda: timed(lambda: [m.fit(X, y) for m in models()]),
        "x one by one",
        1.0,
    )


def test_one_run_on_a_gpu(benchmark):
    """10,000 steps of the paper's size on the card."""
    if array_module() is np:
        pytest.skip("there is no GPU here")
    X, y = data.sparse_parity(500, 20, 2, 0)
    model = MeanFieldLangevinClassifier(random_state=0)
    benchmark.pedantic(lambda: model.fit(X, y), rounds=3, warmup_rounds=1)
    benchmark.extra_info |= {"measured": benchmark.stats.stats.median, "goal": 1, "unit": "s"}
