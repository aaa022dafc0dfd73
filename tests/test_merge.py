"""Merging condensed ReLU neurons and channels: exact where theory says so, within the bound elsewhere, clear errors."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from feature_learning import networks
from feature_learning.condensation import input_vectors
from feature_learning.merging import merge

EXACT = 1e-12  # float64 rounding of sums of a few dozen products of size one, with room


def network(sizes, rng, *, bias=True, copies=4, noise=0.0, dtype=torch.float64):
    """A ReLU network whose hidden layers hold `copies` positive multiples of each direction, shuffled, plus noise."""
    layers = []
    for k, (fan_in, fan_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        last = k == len(sizes) - 2
        fan_in, repeat = fan_in * (copies if k else 1), 1 if last else copies
        u = np.repeat(rng.standard_normal((fan_out, fan_in + bias)), repeat, axis=0)
        u = u * rng.uniform(0.2, 3, (len(u), 1)) + noise * rng.standard_normal(u.shape)
        u = u[rng.permutation(len(u))] / np.sqrt(fan_in)
        layer = nn.utils.skip_init(nn.Linear, fan_in, len(u), bias=bias, dtype=dtype)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(u[:, :fan_in]))
            if bias:
                layer.bias.copy_(torch.tensor(u[:, fan_in]))
        layers += [layer] if last else [layer, nn.ReLU()]
    return nn.Sequential(*layers)


def answers(model, x):
    with torch.no_grad():
        return model(torch.tensor(x, dtype=model[-1].weight.dtype)).double().numpy()


def hidden(model):
    return [layer.out_features for layer in model if isinstance(layer, nn.Linear)][:-1]


def points(dim, rng, n=400):
    return rng.standard_normal((n, dim)) * rng.choice([0.01, 1, 30], (n, 1))  # small, usual and large inputs


def sizes_of(x):
    return np.sqrt((x**2).sum(axis=1) + 1)


# ------------------------------------------------------------------------------------------------ exactness
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [(1, 5, 1), (3, 5, 2), (3, 5, 4, 2), (4, 3, 5, 4, 1)])
def test_multiples_of_one_direction_merge_without_loss(sizes, bias):
    rng = np.random.default_rng(3)  # a seed for which no deeper neuron has negative weights only: that one is dropped
    if sizes[0] == 1 and not bias:
        sizes = (1, 2, 1)  # on a line there are two directions only
    model = network(sizes, rng, bias=bias)
    if sizes == (1, 2, 1):
        with torch.no_grad():
            model[0].weight[:4], model[0].weight[4:] = model[0].weight[:4].abs(), -model[0].weight[4:].abs()
    x = points(sizes[0], rng)
    before = copy.deepcopy(model.state_dict())
    smaller, bound = merge(model, threshold=0.9999999)
    difference = np.abs(answers(smaller, x) - answers(model, x)) / sizes_of(x)[:, None]
    assert hidden(model) == [4 * s for s in sizes[1:-1]] and difference.max() < EXACT and bound < 1e-6
    assert hidden(smaller) == list(sizes[1:-1])
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())  # the original is as it was


def test_opposite_neurons_stay_apart():
    model = networks.fully_connected([1, 2, 1], "relu")
    with torch.no_grad():
        model[0].weight[:, 0] = torch.tensor([1.0, -1.0])
        model[2].weight[0] = torch.tensor([1.0, 1.0])  # |x|
    smaller, bound = merge(model, threshold=0)
    x = np.array([[-2.0], [3.0]])
    assert hidden(smaller) == [2] and bound < EXACT
    np.testing.assert_allclose(answers(smaller, x), [[2], [3]], atol=EXACT)


def test_nothing_to_merge_leaves_the_neurons_as_they_are():
    rng = np.random.default_rng(1)
    model = network((3, 6, 2), rng, copies=1)
    smaller, bound = merge(model, threshold=0.999)
    old, new = (input_vectors(m[0]) for m in (model, smaller))
    assert hidden(smaller) == [6] and bound < EXACT
    np.testing.assert_allclose(new, old[np.argmin(((new[:, None] - old) ** 2).sum(2), axis=1)], atol=EXACT)


def test_merging_twice_is_merging_once():
    smaller, _ = merge(network((3, 5, 4, 2), np.random.default_rng(2)))
    again, bound = merge(smaller)
    assert hidden(again) == hidden(smaller) == [5, 4] and bound < 1e-10


def test_opposite_output_weights_cancel():
    model = networks.fully_connected([2, 2, 1], "relu")
    with torch.no_grad():
        model[0].weight[:] = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
        model[2].weight[0] = torch.tensor([3.0, -1.0])
    smaller, _ = merge(model)
    assert hidden(smaller) == [1] and abs(answers(smaller, np.array([[5.0, 7.0]]))).max() < EXACT


def test_a_neuron_grows_as_its_group():
    model = networks.fully_connected([1, 2, 1], "relu")
    with torch.no_grad():
        model[0].weight[:, 0], model[2].weight[0] = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.0])
    smaller, _ = merge(model)
    np.testing.assert_allclose([smaller[0].weight.item(), smaller[2].weight.item()], [5, 5], rtol=1e-14)


def test_loud_neurons_count_more_in_the_mean():
    model = networks.fully_connected([2, 2, 1], "relu")
    with torch.no_grad():
        model[0].weight[:] = torch.tensor([[1, 0.125], [2, -0.125]])
        model[2].weight[0] = torch.tensor([-3.0, 1.0])
    smaller, _ = merge(model, threshold=0.98)
    mean = smaller[0].weight.detach().numpy()[0]
    np.testing.assert_allclose(mean / mean[0], [1, (3 * 0.125 - 0.125) / (3 * 1 + 2)], rtol=1e-12)


def test_exact_multiples_merge_at_threshold_one_in_spite_of_rounding():
    model = network((6, 5, 4, 1), np.random.default_rng(3))
    smaller, bound = merge(model, threshold=1)
    assert hidden(smaller) == [5, 4] and bound < 1e-10


def test_small_networks_merge_as_large_ones():
    """Condensed runs start small: a neuron is not dead because its weights are."""
    model, x = network((3, 5, 2), np.random.default_rng(2), bias=False), points(3, np.random.default_rng(3))
    large = answers(model, x)
    with torch.no_grad():
        for p in model.parameters():
            p *= 2.0**-100
    smaller, _ = merge(model)
    assert hidden(smaller) == [5]
    np.testing.assert_allclose(answers(smaller, x) * 2.0**200, large, atol=EXACT * np.abs(x).max())


# ------------------------------------------------------------------------------------------------ dead neurons
def test_dead_neurons_are_dropped():
    rng = np.random.default_rng(3)
    model = network((3, 7, 2), rng, copies=1)
    with torch.no_grad():
        model[0].weight[0] = model[0].bias[0] = 0  # zero input vector
        model[0].weight[1], model[0].bias[1] = 0, -2  # never active
        model[0].weight[2], model[0].bias[2] = 0, 2  # constant: to be kept
        model[2].weight[:, 3] = 0  # nothing reads it
    x = points(3, rng)
    smaller, bound = merge(model)
    assert hidden(smaller) == [4] and bound < EXACT
    np.testing.assert_allclose(answers(smaller, x), answers(model, x), rtol=EXACT, atol=EXACT)


def test_after_a_relu_negative_weights_are_dead_too():
    rng = np.random.default_rng(4)
    model = network((3, 6, 5, 2), rng, copies=1)
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight[0], layer.bias[0] = -1, -1
    x = points(3, rng)
    smaller, _ = merge(model)
    assert hidden(smaller) == [6, 4]  # in the first layer -1 is a direction as any other
    np.testing.assert_allclose(answers(smaller, x), answers(model, x), rtol=EXACT, atol=EXACT)


def test_a_network_of_dead_neurons_keeps_one():
    model = networks.fully_connected([2, 3, 4, 1], "relu", output_bias=True)
    with torch.no_grad():
        model[4].bias[:] = 7
    smaller, bound = merge(model)
    assert hidden(smaller) == [1, 1] and bound < EXACT
    np.testing.assert_array_equal(answers(smaller, np.ones((2, 2))), 7)


def test_tiny_weights_do_not_become_nan():
    model = networks.fully_connected([1, 3, 1], "relu")
    with torch.no_grad():
        model[0].weight[:, 0], model[2].weight[0] = torch.tensor([1e-200, 2e-200, 1]), torch.tensor([1e-200, 1, 2])
    smaller, bound = merge(model)
    assert np.isfinite(bound) and answers(smaller, np.ones((1, 1))) == 2


# ------------------------------------------------------------------------------------------------ the bound
@pytest.mark.parametrize("threshold", [0.999, 0.95, 0.8, 0.0])
@pytest.mark.parametrize("sizes", [(1, 5, 1), (3, 6, 2), (3, 6, 5, 2)])
def test_the_bound_holds(sizes, threshold):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        model, x = network(sizes, rng, noise=0.1), points(sizes[0], rng, 2000)
        smaller, bound = merge(model, threshold=threshold)
        change = np.linalg.norm(answers(smaller, x) - answers(model, x), axis=1) / sizes_of(x)
        assert hidden(smaller) < hidden(model) and 0 < change.max() <= bound


def test_the_bound_is_reached():
    """Two neurons (1, t) and (1, -t) of output weights 1 and -1 merge to nothing; they differed by 2t x_2."""
    t = 0.01
    model = networks.fully_connected([2, 2, 1], "relu")
    with torch.no_grad():
        model[0].weight[:] = torch.tensor([[1, t], [1, -t]])
        model[2].weight[0] = torch.tensor([1.0, -1.0])
    smaller, bound = merge(model, threshold=0.99)
    far = np.array([[1e6, 1e6]])
    change = abs(answers(smaller, far) - answers(model, far)).item() / np.sqrt(2e12 + 1)
    assert hidden(smaller) == [1] and bound == pytest.approx(2 * t, rel=1e-3)
    assert change == pytest.approx(2 * t / np.sqrt(2), rel=1e-3)  # the input lies at 45 degrees to the difference


def test_the_bound_carries_what_other_layers_do():
    """The pair above between a first layer that stretches by 10 and a last one that stretches by 5."""
    t, model = 0.01, networks.fully_connected([2, 2, 2, 1, 1], "relu")
    with torch.no_grad():
        model[0].weight[:] = 10 * torch.eye(2)
        model[2].weight[:] = torch.tensor([[1, t], [1, -t]])
        model[4].weight[0], model[4].bias[0] = torch.tensor([1.0, -1.0]), 1.0
        model[6].weight[0] = 5
    _, bound = merge(model, threshold=0.99)
    assert bound == pytest.approx(10 * 2 * t * 5, rel=1e-3)


def test_a_layer_before_that_shrinks_still_hands_the_one_on():
    """Two neurons of biases t and -t behind a layer that shrinks by 10 differ by 2t: the bound may not shrink by 10."""
    t, model = 0.01, networks.fully_connected([1, 1, 2, 1], "relu")
    with torch.no_grad():
        model[0].weight[:], model[2].weight[:], model[2].bias[:] = 0.1, 1, torch.tensor([t, -t])
        model[4].weight[0] = torch.tensor([1.0, -1.0])
    smaller, bound = merge(model, threshold=0.99)
    near = np.array([[0.5]])
    assert hidden(smaller) == [1, 1] and bound == pytest.approx(2 * t, rel=1e-3)
    assert 1.5 * t < abs(answers(smaller, near) - answers(model, near)).item() / sizes_of(near)[0] <= bound


def test_the_bound_takes_the_better_of_sum_and_spectral_norms():
    """Four neurons (+-1, +-t), each read by an output of its own: the sum is 4t, the spectral norms give 1 * 2t."""
    t, model = 0.01, networks.fully_connected([2, 4, 4], "relu")
    with torch.no_grad():
        model[0].weight[:] = torch.tensor([[1, t], [1, -t], [-1, t], [-1, -t]])
        model[2].weight[:] = torch.eye(4)
    smaller, bound = merge(model, threshold=0.99)
    assert hidden(smaller) == [2] and bound == pytest.approx(2 * t, rel=1e-3)


def test_every_pair_of_a_group_is_close():
    angles = np.radians(np.arange(0, 60, 2.0))  # a chain: neighbours are close, the ends are not
    model = networks.fully_connected([2, len(angles), 1], "relu")
    with torch.no_grad():
        model[0].weight[:] = torch.tensor(np.c_[np.cos(angles), np.sin(angles)])
        model[2].weight[0] = 1
    smaller, _ = merge(model, threshold=np.cos(np.radians(10.5)))
    assert 6 <= hidden(smaller)[0] <= 12  # single linkage would make it one


# ------------------------------------------------------------------------------------------------ kinds of module
def test_float32_and_names_and_no_global_random_numbers():
    rng = np.random.default_rng(5)
    model = network((3, 5, 2), rng, dtype=torch.float32)
    state = torch.get_rng_state()
    smaller, _ = merge(model)
    assert torch.equal(state, torch.get_rng_state())
    assert {p.dtype for p in smaller.parameters()} == {torch.float32} and hidden(smaller) == [5]
    assert smaller[0].in_features == 3 and smaller[2].in_features == 5 and "out_features=5" in repr(smaller)
    x = rng.standard_normal((50, 3))
    np.testing.assert_allclose(answers(smaller, x), answers(model, x), atol=1e-4)


def test_the_smaller_network_trains():
    smaller, _ = merge(network((3, 5, 1), np.random.default_rng(6)))
    smaller(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
    assert all(p.is_leaf and p.grad is not None and p.grad.shape == p.shape for p in smaller.parameters())


def test_linear_layers_in_a_row_are_left_alone():
    """Without a ReLU in between, the first layer's neurons may be opposite, negative or dead: they are linear."""
    rng = np.random.default_rng(7)
    parts = network((3, 4, 2), rng, copies=2)
    first = nn.Linear(3, 3, dtype=torch.float64)
    with torch.no_grad():
        first.weight[:], first.bias[:] = torch.tensor([[-1.0, -2, -3], [1, 2, 3], [0, 1, -1]]), -1.0
    model = nn.Sequential(nn.ReLU(), first, *parts, nn.ReLU())
    x = points(3, rng)
    smaller, _ = merge(model)
    assert hidden(smaller) == [3, 4]
    np.testing.assert_allclose(answers(smaller[:-1], x), answers(model[:-1], x), rtol=1e-10, atol=1e-10)


