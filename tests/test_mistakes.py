"""The mistakes of an earlier mean-field Langevin notebook, each put back into a copy and caught by a named check.

A check is a function of what it checks. The package's own code, the plain step and the engine, passes every check; a
plain copy of the step passes them too; the copy with one mistake put back fails the check named for it, and only that
one.
"""

import math
import sys
from itertools import product

import numpy as np
import pytest
import torch
from problems import problem
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from feature_learning import data, mfld
from feature_learning._engine import Engine


# ------------------------------------------------------------------------------------------------ the checks
def output_by_hand(particles, inputs, output_scale):
    """The average over particles of R [tanh(<w, z> + b) + 2 tanh(c)] / 3, one neuron and one data point at a time."""
    return np.array(
        [
            sum(output_scale * (math.tanh(p[:-1] @ z) + 2 * math.tanh(p[-1])) / 3 for p in particles) / len(particles)
            for z in inputs
        ]
    )


def check_output_formula(network):
    """The scale R multiplies the whole bracket."""
    particles, inputs, *_ = problem(5, 7, 3)
    for scale in (15.0, 2.0):
        np.testing.assert_allclose(  # rounding of sums of a few numbers below 15
            network(particles, inputs, scale), output_by_hand(particles, inputs, scale), rtol=1e-12, atol=1e-12
        )


def check_gradient(step):
    """At temperature 0, N times the gradient of the loss, by central differences, is what a step moves against."""
    particles, inputs, labels, _ = problem(6, 11, 3, 1)
    scale, eta, h = 4.0, 0.5, 1e-5

    def loss(x):
        return np.log1p(np.exp(-labels * output_by_hand(x, inputs, scale))).mean()

    expected = np.empty_like(particles)
    for i in np.ndindex(particles.shape):
        e = np.zeros_like(particles)
        e[i] = h
        expected[i] = len(particles) * (loss(particles + e) - loss(particles - e)) / (2 * h)
    settings = {"step_size": eta, "temperature": 0, "weight_decay": 0, "output_scale": scale}
    moved = step(particles, inputs, labels, np.ones_like(particles), **settings)
    # central differences: h^2 times third derivatives of order 10, and N * 1e-16 / h of rounding: both about 1e-9
    np.testing.assert_allclose((particles - moved) / eta, expected, atol=1e-7)


def check_stationary_law(step, *, temperature=0.6, weight_decay=2.5, decay_of_a_step=0.3, n_particles=10_000):
    r"""Without a loss (R = 0) the variance is that of the exact stationary law of the step, step-size bias included.

    The step is then x <- a x + sqrt(2 lambda eta) xi with a = 1 - 2 q and q = eta lambda lambda_1. A stationary
    variance v satisfies v = a^2 v + 2 lambda eta, so

        v = 2 lambda eta / (1 - a^2) = 2 lambda eta / (4 q - 4 q^2) = 1 / (2 lambda_1 (1 - q)).

    From zero, after k steps the variance is v (1 - a^(2k)); k is chosen so that a^(2k) < 1e-12. All coordinates of all
    particles are independent, so the n numbers of the last step are n independent samples, and the estimated variance
    has the relative standard deviation sqrt(2 / n): five of them are allowed, a quarter or less of the bias q.
    """
    q = decay_of_a_step
    eta = q / (temperature * weight_decay)
    steps = math.ceil(math.log(1e-12) / (2 * math.log(1 - 2 * q)))
    rng, d = np.random.default_rng(2), 3
    x = np.zeros((n_particles, d + 2))
    inputs, labels = data.with_bias(np.ones((1, d))), np.ones(1)
    settings = {"step_size": eta, "temperature": temperature, "weight_decay": weight_decay, "output_scale": 0.0}
    for _ in range(steps):
        x = step(x, inputs, labels, rng.standard_normal(x.shape), **settings)
    exact, without_bias = 1 / (2 * weight_decay * (1 - q)), 1 / (2 * weight_decay)
    tolerance = 5 * math.sqrt(2 / x.size) * exact
    assert exact - without_bias > 4 * tolerance  # the test can tell the two apart
    assert abs(np.mean(x**2) - exact) < tolerance
    assert abs(np.mean(x)) < 5 * math.sqrt(exact / x.size)


