"""The gradient flow of the phase diagram: its equations, its step, its end, the theory's exponents, bad input."""

import warnings

import numpy as np
import pytest
import torch

from feature_learning import data, flow

X, Y = data.relu_teacher(6)
INPUTS = np.column_stack([X, np.ones(6)])


def state(width=10, kappa=0.3, ratio=0.7, seed=0):
    """Weights that are not antisymmetric, as arrays of one run."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((1, width)), rng.standard_normal((1, 2, width)), np.array([kappa]), np.array([ratio])


def outputs(a, w, kappa):
    return kappa * np.maximum(INPUTS @ w, 0) @ a


def loss(a, w, kappa):
    return ((outputs(a, w, kappa) - Y) ** 2).mean() / 2


# ------------------------------------------------------------------------------------------------ the equations
def test_the_flow_is_gradient_descent_in_the_networks_own_variables():
    """f = (1/alpha) sum a s(<w, x>), differentiated by autograd; then each layer is divided by its scale."""
    alpha, beta1, beta2 = 4.0, 0.6, 1.5
    a, w, *_ = state()
    kappa, ratio = np.array([beta1 * beta2 / alpha]), np.array([beta1 / beta2])
    errors, _, rate_a, rate_w = flow.velocity(a, w, INPUTS, Y, kappa, ratio)
    own_a = torch.tensor(beta1 * a[0], requires_grad=True)
    own_w = torch.tensor(beta2 * w[0], requires_grad=True)
    e = torch.relu(torch.tensor(INPUTS) @ own_w) @ own_a / alpha - torch.tensor(Y)
    ((e**2).mean() / 2).backward()
    np.testing.assert_allclose(errors[0], e.detach(), rtol=1e-12)
    np.testing.assert_allclose(rate_a[0], -alpha / beta1 * own_a.grad, rtol=1e-11)  # time in units of alpha
    np.testing.assert_allclose(rate_w[0], -alpha / beta2 * own_w.grad, rtol=1e-11)


def test_finite_differences():
    a, w, kappa, ratio = state()
    _, _, rate_a, rate_w = flow.velocity(a, w, INPUTS, Y, kappa, ratio)
    rng = np.random.default_rng(1)
    da, dw = rng.standard_normal(a[0].shape), rng.standard_normal(w[0].shape)
    eps = 1e-6
    slope = (loss(a[0] + eps * da, w[0] + eps * dw, 0.3) - loss(a[0] - eps * da, w[0] - eps * dw, 0.3)) / (2 * eps)
    predicted = -0.3 * ((0.7 * rate_a[0] * da).sum() + (rate_w[0] * dw).sum() / 0.7)
    assert slope == pytest.approx(predicted, rel=1e-7)  # error of central differences, eps^2, and rounding, 1e-16/eps


def test_the_kernel_moves_the_outputs():
    a, w, kappa, ratio = state()
    errors, _, rate_a, rate_w = flow.velocity(a, w, INPUTS, Y, kappa, ratio)
    kernel = flow.tangent_kernel(a, w, INPUTS, kappa, ratio)[0]
    eps = 1e-6
    moved = [outputs(a[0] + s * eps * rate_a[0], w[0] + s * eps * rate_w[0], 0.3) for s in (1, -1)]
    np.testing.assert_allclose((moved[0] - moved[1]) / (2 * eps), -kernel @ errors[0] / 6, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(kernel, kernel.T, rtol=1e-12)
    assert np.linalg.eigvalsh(kernel)[0] > -1e-12


def test_antisymmetric_start():
    a, w = flow.start_weights(12, 2, 5)
    np.testing.assert_array_equal(outputs(a, w, 1.0), 0)
    big, big_w = flow.start_weights(20_000, 2, 5)
    assert abs(big.std() - 1) < 0.03 and abs(big_w.std() - 1) < 0.03  # 3 and more standard errors at 10,000 draws


# ------------------------------------------------------------------------------------------------ the step
@pytest.mark.parametrize("kappa, ratio", [(0.01, 1.0), (0.3, 0.2), (1.0, 5.0), (1e-6, 1.0)])
def test_the_step_is_below_the_inverse_of_the_hessian(kappa, ratio):
    """lambda_max(K)/n + max |v| bounds the Hessian in the flow's metric, and is at most twice too large."""
    a, w, k, r = state(kappa=kappa, ratio=ratio)
    scale = torch.tensor(np.concatenate([np.full(10, r[0] ** -0.5), np.full(20, r[0] ** 0.5)]))

    def own_loss(p):  # in variables whose plain gradient flow is the flow
        p = scale * p
        e = kappa * torch.relu(torch.tensor(INPUTS) @ p[10:].view(2, 10)) @ p[:10] - torch.tensor(Y)
        return (e**2).mean() / 2 / kappa

    point = torch.tensor(np.concatenate([a[0], w[0].ravel()])) / scale
    norm = np.abs(np.linalg.eigvalsh(torch.autograd.functional.hessian(own_loss, point).numpy())).max()
    pulls = flow.velocity(a, w, INPUTS, Y, k, r)[1][0]
    top = np.linalg.eigvalsh(flow.tangent_kernel(a, w, INPUTS, k, r))[0, -1]
    bound = top / 6 + np.sqrt((pulls**2).sum(axis=0).max())
    assert norm <= bound * (1 + 1e-9) and bound <= 2 * norm + 1e-12