def test_a_layer_that_occurs_twice_and_a_single_layer():
    shared = nn.Linear(3, 3, dtype=torch.float64)
    with torch.no_grad():
        shared.weight[:] = torch.tensor([[1.0, 2, 3], [2, 4, 6], [-1, 0, 1]])
        shared.bias[:] = torch.tensor([1.0, 2, 0])
    model, x = nn.Sequential(shared, nn.ReLU(), shared), np.random.default_rng(8).standard_normal((50, 3))
    smaller, _ = merge(model)
    assert hidden(smaller) == [2]
    np.testing.assert_allclose(answers(smaller, x), answers(model, x), rtol=EXACT, atol=EXACT)
    alone, bound = merge(nn.Sequential(shared))
    assert bound < EXACT and torch.equal(alone[0].weight, shared.weight) and alone[0] is not shared


# ------------------------------------------------------------------------------------------------ images
def images(rng, *, noise=0.0, pool=None, flat=True, dtype=torch.float64):
    """A convolutional network whose channels come three times, with lengths and shares of their own, plus noise."""
    sizes = [(nn.Conv2d, (2, 4, 3)), (nn.Conv2d, (4, 5, (1, 3)))] + [(nn.Linear, (5 * 2 * 3, 2))] * flat
    layers, share = [], None
    for k, (kind, (fan_in, fan_out, *kernel)) in enumerate(sizes):
        last = k == len(sizes) - 1
        plain = kind(fan_in, fan_out, *kernel, **({"padding": "same"} if kernel else {})).to(dtype)
        w = rng.standard_normal(plain.weight.shape)
        if share is not None:  # each copy gets its share of what the channel sends
            w = w.reshape(fan_out, share.shape[1], -1, *w.shape[2:])
            w = np.concatenate([w * s.reshape(1, -1, *[1] * (w.ndim - 2)) for s in share], axis=1)
            w = w.reshape(fan_out, -1, *plain.weight.shape[2:])
        bias = rng.standard_normal(fan_out)
        if not last:
            c = rng.uniform(0.2, 3, (3, fan_out))
            share = rng.dirichlet([2, 2, 2], fan_out).T / c
            w = np.concatenate([w * s.reshape(-1, *[1] * (w.ndim - 1)) for s in c])
            bias = (c * bias).ravel()
        w, bias = (v + noise * rng.standard_normal(v.shape) for v in (w, bias))
        layer = kind(
            w.shape[1] if kernel else w.reshape(fan_out, -1).shape[1],
            len(w),
            *kernel,
            **({"padding": "same"} if kernel else {}),
        )
        with torch.no_grad():
            layer.to(dtype).weight.copy_(torch.tensor(w.reshape(layer.weight.shape)))
            layer.bias.copy_(torch.tensor(bias))
        layers += [layer] if last else [layer, nn.ReLU(), pool or nn.MaxPool2d(2)]
        layers += [nn.Flatten()] if flat and k == len(sizes) - 2 else []
    return nn.Sequential(*layers)