def python_calls(step, n_particles, n):
    """How many Python and C functions a step calls."""
    arguments, count = problem(n_particles, n, 3), [0]

    def profile(_frame, event, _argument):
        count[0] += event in ("call", "c_call")

    old = sys.getprofile()
    sys.setprofile(profile)
    try:
        step(*arguments, step_size=0.1, temperature=0.1, weight_decay=0.1, output_scale=15.0)
    finally:
        sys.setprofile(old)
    return count[0]


def check_no_python_loop(step):
    """The number of calls does not depend on the number of particles, nor on that of the data points."""
    python_calls(step, 4, 5)  # whatever is set up once has been set up
    calls = {sizes: python_calls(step, *sizes) for sizes in product((4, 64), (5, 70))}
    assert len(set(calls.values())) == 1, calls


def check_one_pca(project):
    """A cloud that moves rigidly by (0.3, 1, 0) between two rounds is seen to move by that much in the picture."""
    cloud = np.random.default_rng(0).standard_normal((500, 3)) * [10, 5, 0.01]
    shift = np.array([0.3, 1.0, 0.0])
    first, second = project([cloud, cloud + shift])
    assert first.shape == second.shape == (500, 2)
    moved = np.linalg.norm(second - first, axis=1)
    # the plane of the first two components is that of the first two axes up to angles of order 0.01 / 5
    np.testing.assert_allclose(moved, np.linalg.norm(shift), rtol=1e-3)


def check_arrays_come_to_the_host(to_numpy):
    """What matplotlib is given is a plain NumPy array, and a copy.

    A tensor that records gradients stands for one on a device: PyTorch refuses to hand out either as an array.
    """
    for values in ([1.0, 2.0], [[1.0], [3.0]]):
        tensor = torch.tensor(values, requires_grad=True)
        try:
            host = to_numpy(tensor)
        except (TypeError, RuntimeError) as why:
            raise AssertionError(f"an array stayed on the device: {why}") from why
        assert type(host) is np.ndarray and not np.shares_memory(host, tensor.detach().numpy())
        np.testing.assert_array_equal(host, values)


# ------------------------------------------------------------------------------------------------ the copies
def copy_of_the_step(mistake=None):
    """The step, written once more and plainly, with one mistake put back."""

    def step(particles, inputs, labels, noise, *, step_size, temperature, weight_decay, output_scale):
        hidden, top = np.tanh(particles[:, :-1] @ inputs.T), np.tanh(particles[:, -1])
        output = output_scale / 3 * (hidden.mean(axis=0) + 2 * top.mean())
        slope = -labels / (1 + np.exp(labels * output)) / len(labels)
        if mistake == "label twice":
            slope = slope * labels
        decay = weight_decay if mistake == "weight decay without temperature" else weight_decay * temperature
        gradient = np.empty_like(particles)
        if mistake == "Python loop":
            for i in range(len(particles)):
                gradient[i, :-1] = np.sum((slope * (1 - hidden[i] ** 2))[:, None] * inputs, axis=0)
        else:
            gradient[:, :-1] = (slope * (1 - hidden**2)) @ inputs
        gradient[:, -1] = 2 * (1 - top**2) * slope.sum()
        drift = output_scale / 3 * gradient + 2 * decay * particles
        return particles - step_size * drift + math.sqrt(2 * temperature * step_size) * noise

    return step


def step_of_the_engine(particles, inputs, labels, noise, *, temperature, **settings):
    """A step of the engine for one run, called as the plain one."""
    engine = Engine([particles], [inputs], [labels], [0], dtype="float64", device=torch.device("cpu"), **settings)
    engine.step([temperature], noise=noise[None])
    return engine.cloud()[0]


def output_of_the_engine(particles, inputs, output_scale):
    """The output of an engine for one run, called as `network`."""
    settings = {"step_size": 1.0, "weight_decay": 0.0, "dtype": "float64", "device": torch.device("cpu")}
    engine = Engine([particles], [inputs], [np.ones(len(inputs))], [0], output_scale=output_scale, **settings)
    return engine.output()[0]


