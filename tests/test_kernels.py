"""Kernels: closed form against integrals and against wide networks, within the error they must have; refusals."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from sklearn.kernel_ridge import KernelRidge
from sklearn.svm import SVC

from feature_learning import data, kernels


class TwoLayer(torch.nn.Module):
    """f(x) = m^(-1/2) sum_k a_k max(0, <w_k, (x, bias)>), all parameters N(0, 1)."""

    def __init__(self, width, dim, rng, bias=1.0):
        super().__init__()
        self.w = torch.nn.Parameter(torch.as_tensor(rng.standard_normal((width, dim + 1))))
        self.a = torch.nn.Parameter(torch.as_tensor(rng.standard_normal(width)))
        self.bias = bias

    def forward(self, x):
        with_bias = torch.nn.functional.pad(x, (0, 1), value=self.bias)
        return torch.relu(with_bias @ self.w.T) @ self.a / len(self.a) ** 0.5


def by_differentiation(model, x, z=None):
    """<grad f(x_i), grad f(z_j)> over all parameters that are trained."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def rows(inputs):
        slopes = [
            torch.autograd.grad(model(point[None])[0], list(trained.values())) for point in torch.as_tensor(inputs)
        ]
        return torch.stack([torch.cat([part.flatten() for part in slope]) for slope in slopes])

    left = rows(x)
    return (left @ (left if z is None else rows(z)).T).numpy()