GRID = {"gamma": np.array([[0.5], [1.0], [1.5]]), "gamma_prime": np.array([-0.5, 0.0, 0.5])}


def test_half_the_step_follows_the_same_flow():
    """The relative change moves by 5 % at most, in the median by 1 %: it depends on the flow, not on the step."""
    whole, half = (flow.gradient_flow(X, Y, width=64, step_fraction=c, **GRID) for c in (0.5, 0.25))
    change = np.abs(half["relative_change"] / whole["relative_change"] - 1)
    assert whole["converged"].all() and half["converged"].all()
    assert change.max() < 0.05 and np.median(change) < 0.01
    assert (half["steps"] > 1.5 * whole["steps"]).all()


@pytest.mark.parametrize("gamma, gamma_prime", [(0.5, 0.0), (1.5, 0.25)])
def test_an_independent_integrator_gives_the_same_flow(gamma, gamma_prime):
    """Midpoint steps (second order, a fixed step) over the same time, instead of the package's steps."""
    run = flow.gradient_flow(X, Y, width=16, gamma=gamma, gamma_prime=gamma_prime, seed=3, step_fraction=0.25)
    start_a, start_w = flow.start_weights(16, 2, 3)
    a, w = start_a[None], start_w[None]
    kappa, ratio = np.array([16.0**-gamma]), np.array([16.0**-gamma_prime])
    count = 8 * int(run["steps"])
    h = float(run["time"]) / count
    for _ in range(count):
        _, _, va, vw = flow.velocity(a, w, INPUTS, Y, kappa, ratio)
        _, _, va, vw = flow.velocity(a + h / 2 * va, w + h / 2 * vw, INPUTS, Y, kappa, ratio)
        a, w = a + h * va, w + h * vw
    change = np.linalg.norm(w - start_w) / np.linalg.norm(start_w)
    assert run["converged"] and run["relative_change"] == pytest.approx(change, rel=0.03)  # the step's error, order 1


@pytest.mark.parametrize("gamma", [0.5, 1.5])
def test_the_kernel_is_as_new_as_promised(monkeypatch, gamma):
    """At every step it is less than 50 steps old, and the weights' size has changed by 5 % at most; but it is kept."""
    sizes, drifts, ages = [], [], []
    velocity, kernel = flow.velocity, flow.tangent_kernel

    def size(a, w, ratio):
        return float(ratio[0] * (a * a).sum() + (w * w).sum() / ratio[0])

    def watched_velocity(a, w, inputs, y, kappa, ratio):
        sizes.append(size(a, w, ratio))
        return velocity(a, w, inputs, y, kappa, ratio)

    def watched_kernel(*arguments):
        taken.append(len(sizes) - 1)
        return kernel(*arguments)

    taken = []
    monkeypatch.setattr(flow, "velocity", watched_velocity)
    monkeypatch.setattr(flow, "tangent_kernel", watched_kernel)
    run = flow.gradient_flow(X, Y, width=64, gamma=gamma, gamma_prime=0.0)
    for step in range(int(run["steps"])):
        last = max(k for k in taken if k <= step)
        ages.append(step - last)
        drifts.append(abs(sizes[step] / sizes[last] - 1))
    assert run["converged"] and max(ages) < 50 and max(drifts) <= 0.05
    assert len(taken) < len(ages) / 3