def cloud_of_the_engine(tensor):
    """What the engine hands out when its particles are this tensor."""
    particles, inputs, labels, _ = problem(2, 3, 1)
    settings = {"step_size": 1.0, "weight_decay": 0.0, "output_scale": 1.0, "dtype": "float64"}
    engine = Engine([particles], [inputs], [labels], [0], device=torch.device("cpu"), **settings)
    engine.particles = tensor
    return engine.cloud()


def bracket_in_the_wrong_place(particles, inputs, output_scale):
    """R tanh(<w, z> + b) + 2 tanh(c), over 3: R multiplies the first term only."""
    hidden = np.tanh(particles[:, :-1] @ inputs.T)
    return (output_scale * hidden.mean(axis=0) + 2 * np.tanh(particles[:, -1]).mean()) / 3


def one_pca(rounds):
    """One PCA, fitted on all rounds together, gives every round the same coordinates."""
    pca = PCA(2).fit(np.concatenate(rounds))
    return [pca.transform(cloud) for cloud in rounds]


def pca_refitted(rounds):
    return [PCA(2).fit_transform(cloud) for cloud in rounds]


def scaler_refitted(rounds):
    return one_pca([StandardScaler().fit_transform(cloud) for cloud in rounds])


STEPS = {"package": mfld.langevin_step, "engine": step_of_the_engine, "copy": copy_of_the_step()}
STEP_CHECKS = {f.__name__: f for f in (check_gradient, check_stationary_law, check_no_python_loop)}


# ------------------------------------------------------------------------------------------------ the tests
@pytest.mark.parametrize("check", STEP_CHECKS.values(), ids=STEP_CHECKS)
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_the_step_passes_every_check(step, check):
    check(step)


def test_the_copy_is_the_step():
    settings = {"step_size": 0.3, "temperature": 0.2, "weight_decay": 0.4, "output_scale": 15.0}
    a, b = (step(*problem(8, 9, 4), **settings) for step in (mfld.langevin_step, copy_of_the_step()))
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)  # the same sums in another order


@pytest.mark.parametrize(
    "mistake, caught_by",
    [
        ("label twice", "check_gradient"),
        ("weight decay without temperature", "check_stationary_law"),
        ("Python loop", "check_no_python_loop"),
    ],
)
def test_a_mistake_in_the_step_fails_its_check_and_no_other(mistake, caught_by):
    wrong = copy_of_the_step(mistake)
    for name, check in STEP_CHECKS.items():
        if name == caught_by:
            with pytest.raises(AssertionError):
                check(wrong)
        else:
            check(wrong)


@pytest.mark.parametrize("temperature", [0.02, 0.2, 2.0, 20.0])
def test_the_stationary_law_does_not_depend_on_the_temperature(temperature):
    """What annealing rests on: lambda scales the noise and the decay alike."""
    for step in (mfld.langevin_step, step_of_the_engine):
        check_stationary_law(step, temperature=temperature)


def test_the_stationary_law_of_a_smaller_step():
    check_stationary_law(mfld.langevin_step, weight_decay=0.1, decay_of_a_step=0.1, n_particles=40_000)


def test_output_formula():
    check_output_formula(mfld.network)
    check_output_formula(output_of_the_engine)
    with pytest.raises(AssertionError):
        check_output_formula(bracket_in_the_wrong_place)


def test_pca_is_fitted_once():
    check_one_pca(one_pca)
    for wrong in (pca_refitted, scaler_refitted):
        with pytest.raises(AssertionError):
            check_one_pca(wrong)
    cloud = np.random.default_rng(0).standard_normal((500, 3)) * [10, 5, 0.01]
    first, second = pca_refitted([cloud, cloud + [0.3, 1.0, 0.0]])
    np.testing.assert_allclose(first, second, atol=1e-9)  # refitted, the move has vanished from the picture


def test_gpu_arrays_come_to_the_host():
    check_arrays_come_to_the_host(cloud_of_the_engine)
    with pytest.raises(AssertionError):
        check_arrays_come_to_the_host(np.asarray)
    with pytest.raises(AssertionError):
        check_arrays_come_to_the_host(lambda array: array)
