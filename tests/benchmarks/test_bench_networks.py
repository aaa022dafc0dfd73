"""Timings of the networks' part: an ensemble against a loop, and the grid of the phase diagram."""

import time
from itertools import product

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed

from feature_learning import data, flow, networks
from feature_learning.ensemble import train_ensemble
from feature_learning.training import train

pytest.importorskip("pytest_benchmark")

COPIES = 100


def models(copies):
    """The network of chapter 11, drawn with different seeds."""
    return [networks.initialise_gaussian(networks.fully_connected([5, 50, 1]), 4, seed) for seed in range(copies)]


@pytest.fixture
def one_thread():
    """One thread, as in chapter 11: the second one costs a single network, and a hundred, more than it brings."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_ensemble_against_a_loop(benchmark, one_thread, short):
    """100 networks 5-50-1, n = 80, tanh, float64, Adam, 500 steps; loop and ensemble in turn, medians of seven."""
    x, y = data.sine_sum(80, 0)
    steps = 20 if short else 500
    settings = {"n_steps": steps, "record_every": [0, steps]}
    loop = []

    def setup():
        # a tenth of the loop: its time grows with the number of networks
        some = models(COPIES // 10)
        start = time.perf_counter()
        for model in some:
            train(model, x, y, **settings)
        loop.append(10 * (time.perf_counter() - start))
        return (models(COPIES), x, y), settings

    benchmark.pedantic(train_ensemble, setup=setup, rounds=7)
    benchmark.extra_info |= {
        "goal": 10,
        "at_least": True,
        "unit": "x faster than a loop",
        "measured": float(np.median(loop) / benchmark.stats.stats.median),
    }


def test_phase_diagram(benchmark, short):
    """13 x 9 values of gamma and gamma', widths 64, 256 and 1,024, two seeds: 702 runs to 1 % of the loss."""
    x, y = data.relu_teacher(6)
    gammas, primes = np.linspace(0.5, 2, 13)[:, None], np.linspace(-1, 1, 9)

    def grid():
        jobs = (
            delayed(flow.gradient_flow)(x, y, width=m, gamma=gammas, gamma_prime=primes, seed=seed)
            for m, seed in product((64,) if short else (1024, 256, 64), (0, 1))
        )
        return Parallel(n_jobs=2)(jobs)

    runs = benchmark.pedantic(grid, rounds=1, warmup_rounds=0)
    lost = sum(int((~run["converged"]).sum()) for run in runs)
    benchmark.extra_info |= {
        "goal": 60,
        "measured": benchmark.stats.stats.median,
        "unit": "s",
        "not converged": f"{lost} of {sum(run['converged'].size for run in runs)}",
    }