# ------------------------------------------------------------------------------------------------ many runs
def test_batched_equals_single():
    seeds = np.array([0, 4])
    settings = {"width": 64, "max_steps": 3000}
    many = flow.gradient_flow(
        X, Y, gamma=GRID["gamma"][:, :, None], gamma_prime=GRID["gamma_prime"][:, None], seed=seeds, **settings
    )
    assert many["relative_change"].shape == (3, 3, 2) and many["weights"].shape == (3, 3, 2, 64, 2)
    assert many["outputs"].shape == (3, 3, 2, 64) and many["weights"].dtype == np.float64
    for index in [(0, 0, 0), (1, 2, 1), (2, 1, 0), (2, 0, 1)]:
        one = flow.gradient_flow(
            X,
            Y,
            gamma=GRID["gamma"][index[0], 0],
            gamma_prime=GRID["gamma_prime"][index[1]],
            seed=seeds[index[2]],
            **settings,
        )
        assert one["steps"] == many["steps"][index] and one["converged"] == many["converged"][index]
        for key in ("relative_change", "relative_loss", "time", "start", "weights", "outputs"):
            np.testing.assert_allclose(many[key][index], one[key], rtol=1e-9, atol=1e-9, err_msg=key)


def test_what_is_returned():
    run = flow.gradient_flow(X, Y, width=64, gamma=0.75, gamma_prime=0.0, tolerance=0.05)
    assert run["converged"] and run["relative_loss"] <= 0.05 and run["time"] > 0
    fit = outputs(run["outputs"], run["weights"].T, 64**-0.75)
    assert ((fit - Y) ** 2).mean() / (Y**2).mean() == pytest.approx(run["relative_loss"], rel=1e-9)
    change = np.linalg.norm(run["weights"] - run["start"]) / np.linalg.norm(run["start"])
    assert run["relative_change"] == pytest.approx(change, rel=1e-12)


def test_a_run_that_is_given_up_is_reported():
    run = flow.gradient_flow(X, Y, width=64, gamma=[0.5, 1.0], gamma_prime=0.0, max_steps=20)
    assert run["steps"].tolist() == [20, 20] and not run["converged"].any() and (run["relative_loss"] > 0.01).all()
    none = flow.gradient_flow(X, Y, width=64, gamma=1.0, gamma_prime=0.0, max_steps=0)
    assert none["relative_change"] == 0 and none["relative_loss"] == 1 and none["steps"] == 0


def test_a_network_that_sees_no_data_stays_where_it_is():
    """Two neurons that point away from the only data point: no gradient, no step, no division by zero."""
    seed = next(s for s in range(20) if (np.ones(2) @ flow.start_weights(2, 2, s)[1] <= 0).all())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = flow.gradient_flow([[1.0]], [1.0], width=2, gamma=0.5, gamma_prime=0.0, seed=seed, max_steps=30)
    assert not run["converged"] and run["relative_change"] == 0


# ------------------------------------------------------------------------------------------------ the theory
def exponent(gamma, gamma_prime):
    """The power of m in the relative change, as the module derives it."""
    if gamma <= 1:
        return gamma - 1 - 2 * max(gamma_prime, 0)
    if gamma_prime >= gamma - 1:
        return 2 * (gamma - 1 - gamma_prime)
    return gamma - 1 if gamma_prime <= 1 - gamma else (gamma - 1 - gamma_prime) / 2


def test_exponents_of_the_phase_diagram():
    """One seed and widths up to 1,024: within 0.25 of the infinite-width exponent, and on the right side of zero."""
    points = [(0.5, -0.5), (0.5, 0.0), (0.75, 0.5), (1.25, 0.5), (1.25, 0.0), (1.5, 0.0), (1.5, -0.25), (1.25, -0.5)]
    gammas, primes = np.array(points).T
    runs = [flow.gradient_flow(X, Y, width=m, gamma=gammas, gamma_prime=primes) for m in (64, 256, 1024)]
    assert all(r["converged"].all() for r in runs)
    slopes = np.polyfit(np.log([64, 256, 1024]), np.log([r["relative_change"] for r in runs]), 1)[0]
    predicted = np.array([exponent(*p) for p in points])
    assert np.abs(slopes - predicted).max() < 0.25 and (np.sign(slopes) == np.sign(predicted)).all()