def channels(model):
    return [layer.weight.shape[0] for layer in model if isinstance(layer, nn.Conv2d)]


def length_at_each_place(x):
    """Longest vector of channels in each image; of rows their length."""
    return x.flatten(2).norm(dim=1).amax(dim=1) if x.ndim > 2 else x.norm(dim=1)


POOLS = {"max": nn.MaxPool2d(2), "mean": nn.AvgPool2d(2), "overlapping": nn.MaxPool2d(3, stride=2, padding=1)}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("flat", [True, False])
def test_multiples_of_one_channel_merge_without_loss(pool, flat):
    rng = np.random.default_rng(0)
    model = images(rng, pool=POOLS[pool], flat=flat)
    x = torch.tensor(rng.standard_normal((20, 2, 8, 12)))
    assert channels(model) == ([12, 15] if flat else [12, 5])
    smaller, bound = merge(model, threshold=1 - 1e-9)
    assert channels(smaller) == [4, 5] and bound < 1e-5
    assert (smaller(x) - model(x)).abs().max() < 1e-10 * model(x).abs().max()
    assert (smaller[0].in_channels, smaller[0].out_channels, smaller[3].in_channels) == (2, 4, 4)
    if flat:
        assert smaller[-1].in_features == 30 and "in_features=30" in repr(smaller)


