"""Networks: the forward pass, the activations, the scale of the initialisation."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import expit, ndtr
from scipy.stats import chi2
from torch import nn

from feature_learning.networks import (
    ACTIVATIONS,
    fully_connected,
    initialise_gaussian,
    initialise_xavier,
    linear_layers,
)

X = np.linspace(-3, 3, 121)
CLOSED_FORMS = {
    "tanh": np.tanh(X),
    "relu": np.maximum(X, 0),
    "sigmoid": expit(X),
    "silu": X * expit(X),
    "gelu": X * ndtr(X),
    "softplus": np.log1p(np.exp(X)),
    "xtanh": X * np.tanh(X),
    "x2tanh": X**2 * np.tanh(X),
    "xtan": X * np.tan(X),
    "xtan_clamped": np.clip(X, -1.4, 1.4) * np.tan(np.clip(X, -1.4, 1.4)),
}


# ------------------------------------------------------------------------------------------------ activations
def test_every_activation_has_a_closed_form_here():
    assert set(CLOSED_FORMS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_values(name):
    found = ACTIVATIONS[name](torch.tensor(X)).numpy()
    np.testing.assert_allclose(found, CLOSED_FORMS[name], rtol=1e-12, atol=1e-12)  # rounding; tan is steep at the poles


def test_xtan_has_poles_and_its_clamped_version_has_none():
    delta = 1e-9
    for pole in (-3 * math.pi / 2, -math.pi / 2, math.pi / 2, 3 * math.pi / 2):
        near = ACTIVATIONS["xtan"](torch.tensor([pole - delta, pole + delta], dtype=torch.float64))
        assert near.abs().min() > 0.9 * abs(pole) / delta and near[0] * near[1] < 0
    wide = torch.linspace(-100, 100, 100_001, dtype=torch.float64)
    clamped = ACTIVATIONS["xtan_clamped"](wide)
    assert clamped.max() <= 1.4 * math.tan(1.4) * (1 + 1e-15) and clamped.min() >= 0
    inside = wide[wide.abs() <= 1.4]
    assert torch.equal(ACTIVATIONS["xtan_clamped"](inside), ACTIVATIONS["xtan"](inside))


@pytest.mark.parametrize("name, power", [("xtan", 2), ("xtanh", 2), ("x2tanh", 3), ("tanh", 1), ("xtan_clamped", 2)])
def test_multiplicity_near_zero(name, power):
    """The first term of the series is x^p; the next one is smaller by x^2."""
    x = torch.tensor([-1e-3, 1e-3], dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name](x), x**power, rtol=1e-6, atol=0)


# ------------------------------------------------------------------------------------------------ the network
@pytest.mark.parametrize("widths", [[3, 4, 1], [2, 5, 4, 2], [1, 1, 1], [2, 3, 4, 5, 1]])
@pytest.mark.parametrize("output_bias", [False, True])
def test_forward_pass_by_hand(widths, output_bias):
    model = initialise_gaussian(fully_connected(widths, "silu", output_bias=output_bias), 0.3, 0)
    x = np.random.default_rng(1).standard_normal((6, widths[0]))
    layers = linear_layers(model)
    assert [(a.in_features, a.out_features) for a in layers] == list(pairwise(widths))
    assert all(layer.bias is not None for layer in layers[:-1]) and (layers[-1].bias is not None) == output_bias
    h = x
    for layer in layers:
        h = h @ layer.weight.detach().numpy().T + (0 if layer.bias is None else layer.bias.detach().numpy())
        h = h if layer is layers[-1] else h * expit(h)
    found = model(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(found, h, rtol=1e-12, atol=1e-12)  # rounding of sums of a few products


def test_parameters_are_zero_float64_and_trainable_until_filled():
    model = fully_connected([2, 3, 1])
    assert all(p.dtype == torch.float64 and p.requires_grad and not p.any() for p in model.parameters())
    assert next(fully_connected([2, 3, 1], dtype=torch.float32).parameters()).dtype == torch.float32
    assert "xtanh" in repr(fully_connected([2, 3, 1], "xtanh"))


def test_small_integer_types_do_not_wrap():
    small, usual = fully_connected(np.array([100, 100, 1], dtype=np.int8)), fully_connected([100, 100, 1])
    for p, q in zip(
        initialise_xavier(small, 1, 0).parameters(), initialise_xavier(usual, 1, 0).parameters(), strict=True
    ):
        assert torch.equal(p, q)


def test_linear_layers_of_any_module():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.deep = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sequential(nn.Linear(2, 3), nn.Dropout()))
            self.last = nn.Linear(3, 1)

    assert [layer.out_features for layer in linear_layers(Own())] == [3, 1]


# ------------------------------------------------------------------------------------------------ initialisation
WIDTHS, GAMMA = [200, 300, 80, 50], 1.5  # two hidden layers of different width


def check_layer_scales(initialise):
    """Every layer's standard deviation is m_l^-gamma with the layer's own width, weights and biases together.

    For n draws from N(0, s^2) the sum of squares over s^2 is chi-square with n degrees of freedom; the bounds leave a
    right initialisation outside once in 1e9.
    """
    model = initialise(fully_connected(WIDTHS), GAMMA, 0)
    own_width = [300, 80, 80]  # the number of neurons written to; for the last layer, of neurons read from
    for layer, m in zip(linear_layers(model), own_width, strict=True):
        for parameter in layer.parameters():
            total = float((parameter.detach() ** 2).sum()) / float(m) ** (-2 * GAMMA)
            low, high = chi2.ppf([1e-9, 1 - 1e-9], parameter.numel())
            assert low < total < high, (tuple(parameter.shape), total / parameter.numel())


def gaussian_with(scale):
    """A copy of the initialisation in which `scale(layer, layers)` gives the standard deviation."""

    def initialise(model, gamma, rng):
        rng, layers = np.random.default_rng(rng), linear_layers(model)
        for layer in layers:
            for parameter in layer.parameters():
                with torch.no_grad():
                    parameter.copy_(torch.tensor(rng.standard_normal(parameter.shape) * scale(layer, layers, gamma)))
        return model

    return initialise


def own_width(layer, layers):
    return layer.in_features if layer is layers[-1] else layer.out_features


def test_layer_scales():
    check_layer_scales(initialise_gaussian)
    check_layer_scales(gaussian_with(lambda layer, layers, g: own_width(layer, layers) ** -g))


@pytest.mark.parametrize(
    "scale",
    [
        pytest.param(
            lambda layer, layers, g: layers[0].out_features ** -g, id="every layer's scale from the first width"
        ),
        pytest.param(lambda layer, layers, g: own_width(layer, layers) ** (-g / 2), id="the variance is m^-gamma"),
        pytest.param(lambda layer, layers, g: layer.in_features**-g, id="the width of the layer before"),
    ],
)
def test_mistakes_in_the_scale_are_found(scale):
    """Source A's two mistakes, and one near them, put back into a copy: the check of the scales fails."""
    with pytest.raises(AssertionError):
        check_layer_scales(gaussian_with(scale))