def points(n=8, d=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def variance_of_one_neuron(x, bias):
    """Of s(<w,x'>) s(<w,z'>) + a^2 <x',z'> 1 1, whose mean is the tangent kernel; E a^4 = 3."""
    x = np.pad(x, ((0, 0), (0, 1)), constant_values=bias)
    k0, k1, k2 = (kernels.arc_cosine(x, kind=kind) / 2 for kind in ("step", "relu", "square"))
    return k2 + 2 * x @ x.T * k1 + 3 * (x @ x.T) ** 2 * k0 - (k1 + x @ x.T * k0) ** 2


@pytest.mark.parametrize("power, kind", [(0, "step"), (1, "relu"), (2, "square")])
@pytest.mark.parametrize("angle", [0.0, 0.01, 0.3, np.pi / 2, 2.5, np.pi])
def test_arc_cosine_against_the_integral(power, kind, angle):
    """In the plane of x and z, w = r (cos t, sin t): E[g g] = E[r^(2p)] * mean over t of (cos t cos(t - angle))_+^p."""
    x, z = 1.5 * np.array([[1.0, 0.0]]), 0.7 * np.array([[np.cos(angle), np.sin(angle)]])
    moment = [1, 2, 8][power] * (1.5 * 0.7) ** power  # E r^2 = 2 and E r^4 = 8 in two dimensions
    # both factors are positive for t between angle - pi/2 and pi/2
    integral = quad(lambda t: (np.cos(t) * np.cos(t - angle)) ** power, angle - np.pi / 2, np.pi / 2)[0]
    np.testing.assert_allclose(
        kernels.arc_cosine(x, z, kind), 2 * moment * integral / (2 * np.pi), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("bias", [0.0, 1.0, 0.4])
def test_closed_form_against_automatic_differentiation_of_a_wide_network(bias):
    x, width = points(), 20_000
    model = TwoLayer(width, 4, np.random.default_rng(1), bias)
    error = by_differentiation(model, x) - kernels.ntk(x, bias=bias)
    scores = error / np.sqrt(variance_of_one_neuron(x, bias) / width)
    # 36 numbers, nearly normal: their largest stays below 5 but for a chance of 1e-5
    assert np.abs(scores).max() < 5
    # and the error is not smaller than it must be either
    assert 0.2 < np.sqrt((scores**2).mean()) < 3


def test_mean_and_variance_of_one_neuron():
    """Over 400,000 neurons; the fourth moments of their shares bound the error of the variance."""
    x, rng, count = points(5), np.random.default_rng(2), 400_000
    x_one = np.pad(x, ((0, 0), (0, 1)), constant_values=1.0)
    h, a = x_one @ rng.standard_normal((5, count)), rng.standard_normal(count)
    for i, j in zip(*np.triu_indices(5), strict=True):
        both = (h[i] > 0) & (h[j] > 0)
        share = both * (h[i] * h[j] + a**2 * (x_one[i] @ x_one[j]))
        squares = (share - share.mean()) ** 2
        assert abs(share.mean() - kernels.ntk(x)[i, j]) < 5 * share.std() / np.sqrt(count)
        assert abs(squares.mean() - variance_of_one_neuron(x, 1.0)[i, j]) < 5 * squares.std() / np.sqrt(count)


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_random_features_are_the_network_with_frozen_input_weights(bias):
    x, z, width = points(6), points(3, seed=5), 40_000
    model = TwoLayer(width, 4, np.random.default_rng(3), bias)
    model.w.requires_grad_(False)
    measured = by_differentiation(model, x, z)
    expected = kernels.random_features_kernel(x, z, bias=bias)
    assert measured.shape == expected.shape == (6, 3)
    x, z = (np.pad(part, ((0, 0), (0, 1)), constant_values=bias) for part in (x, z))
    spread = np.sqrt((kernels.arc_cosine(x, z, "square") / 2 - expected**2) / width)
    assert np.abs((measured - expected) / spread).max() < 5  # 18 numbers, nearly normal


@pytest.mark.parametrize("kernel", [kernels.ntk, kernels.random_features_kernel, kernels.arc_cosine])
def test_symmetric_positive_definite_and_blockwise(kernel):
    x, z = points(40), points(3, seed=7)
    full = kernel(x)
    np.testing.assert_allclose(full, full.T, rtol=1e-13)
    assert np.linalg.eigvalsh(full).min() > 0
    np.testing.assert_allclose(kernel(np.vstack([x, z]))[:40, 40:], kernel(x, z), rtol=1e-12)


def test_equal_inputs_get_the_exact_value():
    x = np.random.default_rng(0).standard_normal((500, 20))
    twice = np.vstack([x, x])
    np.testing.assert_allclose(np.diag(kernels.ntk(x)), (x**2).sum(1) + 1, rtol=1e-14)
    np.testing.assert_allclose(np.diag(kernels.ntk(twice)[:500, 500:]), (x**2).sum(1) + 1, rtol=1e-14)
    np.testing.assert_allclose(np.diag(kernels.ntk(x, bias=0)), (x**2).sum(1), rtol=1e-14)


def test_opposite_inputs_are_no_nan_in_spite_of_rounding():
    """Cosines of opposite rows fall below -1 by rounding; the kernel without a bias is 0 there."""
    x = np.random.default_rng(0).standard_normal((500, 20))
    for kernel in (kernels.random_features_kernel, kernels.ntk):
        np.testing.assert_allclose(np.diag(kernel(x, -x, bias=0)), 0, atol=1e-6)
    np.testing.assert_allclose(np.diag(kernels.arc_cosine(x, -x, "step")), 0, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-200, 1e-160, 1e-100, 1e100, 1e148])
def test_length_does_not_matter_however_small_or_large(scale):
    """The kernels are homogeneous; squares of 1e-200 and 1e200 leave the range of floats unless rows are scaled."""
    x, z = points(5), points(3, seed=5)
    np.testing.assert_allclose(kernels.arc_cosine(x * scale, z, "step"), kernels.arc_cosine(x, z, "step"), rtol=1e-12)
    np.testing.assert_allclose(
        kernels.arc_cosine(x * scale, z * scale), kernels.arc_cosine(x, z) * scale**2, rtol=1e-12, atol=1e-307
    )
    np.testing.assert_allclose(kernels.ntk(x * scale, z / scale, bias=0), kernels.ntk(x, z, bias=0), rtol=1e-12)
    np.testing.assert_array_equal(kernels.arc_cosine(x * 2.0**400, z), kernels.arc_cosine(x, z) * 2.0**400)


def test_reversed_views_and_tensors_give_what_their_copies_give():
    x = points(5)[::-1, ::-1]
    for kernel in (kernels.ntk, kernels.arc_cosine):
        np.testing.assert_array_equal(kernel(x), kernel(x.copy()))
        np.testing.assert_array_equal(kernel(x), kernel(torch.tensor(x.copy(), requires_grad=True)))


def test_no_bias_cannot_represent_a_constant_on_opposite_points_but_a_zero_input_is_allowed():
    assert kernels.ntk([[0.0, 0.0]], [[1.0, 2.0]], bias=0).item() == 0
    opposite = kernels.ntk([[1.0, 0.0]], [[-1.0, 0.0]], bias=0).item()
    assert opposite == pytest.approx(0, abs=1e-15)


def test_scikit_learn_takes_it():
    x, y = data.sparse_parity(400, 8, 2, 0)
    test, labels = data.sparse_parity(500, 8, 2, 1)
    ridge = KernelRidge(alpha=1e-6, kernel="precomputed").fit(kernels.ntk(x), y)
    by_hand = kernels.ntk(test, x) @ np.linalg.solve(kernels.ntk(x) + 1e-6 * np.eye(400), y)
    np.testing.assert_allclose(ridge.predict(kernels.ntk(test, x)), by_hand, atol=1e-6)
    machine = SVC(kernel=kernels.ntk, C=100).fit(x, y)
    assert machine.score(test, labels) > 0.95 and (ridge.predict(kernels.ntk(test, x)) * labels > 0).mean() > 0.95


@pytest.mark.parametrize(
    "bad, message",
    [
        (lambda: kernels.ntk(np.zeros(3)), r"x and z must have shapes .*\(3,\)"),
        (lambda: kernels.ntk(np.ones((2, 3)), np.ones((2, 4))), r"same d; got \(2, 3\) and \(2, 4\)"),
        (lambda: kernels.ntk(np.full((2, 3), np.nan)), "x must hold finite numbers"),
        (lambda: kernels.ntk(np.ones((2, 3)), np.full((1, 3), np.inf)), "z must hold finite numbers"),
        (lambda: kernels.random_features_kernel(np.ones((0, 3))), "x must not be empty"),
        (lambda: kernels.ntk(np.ones((2, 3)), bias=-1), "bias must be a number >= 0; got -1"),
        (
            lambda: kernels.arc_cosine(np.ones((2, 3)), kind="cubic"),
            "kind must be one of relu, square, step; got 'cubic'",
        ),
        *(
            (
                lambda f=f: f(1e200 * np.ones((2, 3))),
                "x and z must give kernels below 1e300; got rows as large as 2\\^66",
            )
            for f in (kernels.ntk, kernels.random_features_kernel, kernels.arc_cosine)
        ),
        (lambda: kernels.arc_cosine(1e100 * np.eye(3), kind="square"), "x and z must give kernels below 1e300"),
        (lambda: kernels.ntk(np.eye(3), bias=1e200), "x and z must give kernels below 1e300"),
        *(
            (lambda f=f, x=x: f(x), f"x must {message}")
            for f in (kernels.ntk, kernels.arc_cosine)
            for x, message in [
                (np.ma.masked_equal(np.eye(3), 0), "have no masked entries; got 6"),
                (1j * np.eye(3), "hold real numbers; got dtype complex128"),
                (np.eye(3).astype("datetime64[D]"), "hold real numbers; got dtype datetime64"),
                (np.eye(3).astype(str), "hold real numbers; got dtype <U"),
            ]
        ),
    ],
)
def test_bad_input_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        bad()