@pytest.mark.parametrize("threshold", [0.99, 0.8, 0.0])
@pytest.mark.parametrize("pool", POOLS)
def test_the_bound_holds_for_images(pool, threshold):
    for seed, flat in ((0, True), (1, True), (2, False)):
        rng = np.random.default_rng(seed)
        model = images(rng, noise=0.1, pool=POOLS[pool], flat=flat)
        x = torch.tensor(rng.standard_normal((300, 2, 8, 12)) * rng.choice([0.01, 1, 30], (300, 1, 1, 1)))
        smaller, bound = merge(model, threshold=threshold)
        change = length_at_each_place(smaller(x) - model(x)) / (length_at_each_place(x) ** 2 + 1).sqrt()
        assert 0 < change.max() <= bound  # with the longest vector at a place for |x|, which is less than all of |x|


def test_the_bound_of_a_channel_is_reached():
    """Channels (1, t) and (1, -t) that the next layer subtracts, one place read: the same 2t as for neurons."""
    t, model = 0.01, nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1)).double()
    with torch.no_grad():
        model[0].weight[:, :, 0, 0], model[0].bias[:] = torch.tensor([[1, t], [1, -t]]), 0
        model[2].weight[0, :, 0, 0], model[2].bias[:] = torch.tensor([1.0, -1.0]), 0
    smaller, bound = merge(model, threshold=0.99)
    far = torch.full((1, 2, 4, 4), 1e6, dtype=torch.float64)
    assert channels(smaller) == [1, 1] and bound == pytest.approx(2 * t, rel=1e-3)
    assert (smaller(far) - model(far)).abs().max().item() == pytest.approx(2e6 * t, rel=1e-3)