def test_gaussian_draws_are_normal_and_layers_independent():
    model = initialise_gaussian(fully_connected([100, 100, 100, 1]), 0, 0)
    first, second, _ = (layer.weight.detach().numpy().ravel() for layer in linear_layers(model))
    n = len(first)
    assert abs(np.mean(first)) < 5 / np.sqrt(n)  # five standard deviations, here and below
    assert np.mean(first**4) == pytest.approx(3, abs=5 * np.sqrt(96 / n))  # the variance of z^4 is 105 - 9
    assert abs(np.mean(first * second)) < 5 / np.sqrt(n)


@pytest.mark.parametrize("gain", [0, 0.5, 1, 3])
def test_xavier(gain):
    model = initialise_xavier(fully_connected([60, 100, 40, 1], output_bias=True), gain, 0)
    for layer in linear_layers(model):
        bound = gain * math.sqrt(6 / (layer.in_features + layer.out_features))
        weights = layer.weight.detach().numpy()
        assert np.abs(weights).max() <= bound and not layer.bias.any()
        # of n uniform draws the largest falls short of the bound by more than 20/n of it with chance exp(-20)
        assert np.abs(weights).max() >= bound * (1 - 20 / weights.size)
        # the variance of a squared uniform draw on [-a, a] is 4/45 a^4: five standard deviations
        assert np.mean(weights**2) == pytest.approx(bound**2 / 3, abs=5 * bound**2 * np.sqrt(4 / 45 / weights.size))