# ------------------------------------------------------------------------------------------------ bad input
BAD = [
    ({"width": 7}, "width must be even, because the start is antisymmetric; got 7"),
    ({"width": 0}, "width must be a whole number >= 2; got 0"),
    ({"gamma": np.nan}, "gamma must hold finite numbers only; 1 of 1"),
    ({"gamma": []}, r"gamma must not be empty; got shape \(0,\)"),
    ({"gamma_prime": np.inf}, "gamma_prime must hold finite numbers only"),
    ({"gamma": [1, 2], "gamma_prime": [1, 2, 3]}, r"fit together by broadcasting; got shapes \(\(2,\), \(3,\), \(\)\)"),
    ({"seed": -1}, "seed must hold whole numbers >= 0; got -1"),
    ({"seed": 0.5}, "seed must hold whole numbers >= 0; got 0.5"),
    ({"seed": None}, "seed must hold whole numbers >= 0; got None"),
    ({"tolerance": 0}, "tolerance must be a number > 0 and <= 1; got 0"),
    ({"step_fraction": 1.5}, "step_fraction must be a number > 0 and <= 1; got 1.5"),
    ({"max_steps": -1}, "max_steps must be a whole number >= 0; got -1"),
    ({"y": Y[:5]}, r"x must have shape \(n, dim\) and y n entries, not all 0; got \(6, 1\) and \(5,\)"),
    ({"y": 0 * Y}, "y n entries, not all 0"),
    ({"x": X[:, 0]}, r"x must have shape \(n, dim\) .* got \(6,\) and \(6,\)"),
    ({"x": X * np.nan}, "x must hold finite numbers only; 6 of 6 are NaN or infinite"),
    ({"gamma_prime": 2000}, "gamma_prime must lie between -332.2 and 332.2 at width 8, so .*; got one of size 2000"),
    ({"gamma_prime": [0, -2000.0]}, "gamma_prime must lie between .* got one of size 2000"),
    ({"gamma": -2000}, "gamma must lie between -332.2 and 332.2 at width 8, so that .*; got one of size 2000"),
    ({"x": np.ma.masked_less(X, -0.9)}, "x must have no masked entries; got 1"),
    ({"y": 1j * Y}, "y must hold real numbers; got dtype complex128"),
    ({"gamma": "1"}, "gamma must hold real numbers; got dtype <U1"),
    (
        {"gamma_prime": np.array(["2020-01-01"], "datetime64[D]")},
        "gamma_prime must hold real numbers; got dtype datetime",
    ),
    ({"seed": np.ma.masked_equal([1, 2], 2)}, "seed must hold whole numbers >= 0; got masked_array"),
]


@pytest.mark.parametrize("change, message", BAD, ids=[m for _, m in BAD])
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        flow.gradient_flow(**({"x": X, "y": Y, "width": 8, "gamma": 1.0, "gamma_prime": 0.0} | change))


def test_overflow_names_the_runs():
    """Runs go in groups of 8192 / width; the numbers count on from group to group."""
    gammas = [1.0] * 5
    gammas[4] = -90.0
    with warnings.catch_warnings(), pytest.raises(FloatingPointError, match=r"in runs \[4\] \(counted along S\)"):
        warnings.simplefilter("error")
        flow.gradient_flow(X, Y, width=2048, gamma=gammas, gamma_prime=0.0, max_steps=2)


def test_reversed_views_and_small_integer_types():
    run = flow.gradient_flow(X[::-1], Y[::-1], width=np.int8(64), gamma=0.75, gamma_prime=0.0, max_steps=np.int8(127))
    same = flow.gradient_flow(X[::-1].copy(), Y[::-1].copy(), width=64, gamma=0.75, gamma_prime=0.0, max_steps=127)
    assert run["steps"] == same["steps"] > 0 and run["relative_loss"] == same["relative_loss"] < 1


def test_global_random_state_is_neither_read_nor_written():
    before = np.random.get_state()
    flow.gradient_flow(X, Y, width=8, gamma=1.0, gamma_prime=0.0, max_steps=5)
    after = np.random.get_state()
    assert before[2:] == after[2:] and np.array_equal(before[1], after[1])