def test_the_bound_counts_the_places_that_are_read():
    """The same pair read at 3 by 3 places: nine differences of 2t x_2 add up, and the bound allows for them."""
    t, model = 0.01, nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 3)).double()
    with torch.no_grad():
        model[0].weight[:, :, 0, 0], model[0].bias[:] = torch.tensor([[1, t], [1, -t]]), 0
        model[2].weight[0], model[2].bias[:] = torch.tensor([1.0, -1.0])[:, None, None], 0
    smaller, bound = merge(model, threshold=0.99)
    far = torch.full((1, 2, 4, 4), 1e6, dtype=torch.float64)
    change = (smaller(far) - model(far)).abs().max().item() / length_at_each_place(far).item()
    assert change == pytest.approx(9 * 2 * t / np.sqrt(2), rel=1e-3)
    assert change <= bound and bound == pytest.approx(9 * 2 * t, rel=1e-3)


def test_channels_that_never_show_anything_are_dropped():
    rng = np.random.default_rng(4)
    model = images(rng)
    with torch.no_grad():
        for layer in (model[0], model[3]):  # what the second reads is never negative, through the pooling
            layer.weight[0], layer.bias[0] = -layer.weight[0].abs(), -1
    x = torch.tensor(rng.standard_normal((20, 2, 8, 12)))
    smaller, _ = merge(model, threshold=1)
    assert channels(model)[1] - channels(smaller)[1] >= 9 and (smaller(x) - model(x)).abs().max() < 1e-9


