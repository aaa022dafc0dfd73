"""The report on any module: what it counts, what it leaves out, what chance would give, and how it prints."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

import feature_learning as fl
from feature_learning import condensation as c


def filled(layer, rows):
    """A linear layer whose input vectors are `rows` (bias last, if it has one)."""
    rows = torch.as_tensor(np.asarray(rows), dtype=layer.weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(rows[:, : layer.in_features])
        if layer.bias is not None:
            layer.bias.copy_(rows[:, -1])
    return layer


def made(rows, **settings):
    rows = np.asarray(rows, dtype=float)
    fan_in = rows.shape[1] - settings.get("bias", True)
    return filled(nn.Linear(fan_in, len(rows), dtype=torch.float64, **settings), rows)


# ------------------------------------------------------------------------------------------------ what is measured
def test_rows_hold_what_the_measures_give():
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((30, 5)), rng.standard_normal((8, 31))
    second[1:4] = second[0] * [[2], [-1], [0.1]]
    found = c.report(nn.Sequential(made(first), nn.Tanh(), made(second)), threshold=0.9)
    assert [(r.layer, r.neurons, r.alive, r.dim) for r in found.rows] == [("0", 30, 30, 5), ("2", 8, 8, 31)]
    for row, vectors in zip(found.rows, (first, second), strict=True):
        similarity = c.cosine_similarity(vectors)
        np.testing.assert_array_equal(row.similarity, similarity)
        assert row.mean == c.mean_abs_cosine(similarity) and row.ratio == c.condensed_ratio(similarity, 0.9)
        assert row.chance == c.chance_ratio(row.dim, 0.9) and row.chance_mean == c.chance_mean(row.dim)
        assert row.limit == c.chance_limit(row.neurons, row.dim, 0.9)
    assert found.rows[1].ratio == 6 / 28 and found.rows[1].clusters == 5
    assert found.rows[0].ratio < found.rows[0].limit < found.rows[1].ratio


def test_channels_are_neurons_that_look_through_a_window():
    """Of every dimension; what is measured is what their weights, laid out in rows, give."""
    rng = np.random.default_rng(1)
    layers = nn.Conv1d(3, 6, 2), nn.Conv2d(3, 6, (2, 3), bias=False), nn.Conv3d(1, 6, 2)
    for layer, length in zip(layers, (3 * 2 + 1, 3 * 6, 8 + 1), strict=True):
        rows = rng.standard_normal((6, length))
        rows[1] = -2 * rows[0]
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(rows[:, : layer.weight[0].numel()]).reshape(layer.weight.shape))
            if layer.bias is not None:
                layer.bias.copy_(torch.tensor(rows[:, -1]))
        (row,) = c.report(nn.Sequential(layer.double(), nn.ReLU())).rows
        assert (row.neurons, row.alive, row.dim, row.clusters) == (6, 6, length, 5)
        np.testing.assert_allclose(row.similarity, c.cosine_similarity(rows), atol=1e-6)  # stored in float32 before


def test_convolutional_and_linear_layers_in_the_order_of_the_model():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    assert [(r.layer, r.neurons, r.dim) for r in c.report(model).rows] == [("0", 4, 10), ("3", 3, 17)]


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 4, 3, groups=2), nn.ConvTranspose2d(2, 3, 3)])
def test_convolutions_whose_rows_are_no_neurons_are_refused_by_name(layer):
    model = nn.ModuleDict({"body": nn.Sequential(nn.Linear(2, 2), layer)})
    with pytest.raises(ValueError, match=rf"without groups, none transposed; got body\.1: {type(layer).__name__}\("):
        c.report(model)


def test_the_threshold_reaches_ratio_and_clusters():
    """Two vectors of cosine 0.8."""
    for threshold, ratio, groups in [(0.7, 1, 1), (0.9, 0, 2)]:
        (row,) = c.report(made([[1, 0], [4, 3]]), threshold=threshold).rows
        assert (row.ratio, row.clusters) == (ratio, groups)


def test_dead_neurons_are_counted_and_left_out():
    rows = np.zeros((6, 4))
    rows[1], rows[3], rows[4] = [1, 2, 0, 1], [-2, -4, 0, -2], [0, 0, 3, 0]
    (row,) = c.report(made(rows)).rows
    assert (row.neurons, row.alive, row.clusters) == (6, 3, 2)
    assert row.ratio == pytest.approx(1 / 3) and row.mean == pytest.approx(1 / 3)
    assert row.limit == c.chance_limit(3, 4)


def test_a_neuron_with_nothing_but_a_bias_is_alive():
    (row,) = c.report(made([[0, 0, 1], [0, 0, -2], [0, 0, 0]])).rows
    assert row.alive == 2 and row.ratio == 1


def test_layer_without_bias():
    rows = [[1, 0, 0], [-1, 0, 0], [0, 1, 0]]
    with_bias = [[1, 0, 5], [-1, 0, 5], [0, 1, 5]]
    bare, biased = c.report(nn.Sequential(made(rows, bias=False), made(with_bias))).rows
    assert bare.dim == 3 and bare.ratio == pytest.approx(1 / 3) and biased.dim == 3
    assert biased.mean > bare.mean  # the large common bias is part of the direction


def test_one_input_and_no_bias_is_always_parallel():
    (row,) = c.report(made([[1], [-2], [3]], bias=False)).rows
    assert (row.dim, row.ratio, row.chance, row.limit, row.clusters) == (1, 1, 1, 1, 1)


@pytest.mark.parametrize("rows, alive", [(np.ones((1, 3)), 1), (np.zeros((4, 3)), 0), (np.eye(4, 3)[2:], 1)])
def test_no_pairs(rows, alive):
    found = c.report(made(rows))
    (row,) = found.rows
    assert row.alive == row.clusters == alive and np.isnan([row.mean, row.ratio, row.chance, row.limit]).all()
    assert str(found).splitlines()[1].split() == ["Linear", str(len(rows)), str(alive), "3", *"-----", str(alive)]


# ------------------------------------------------------------------------------------------- other people's modules
def test_transformer_layer():
    model = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16)
    rows = {row.layer: row for row in c.report(model).rows}
    assert list(rows) == ["self_attn.out_proj", "linear1", "linear2"]  # and not the joint query, key, value matrix
    assert (rows["linear1"].neurons, rows["linear1"].dim, rows["linear2"].dim) == (16, 9, 17)


def test_nested_and_shared_layers_are_named_and_counted_once():
    shared = nn.Linear(3, 3)
    model = nn.ModuleDict({"a": nn.Sequential(shared, nn.ReLU(), shared), "b": nn.ModuleList([nn.Linear(3, 2)])})
    assert [row.layer for row in c.report(model).rows] == ["a.0", "b.0"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_precisions(dtype):
    layer = filled(nn.Linear(1, 3, dtype=dtype), [[1, 2], [-2, -4], [2, -1]])
    (row,) = c.report(layer).rows
    assert row.ratio == pytest.approx(1 / 3) and row.clusters == 2


def test_the_model_stays_as_it_was():
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    c.report(model.train())
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# ------------------------------------------------------------------------------------------------ printing and drawing
def test_table_is_rounded_and_aligned():
    rows = np.random.default_rng(0).standard_normal((100, 3))
    lines = str(c.report(nn.Sequential(made(rows), nn.ReLU(), made(rows[:1, :2], bias=False)))).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines[:3]}) == 1
    assert lines[0].split()[:4] == ["layer", "neurons", "alive", "D"]
    number = c.condensed_ratio(c.cosine_similarity(rows))
    assert lines[1].split()[5:9] == ["(0.50)", f"{number:.2f}", "(0.05)", "(0.081)"]
    assert lines[3] == "ratio: share of pairs with |cos| > 0.95"


def test_small_rounding_does_not_change_the_table():
    rows = np.random.default_rng(0).standard_normal((50, 6))
    moved = rows * (1 + 1e-9 * np.random.default_rng(1).random((50, 6)))
    assert repr(c.report(made(rows))) == repr(c.report(made(moved)))


def test_figure_has_a_panel_for_each_layer_with_pairs():
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)), nn.Linear(4, 1))
    figure = fl.plots.report(c.report(model))
    shown = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in shown] == ["0", "1", "2", "3"]
    assert all(ax.images[0].get_clim() == (-1, 1) for ax in shown)
    plt.close(figure)


def test_figure_orders_each_layer():
    rows = np.outer([1, -1, 1, -1, 1], [1.0, 2.0, 3.0])
    figure = fl.plots.report(c.report(made(rows)))
    image = np.sign(figure.axes[0].images[0].get_array())
    assert np.count_nonzero(np.diff(image[0])) == 1  # one block of either sign
    plt.close(figure)


# ------------------------------------------------------------------------------------------------ chance
@pytest.mark.parametrize("dim", [2, 3, 6, 101])
def test_chance_mean_against_the_law_and_against_random_directions(dim):
    t = (np.arange(20_000) + 0.5) / 20_000
    assert c.chance_mean(dim) == pytest.approx(np.mean([c.chance_ratio(dim, s) for s in t]), rel=1e-4)
    found = c.mean_abs_cosine(c.cosine_similarity(np.random.default_rng(dim).standard_normal((500, dim))))
    assert found == pytest.approx(c.chance_mean(dim), rel=0.01)


def test_chance_mean_closed_forms():
    assert c.chance_mean(2) == pytest.approx(2 / np.pi) and c.chance_mean(3) == pytest.approx(0.5)


@pytest.mark.parametrize("dim, threshold", [(2, 0.95), (3, 0.8), (6, 0.6)])
def test_chance_limit_is_built_from_the_right_variance_and_holds(dim, threshold):
    """The spread over networks is binomial although the pairs are not independent all together."""
    m, networks = 12, 2_000
    draws = np.random.default_rng(0).standard_normal((networks, m, dim))
    ratios = np.array([c.condensed_ratio(c.cosine_similarity(rows), threshold) for rows in draws])
    p, limit = c.chance_ratio(dim, threshold), c.chance_limit(m, dim, threshold)
    assert ratios.std() == pytest.approx(np.sqrt(p * (1 - p) / 66), rel=0.1)
    assert limit == pytest.approx(p + np.sqrt(99 * p * (1 - p) / 66)) and (ratios >= limit).mean() <= 0.01


def test_chance_limit_never_exceeds_one():
    assert c.chance_limit(2, 2) == 1


# ------------------------------------------------------------------------------------------------ snapshots
def test_snapshot_vectors_of_a_run_and_of_an_ensemble():
    models = [fl.networks.initialise_gaussian(fl.networks.fully_connected([2, 3, 4, 1]), 1, k) for k in range(2)]
    x, y = np.random.default_rng(0).standard_normal((5, 2)), np.arange(5.0)
    layers = fl.networks.linear_layers(models[0])
    start = [c.input_vectors(layer) for layer in layers]
    many = fl.ensemble.train_ensemble(models, x, y, n_steps=4, snapshot_every=2)
    assert c.snapshot_vectors(many, 2).shape == (2, 3, 3) and c.snapshot_vectors(many, 2, 1).shape == (2, 4, 4)
    for k, layer in enumerate(layers):
        np.testing.assert_array_equal(c.snapshot_vectors(many, 0, k)[0], start[k])
        np.testing.assert_array_equal(c.snapshot_vectors(many, 4, k)[0], c.input_vectors(layer))
    one = fl.training.train(models[0], x, y, n_steps=1)
    np.testing.assert_array_equal(c.snapshot_vectors(one, 1, 2), c.input_vectors(layers[2]))  # it has no bias
    with pytest.raises(ValueError, match=r"step must be one of the recorded steps, \[0, 2, 4\]; got 3"):
        c.snapshot_vectors(many, 3)
    with pytest.raises(ValueError, match="layer must be a whole number >= 0 and <= 2; got 3"):
        c.snapshot_vectors(many, 2, 3)


# ------------------------------------------------------------------------------------------------ bad input
def broken(value):
    return nn.ModuleDict({"good": nn.Linear(2, 2), "bad": made([[1, value], [1, 1]])})


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: c.report(nn.Sequential(nn.Flatten(), nn.ReLU())), "model must be .* linear layer; got Sequential"),
        (lambda: c.report(nn.ReLU()), "model must be a torch.nn.Module with a linear layer; got ReLU"),
        (lambda: c.report({"0.weight": np.eye(2)}), "model must be a torch.nn.Module with a linear layer; got dict"),
        (lambda: c.report(np.eye(3)), "got ndarray"),
        (lambda: c.report(broken(np.nan)), "the parameters of layer 'bad' must hold finite numbers only; 1 of 4"),
        (lambda: c.report(broken(np.inf)), "the parameters of layer 'bad' must hold finite numbers only"),
        (lambda: c.report(nn.Linear(2, 2), threshold=1.2), "threshold must be a number >= 0 and <= 1; got 1.2"),
        (
            lambda: fl.plots.report(c.report(nn.Linear(2, 1))),
            r"report must have a layer with two alive neurons; got \[1\]",
        ),
        (lambda: c.chance_mean(1), "dim must be a whole number >= 2; got 1"),
        (lambda: c.chance_limit(1, 3), "width must be a whole number >= 2; got 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