@pytest.mark.parametrize("initialise, scale", [(initialise_gaussian, 2), (initialise_xavier, 1)])
def test_seeds_and_precision(initialise, scale):
    a, b, c = (initialise(fully_connected([3, 4, 1]), scale, s) for s in (0, np.random.default_rng(0), 1))
    single = initialise(fully_connected([3, 4, 1], dtype=torch.float32), scale, 0)
    for p, q, r, s in zip(*(m.parameters() for m in (a, b, c, single)), strict=True):
        assert torch.equal(p, q) and torch.equal(p.float(), s)
        assert not torch.equal(p, r) or not p.any()
    assert initialise(a, scale, 5) is a


def test_global_random_state_is_neither_read_nor_written():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()
    initialise_gaussian(fully_connected([3, 4, 1]), 1, 0)
    initialise_xavier(fully_connected([3, 4, 1], output_bias=True), 1, 0)
    assert torch.equal(torch.get_rng_state(), torch_before)
    after = np.random.get_state()
    assert numpy_before[2:] == after[2:] and np.array_equal(numpy_before[1], after[1])


# ------------------------------------------------------------------------------------------------ bad input
BAD = [
    (lambda: fully_connected([5, 1]), r"widths must hold input, hidden and output sizes, three or more; got \[5, 1\]"),
    (lambda: fully_connected([]), "widths must hold input, hidden and output sizes"),
    (lambda: fully_connected([5, -50, 1]), "widths must be a whole number >= 1; got -50"),
    (lambda: fully_connected([5, 0, 1]), "widths must be a whole number >= 1; got 0"),
    (lambda: fully_connected([5, 2.5, 1]), "widths must be a whole number >= 1; got 2.5"),
    (lambda: fully_connected([5, True, 1]), "widths must be a whole number >= 1; got True"),
    (lambda: fully_connected("512"), "widths must be a whole number >= 1; got '5'"),
    (lambda: fully_connected([5, 5, 1], "tahn"), "activation must be one of gelu, relu, .*; got 'tahn'"),
    (lambda: fully_connected([5, 5, 1], torch.tanh), "activation must be one of "),
    (lambda: fully_connected([5, 5, 1], None), "activation must be one of .* got None"),
]


@pytest.mark.parametrize("call, message", BAD, ids=[m for _, m in BAD])
def test_bad_widths_and_activations(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("initialise, argument", [(initialise_gaussian, "init_exponent"), (initialise_xavier, "gain")])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "4", None, True], ids=repr)
def test_bad_scale_leaves_the_model_alone(initialise, argument, value):
    model = initialise_gaussian(fully_connected([2, 3, 1]), 0, 0)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=f"{argument} must be a number >= 0; got {value!r}"):
        initialise(model, value, 0)
    assert all(torch.equal(p, before[k]) for k, p in model.state_dict().items())


@pytest.mark.parametrize("initialise", [initialise_gaussian, initialise_xavier])
def test_bad_seed_and_bad_model(initialise):
    model = initialise_gaussian(fully_connected([2, 3, 1]), 0, 0)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="rng must be a numpy.random.Generator, a whole number >= 0 or None; got 'x'"):
        initialise(model, 1, "x")
    assert all(torch.equal(p, before[k]) for k, p in model.state_dict().items())
    for wrong in (nn.Tanh(), np.zeros((2, 2)), [model], None):
        with pytest.raises(ValueError, match="model must be a torch.nn.Module with a linear layer; got"):
            initialise(wrong, 1, 0)


@pytest.mark.parametrize(
    "model, got",
    [
        (nn.Sequential(), r"Sequential\(\)"),
        (nn.Tanh(), r"Tanh\(\)"),
        (nn.Sequential(nn.ReLU(), nn.Tanh()), "Sequential without"),
        ([nn.Linear(2, 2)], "list"),
        (None, "NoneType"),
    ],
)
def test_what_has_no_linear_layer_is_named(model, got):
    with pytest.raises(ValueError, match=f"model must be a torch.nn.Module with a linear layer; got {got}$"):
        linear_layers(model)