def test_a_network_that_averages_over_the_whole_image_merges_too():
    rng = np.random.default_rng(6)
    model = nn.Sequential(
        *images(rng, flat=False)[:3], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3)
    ).double()
    smaller, bound = merge(model, threshold=1 - 1e-9)
    x = torch.tensor(rng.standard_normal((20, 2, 8, 12)))
    assert channels(smaller) == [4] and bound < 1e-5 and (smaller(x) - model(x)).abs().max() < 1e-12


def test_the_bound_holds_where_pooling_repeats_the_input():
    """Two pixels become sixteen, X eight times and -X eight times; one neuron prefers the one half, one the other."""
    t, half = 0.01, torch.tensor([1.0, 1, -1, -1], dtype=torch.float64).repeat(4)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        model[2].weight[:], model[2].bias[:] = torch.stack([1 + t * half, 1 - t * half]), 0
        model[4].weight[0], model[4].bias[:] = torch.tensor([1.0, -1.0]), 0
    smaller, bound = merge(model, threshold=0.99)
    x = torch.tensor([[[[1e4, -1e4]]]], dtype=torch.float64)
    change = (smaller(x) - model(x)).abs().item() / x.norm().item()
    assert smaller[2].out_features == 1 and change == pytest.approx(16 * t / np.sqrt(2), rel=1e-3)
    assert change <= bound


def test_the_smaller_convolution_trains_in_its_precision():
    smaller, _ = merge(images(np.random.default_rng(7), dtype=torch.float32), threshold=0.9999)
    smaller(torch.ones(2, 2, 8, 12)).sum().backward()
    assert {p.dtype for p in smaller.parameters()} == {torch.float32}
    assert all(p.grad is not None and p.grad.shape == p.shape for p in smaller.parameters())


