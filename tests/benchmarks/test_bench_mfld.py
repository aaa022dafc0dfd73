"""Timings of the mean-field Langevin step: against JAX, in memory, hidden values computed twice, many at once."""

import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_learning import MeanFieldLangevinClassifier, data, mfld
from feature_learning._engine import Engine

pytest.importorskip("pytest_benchmark")

SIZES = [(500, 20, 2000), (200, 20, 1000), (2000, 50, 2000), (100, 10, 100)]  # n, d, N
ROUNDS = 7


@pytest.fixture
def steps_for(short):
    """How many steps a fit makes: so many that what it does before the first one does not count."""
    return lambda n, particles: 12 if short else min(10_000, max(150, 400_000_000 // (n * particles)))


def fit(n, d, particles, n_steps, **settings):
    """Seconds a step of one fit."""
    model = MeanFieldLangevinClassifier(particles, n_steps, random_state=0, device="cpu", **settings)
    X, y = data.sparse_parity(n, d, 2, 0)
    start = time.perf_counter()
    model.fit(X, y)
    return (time.perf_counter() - start) / n_steps


def seconds(function):
    """Of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


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
def test_step_against_jax(benchmark, steps_for, n, d, particles):
    """The same step as a jitted scan in JAX, in one process, in turn."""
    jax = pytest.importorskip("jax", reason="the peer, JAX, is not installed")
    jnp = jax.numpy
    X, y = data.sparse_parity(n, d, 2, 0)
    inputs, labels = (jnp.asarray(a, dtype=jnp.float32) for a in (data.with_bias(X), y))
    eta, heat, decay, scale = 0.2, 0.1 / n, 0.1, 15.0
    n_steps = steps_for(n, particles)
    steps = min(50, n_steps)  # of a scan

    def step(x, key):
        hidden, top = jnp.tanh(x[:, :-1] @ inputs.T), jnp.tanh(x[:, -1])
        f = scale / 3 * (hidden.mean(0) + 2 * top.mean())
        slope = -labels * jax.nn.sigmoid(-labels * f) / n
        g = jnp.concatenate([((1 - hidden**2) * slope) @ inputs, (2 * (1 - top**2) * slope.sum())[:, None]], 1)
        drift = scale / 3 * g + 2 * decay * heat * x
        return x - eta * drift + math.sqrt(2 * heat * eta) * jax.random.normal(key, x.shape), None

    run = jax.jit(lambda x, key: jax.lax.scan(step, x, jax.random.split(key, steps))[0])
    start = jnp.asarray(np.random.default_rng(0).standard_normal((particles, d + 2)), dtype=jnp.float32)
    repeat = n_steps // steps

    def peer():
        begin, x = time.perf_counter(), start
        for k in range(repeat):
            x = run(x, jax.random.key(k))
        x.block_until_ready()
        return (time.perf_counter() - begin) / steps / repeat

    in_turn(benchmark, lambda: fit(n, d, particles, n_steps), peer, "x JAX", 1.0, jax=jax.__version__)


ONE_STEP = """
import sys
from pathlib import Path
import numpy as np
import torch
from feature_learning import data
from feature_learning._engine import Engine

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))

def step(particles):
    settings = {"step_size": 0.2, "weight_decay": 0.1, "output_scale": 15.0, "dtype": "float32"}
    Engine(particles[None], inputs[None], labels[None], [0], device=torch.device("cpu"), **settings).step([1e-4])

X, labels = data.sparse_parity(2000, 20, 2, 0)
inputs = data.with_bias(X)
particles = np.random.default_rng(0).standard_normal((int(sys.argv[1]), 22), dtype="f4")
step(particles[:10])  # loads what a library loads when it is first called
before = memory("VmRSS")
step(particles)
print(memory("VmHWM") - before)
"""


def test_memory_of_a_million_particles(benchmark, short):
    """N = 1,000,000, n = 2,000, d = 20: the peak of one step above the particles themselves, which the caller holds."""
    if not Path("/proc/self/status").exists():
        pytest.skip("a process's peak of memory is read from /proc")
    command = [sys.executable, "-c", ONE_STEP, "20000" if short else "1000000"]
    run = lambda: subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: E731
    peak = int(benchmark.pedantic(run, rounds=1).stdout)
    benchmark.extra_info |= {"measured": peak / 2**30, "goal": 1, "unit": "GiB"}


def test_time_of_a_particle_without_kept_values(benchmark, short):
    """Hidden values computed twice against kept, n = 2,000, d = 20: time of a step, in turn."""
    X, y = data.sparse_parity(2000, 20, 2, 0)
    particles = np.random.default_rng(0).standard_normal((1000 if short else 20_000, 22))
    arrays = particles[None], data.with_bias(X)[None], y[None], [0]
    settings = {"step_size": 0.2, "weight_decay": 0.1, "output_scale": 15.0, "dtype": "float32"}
    engines = [Engine(*arrays, device=torch.device("cpu"), kept=kept, **settings) for kept in (0, 2**40)]

    def steps(engine):
        return seconds(lambda: [engine.step([1e-4]) for _ in range(6)]) / 6

    in_turn(benchmark, lambda: steps(engines[0]), lambda: steps(engines[1]), "x kept", 1.1)


@pytest.mark.parametrize("n, d, particles, count", [(500, 20, 1000, 8), (100, 10, 100, 64)])
def test_many_runs_against_one_after_another(benchmark, steps_for, n, d, particles, count):
    X, y = data.sparse_parity(n, d, 2, 0)
    n_steps = max(12, steps_for(n, particles) // count)
    settings = {"n_particles": particles, "n_steps": n_steps, "device": "cpu"}

    def models():
        return [MeanFieldLangevinClassifier(random_state=k, **settings) for k in range(count)]

    in_turn(
        benchmark,
        lambda: seconds(lambda: mfld.fit_many(models(), X, y)),
        lambda: seconds(lambda: [m.fit(X, y) for m in models()]),
        "x one by one",
        1.0,
    )


def test_one_run_on_a_gpu(benchmark, short):
    """10,000 steps of the paper's size on the card."""
    if not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        pytest.skip("PyTorch finds no GPU")
    X, y = data.sparse_parity(500, 20, 2, 0)
    model = MeanFieldLangevinClassifier(n_steps=12 if short else 10_000, device="gpu", random_state=0)
    benchmark.pedantic(lambda: model.fit(X, y), rounds=3, warmup_rounds=1)
    benchmark.extra_info |= {"measured": benchmark.stats.stats.median, "goal": 1, "unit": "s"}