@pytest.mark.parametrize(
    "layers, message",
    [
        ([nn.Conv2d(2, 4, 3, groups=2)], "without groups.*groups=2"),
        ([nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()], "not exact; got BatchNorm2d"),
        ([nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(2)], "not exact; got Flatten"),
        ([nn.AvgPool2d(2, divisor_override=1)], "not exact; got AvgPool2d"),
        ([nn.ConvTranspose2d(1, 4, 3)], "not exact; got ConvTranspose2d"),
        ([nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 2)], "layer 2 must read what layer 0 writes; got Linear"),
        ([nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(10, 2)], "layer 3 must read .* layer 0 writes"),
        ([nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.MaxPool2d(2), nn.Linear(8, 2)], "layer 4 must read"),
        ([nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(3, 2, 3)], "layer 2 must read what layer 0 writes; got Conv2d"),
        ([nn.Linear(3, 4), nn.ReLU(), nn.Conv2d(4, 2, 3)], "layer 2 must read what layer 0 writes; got Conv2d"),
        ([nn.Linear(3, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Linear(4, 2)], "layer 3 must read"),
        ([nn.Linear(3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)], "layer 3 must read"),
        ([nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3))], r"plain layers.*layer 0 \(ParametrizedConv2d\)"),
    ],
)
def test_images_that_cannot_be_merged_are_refused_by_name(layers, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        merge(nn.Sequential(*layers))


# ------------------------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize(
    "model, message",
    [
        (nn.Linear(2, 2), "torch.nn.Sequential.*got Linear"),
        (None, "torch.nn.Sequential.*got NoneType"),
        (nn.Conv2d(1, 2, 3), "torch.nn.Sequential.*got Conv2d"),
        (nn.Sequential(), "must have a linear layer; got 0 layers"),
        (nn.Sequential(nn.ReLU()), "must have a linear layer; got 1 layers"),
        (nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1)), r"linear and ReLU layers.*Tanh\(\)"),
        (networks.fully_connected([2, 2, 1], "tanh"), r"linear and ReLU layers.*Activation\(tanh\)"),
        (nn.Sequential(nn.Sequential(nn.Linear(2, 2))), "linear and ReLU layers.*Sequential"),
    ],
)
def test_modules_that_cannot_be_merged(model, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        merge(model)


class Squared(nn.Linear):
    """A subclass with its own forward: not a linear layer."""

    def forward(self, x):
        return super().forward(x) ** 2


class Leaky(nn.ReLU):
    """A subclass with its own forward: not a ReLU."""

    def forward(self, x):
        return nn.functional.leaky_relu(x)


class Named(nn.Linear):
    """A subclass that computes what its class says."""


@pytest.mark.parametrize(
    "changed, named",
    [
        (lambda: {0: nn.utils.parametrizations.spectral_norm(nn.Linear(2, 3))}, r"layer 0 \(ParametrizedLinear\)"),
        (lambda: {2: nn.utils.parametrizations.weight_norm(nn.Linear(3, 1))}, r"layer 2 \(ParametrizedLinear\)"),
        (lambda: {0: nn.utils.spectral_norm(nn.Linear(2, 3))}, r"layer 0 \(Linear\)"),
        (lambda: {2: prune.l1_unstructured(nn.Linear(3, 1), "weight", 1)}, r"layer 2 \(Linear\)"),
        (lambda: {0: Squared(2, 3), 1: Leaky()}, r"layer 0 \(Squared\), layer 1 \(Leaky\)"),
    ],
    ids=["spectral_norm", "weight_norm", "spectral_norm by a hook", "pruned", "own forward"],
)
def test_layers_that_compute_their_own_way_are_refused_by_name(changed, named):
    layers = {0: nn.Linear(2, 3), 1: nn.ReLU(), 2: nn.Linear(3, 1)} | changed()
    with pytest.raises(ValueError, match=f"model must hold plain layers, .*; got {named}$"):
        merge(nn.Sequential(*layers.values()))


def test_a_subclass_without_a_forward_of_its_own_is_as_good_as_linear():
    smaller, _ = merge(nn.Sequential(Named(2, 3), nn.ReLU(), Named(3, 1)))
    assert isinstance(smaller[0], Named)


def test_numbers_that_are_not_allowed():
    model = networks.fully_connected([2, 2, 1], "relu")
    for threshold in (-0.1, 1.1, "high", float("nan")):
        with pytest.raises(ValueError, match="threshold must be"):
            merge(model, threshold=threshold)
    with torch.no_grad():
        model[0].bias[0] = float("nan")
    with pytest.raises(ValueError, match="model must hold finite numbers only; 1 of 6"):
        merge(model)


# ------------------------------------------------------------------------------------------------ extremes
def one_input(weights, outputs, dtype=torch.float64):
    """A network of one input and output."""
    model = nn.Sequential(nn.Linear(1, len(weights)), nn.ReLU(), nn.Linear(len(weights), 1)).to(dtype)
    with torch.no_grad():
        model[0].weight[:, 0], model[2].weight[0] = (torch.tensor(v, dtype=dtype) for v in (weights, outputs))
        model[0].bias[:], model[2].bias[:] = 0, 0
    return model


@pytest.mark.parametrize("weights, outputs", [([1.0], [1e170]), ([1e160, 1e160], [1.0, 1.0])])
def test_weights_for_which_no_bound_can_be_computed_are_refused(weights, outputs):
    with pytest.raises(ValueError, match=r"weights of at most 1e60 .*; got 1e\+1[67]0"):
        merge(one_input(weights, outputs))


@pytest.mark.parametrize("small, large", [(1e-170, 1e55), (1e-141, 1e60), (1e-100, 1e-60), (1e-145, 1.0)])
def test_what_is_dropped_is_charged_to_the_bound(small, large):
    """Neurons whose squares underflow, next to one that stays and alone."""
    for model in (one_input([small], [large]), one_input([small, 1.0], [large, 1.0])):
        smaller, bound = merge(model)
        x = torch.tensor([[1.0], [1e3], [-2.0]], dtype=torch.float64)
        gap = (smaller(x) - model(x)).abs()[:, 0]
        assert torch.all(gap <= bound * (x[:, 0] ** 2 + 1).sqrt() * (1 + 1e-12) + 1e-12 * model(x).abs()[:, 0])
        assert bound >= small * large * (1 - 1e-12) and smaller[0].out_features == 1


def test_what_was_frozen_stays_frozen():
    model = one_input([1.0, 2.0, 1.0], [1.0, 1.0, -1.0])
    model[0].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    assert [p.requires_grad for p in merge(model)[0].parameters()] == [False, True, True, False]


@pytest.mark.parametrize("dtype, part", [(torch.float64, 1e-11), (torch.float32, 1e-2), (torch.bfloat16, np.inf)])
def test_rounding_in_the_models_precision_is_charged(dtype, part):
    """Exact copies: all that merging changes is rounding, which the bound covers in every precision."""
    rng = np.random.default_rng(12)
    for sizes in ((3, 6, 1), (3, 5, 4, 2), (8, 40, 1)):
        model = network(sizes, rng, dtype=dtype)
        smaller, bound = merge(model, threshold=0.9999)
        x = torch.tensor(points(sizes[0], rng), dtype=dtype).double().numpy()
        gap = np.sqrt(((answers(smaller, x) - answers(model, x)) ** 2).sum(axis=1)) / sizes_of(x)
        assert 0 < gap.max() <= bound < part


def test_a_merged_weight_that_overflows_is_refused():
    with pytest.raises(ValueError, match="what merging leaves must hold finite numbers only"):
        merge(one_input([3e38, 3e38], [1.0, 1.0], torch.float32))
