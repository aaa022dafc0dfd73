"""Measures of condensation on cases made by hand, and against chance."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine

from feature_learning import condensation as c
from feature_learning import networks

TINY = 1e-12  # rounding of a cosine: a few units of 1e-16, with room


def lines(sizes, dim, noise, rng):
    """Rows of random sign and length along orthogonal lines, `sizes` of them, shuffled; and which line each is on."""
    which = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    lengths = rng.choice([-1, 1], len(which)) * rng.uniform(0.1, 10, len(which))
    return (np.eye(dim)[which] + noise * rng.standard_normal((len(which), dim))) * lengths[:, None], which


# ------------------------------------------------------------------------------------------------- input vectors
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_input_vectors_with_and_without_bias(dtype):
    layer = torch.nn.Linear(3, 4, dtype=dtype)
    rows = c.input_vectors(layer)
    assert rows.shape == (4, 4) and rows.dtype == np.float64
    np.testing.assert_array_equal(rows[:, :3], layer.weight.detach().numpy())
    np.testing.assert_array_equal(rows[:, 3], layer.bias.detach().numpy())
    bare = torch.nn.Linear(3, 4, bias=False, dtype=dtype)
    np.testing.assert_array_equal(c.input_vectors(bare), bare.weight.detach().numpy())


def test_input_vectors_is_a_copy():
    model = networks.initialise_gaussian(networks.fully_connected([2, 3, 1]), 1, 0)
    layer = networks.linear_layers(model)[0]
    rows = c.input_vectors(layer)
    before = rows.copy()
    with torch.no_grad():
        layer.weight.zero_()
    np.testing.assert_array_equal(rows, before)


# ------------------------------------------------------------------------------------------------ similarity
def test_cosines_against_scipy():
    vectors = np.random.default_rng(0).standard_normal((7, 4))
    expected = [[1 - cosine(a, b) for b in vectors] for a in vectors]
    np.testing.assert_allclose(c.cosine_similarity(vectors), expected, atol=TINY)


def test_known_angles():
    similarity = c.cosine_similarity([[1, 0], [0, 2], [3, 3], [-4, 0]])
    half = np.sqrt(0.5)
    expected = [[1, 0, half, -1], [0, 1, half, 0], [half, half, 1, -half], [-1, 0, -half, 1]]
    np.testing.assert_allclose(similarity, expected, atol=TINY)


def test_zero_rows_are_left_out_and_the_order_is_kept():
    similarity = c.cosine_similarity([[0, 0], [1, 0], [0, 0], [1, 1], [0, -0.0]])
    np.testing.assert_allclose(similarity, [[1, np.sqrt(0.5)], [np.sqrt(0.5), 1]], atol=TINY)
    assert c.cosine_similarity(np.zeros((3, 2))).shape == (0, 0)


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e-30, 1, 1e30, 1e300])
def test_length_does_not_matter_however_small(scale):
    """Condensed runs start from weights of 1e-7 and less; squares of 1e-200 underflow unless rows are scaled first."""
    vectors = np.array([[1.0, 2.0], [-2.0, 1.0], [2.0, 4.0], [-1.0, -2.0]])
    expected = [[1, 0, 1, -1], [0, 1, 0, 0], [1, 0, 1, -1], [-1, 0, -1, 1]]
    # 1e-320 is a subnormal number that holds three to four digits
    np.testing.assert_allclose(c.cosine_similarity(vectors * scale), expected, atol=2e-3 if scale < 1e-300 else TINY)


def test_rows_of_very_different_length():
    similarity = c.cosine_similarity([[1e-200, 1e-200], [1e200, 1e200]])
    np.testing.assert_allclose(similarity, np.ones((2, 2)), atol=TINY)


def test_cosines_never_leave_their_range():
    vectors = np.random.default_rng(0).standard_normal((40, 1)) * np.full((1, 7), 0.1)
    assert np.abs(c.cosine_similarity(vectors)).max() <= 1


# ------------------------------------------------------------------------------------------------ ratio and mean
def check_opposite_groups_count(ratio):
    """Two groups that point in opposite directions lie on one line: the ratio is 1."""
    k = 10
    direction = np.array([1.0, -2.0, 0.5])
    similarity = c.cosine_similarity(np.outer(np.repeat([1, -1], k), direction))
    pairs = similarity[np.triu_indices(2 * k, 1)]
    assert pairs.mean() == pytest.approx(-1 / (2 * k - 1), abs=TINY)  # the plain average of cos shows next to nothing
    assert ratio(similarity) == 1


def test_two_opposite_groups():
    check_opposite_groups_count(c.condensed_ratio)
    similarity = c.cosine_similarity(np.outer([1, -1, 2, -3], [1.0, -2.0, 0.5]))
    assert c.mean_abs_cosine(similarity) == pytest.approx(1, abs=TINY)
    assert c.clusters(similarity).tolist() == [0, 0, 0, 0]


def test_mistake_of_counting_positive_cosines_only():
    """Source B's ratio, cos > 0.8 without the modulus, in place of ours: the check for opposite groups fails."""

    def positive_only(similarity):
        return (similarity[np.triu_indices(len(similarity), 1)] > 0.8).mean()

    with pytest.raises(AssertionError):
        check_opposite_groups_count(positive_only)


def test_threshold_is_strict_for_the_ratio_and_reads_only_pairs():
    similarity = np.array([[1, 0.95, -0.96], [0.95, 1, 0.2], [-0.96, 0.2, 1]])
    assert c.condensed_ratio(similarity) == pytest.approx(1 / 3)
    assert c.condensed_ratio(similarity, 0.1) == 1
    assert c.condensed_ratio(similarity, 0.949) == pytest.approx(2 / 3)
    assert c.condensed_ratio(similarity, 1) == 0
    assert c.condensed_ratio(np.eye(3), 0) == 0
    assert c.mean_abs_cosine(similarity) == pytest.approx((0.95 + 0.96 + 0.2) / 3)


@pytest.mark.parametrize("dim, threshold", [(2, 0.5), (3, 0.3), (6, 0.5), (6, 0.95), (50, 0.2)])
def test_chance_ratio_against_random_directions(dim, threshold):
    """Cosines of different pairs of random directions are independent pair by pair: the tolerance is binomial."""
    m = 500
    expected = c.chance_ratio(dim, threshold)
    found = c.condensed_ratio(c.cosine_similarity(np.random.default_rng(0).standard_normal((m, dim))), threshold)
    assert found == pytest.approx(expected, abs=5 * np.sqrt(expected * (1 - expected) / (m * (m - 1) / 2)))


@pytest.mark.parametrize("t", [0, 0.1, 0.5, 0.95, 1])
def test_chance_ratio_closed_forms(t):
    assert c.chance_ratio(2, t) == pytest.approx(2 / np.pi * np.arccos(t), abs=TINY)
    assert c.chance_ratio(3, t) == pytest.approx(1 - t, abs=TINY)


def test_chance_ratio_falls_with_dimension_and_threshold():
    assert np.all(np.diff([c.chance_ratio(d, 0.5) for d in range(2, 30)]) < 0)
    assert np.all(np.diff([c.chance_ratio(6, t) for t in np.linspace(0, 1, 30)]) < 0)


# ------------------------------------------------------------------------------------------------ clusters
def test_clusters_on_three_known_lines():
    vectors, which = lines([12, 7, 3], 5, 0.02, np.random.default_rng(0))
    np.testing.assert_array_equal(c.clusters(c.cosine_similarity(vectors)), which)  # largest first, as made


def test_clusters_of_spread_neurons_are_all_alone():
    assert sorted(c.clusters(np.eye(5))) == [0, 1, 2, 3, 4]


def test_clusters_hold_only_pairs_above_the_threshold():
    similarity = c.cosine_similarity(np.random.default_rng(0).standard_normal((60, 3)))
    for threshold in (0.5, 0.8, 0.95):
        labels = c.clusters(similarity, threshold)
        together = labels[:, None] == labels[None, :]
        assert np.abs(similarity[together]).min() >= threshold - TINY
        sizes = np.bincount(labels)
        assert np.all(sizes > 0) and np.all(np.diff(sizes) <= 0)  # no empty label, largest first


def test_cluster_threshold_is_inclusive():
    pair = np.array([[1, 0.75], [0.75, 1]])  # 1 - 0.75 is exact in binary
    assert c.clusters(pair, 0.75).tolist() == [0, 0]
    assert len(set(c.clusters(pair, 0.76))) == 2


@pytest.mark.parametrize("dim", [2, 7, 785])
def test_exact_multiples_share_a_cluster_at_threshold_one_in_spite_of_rounding(dim):
    """The cosine of two multiples of one vector is 1 apart from rounding, often just below."""
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.standard_normal((5, dim)), 4, axis=0) * rng.uniform(-10, 10, (20, 1))
    labels = c.clusters(c.cosine_similarity(vectors), 1)
    assert sorted(np.bincount(labels)) == [4] * 5 and all(len(set(four)) == 1 for four in labels.reshape(5, 4))


def test_chain_is_not_one_cluster():
    """Three directions 20 degrees apart: the outer two are 40 degrees apart and must not share a group."""
    angles = np.deg2rad([0, 20, 40])
    similarity = c.cosine_similarity(np.column_stack([np.cos(angles), np.sin(angles)]))
    assert len(set(c.clusters(similarity, np.cos(np.deg2rad(21))))) == 2


# ------------------------------------------------------------------------------------------------ order
def test_eigen_order_brings_blocks_together():
    rng = np.random.default_rng(0)
    which = rng.permutation(np.repeat([0, 1], [14, 6]))
    similarity = np.where(which[:, None] == which[None, :], 0.9, 0.1)
    np.fill_diagonal(similarity, 1)
    ordered = which[c.eigen_order(similarity)]
    assert np.count_nonzero(np.diff(ordered)) == 1


def test_eigen_order_puts_opposite_groups_at_the_ends():
    rng = np.random.default_rng(0)
    signs = rng.permutation(np.repeat([1, -1], [9, 5]))
    vectors = np.outer(signs, [1.0, 2.0, 3.0]) + 0.05 * rng.standard_normal((14, 3))
    order = c.eigen_order(c.cosine_similarity(vectors))
    assert sorted(order) == list(range(14))
    assert np.count_nonzero(np.diff(signs[order])) == 1


def test_eigen_order_does_not_depend_on_the_solvers_sign(monkeypatch):
    similarity = c.cosine_similarity(np.random.default_rng(0).standard_normal((8, 3)))
    order = c.eigen_order(similarity)
    solve = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda a: (solve(a)[0], -solve(a)[1]))
    np.testing.assert_array_equal(c.eigen_order(similarity), order)


# ------------------------------------------------------------------------------------------------ polar features
@pytest.mark.parametrize(
    "w, b, theta, amplitude",
    [
        (1, 0, 0, 1),
        (0, 1, np.pi / 2, 1),
        (-1, 0, np.pi, 1),
        (0, -1, -np.pi / 2, 1),
        (1, 1, np.pi / 4, np.sqrt(2)),
        (-1, 1, 3 * np.pi / 4, np.sqrt(2)),
        (-1, -1, -3 * np.pi / 4, np.sqrt(2)),
        (1, -1, -np.pi / 4, np.sqrt(2)),
        (3, 4, np.arccos(0.6), 5),
        (3, -4, -np.arccos(0.6), 5),
        (-1, -0.0, np.pi, 1),
        (1, -0.0, 0, 1),
        (0, 0, 0, 0),
        (3e-200, 4e-200, np.arccos(0.6), 5e-200),
    ],
)
def test_polar_features(w, b, theta, amplitude):
    found = c.polar_features([w], [b])
    assert found[0][0] == pytest.approx(theta, abs=TINY)
    assert found[1][0] == pytest.approx(amplitude, rel=TINY, abs=0)


def test_polar_features_formula():
    """theta = sign(b) arccos(w / A), off the axis b = 0."""
    w, b = np.random.default_rng(0).standard_normal((2, 100))
    theta, amplitude = c.polar_features(w, b)
    np.testing.assert_allclose(theta, np.sign(b) * np.arccos(w / np.sqrt(w**2 + b**2)), atol=1e-7)  # arccos near 1
    np.testing.assert_allclose(amplitude * np.cos(theta), w, atol=TINY)
    np.testing.assert_allclose(amplitude * np.sin(theta), b, atol=TINY)


def test_reversed_views_and_tensors_give_what_their_copies_give():
    vectors = np.random.default_rng(0).standard_normal((6, 3))[::-1, ::-1]
    similarity = c.cosine_similarity(vectors)
    np.testing.assert_array_equal(similarity, c.cosine_similarity(vectors.copy()))
    np.testing.assert_array_equal(similarity, c.cosine_similarity(torch.tensor(vectors.copy(), requires_grad=True)))
    for measure in (c.condensed_ratio, c.mean_abs_cosine, c.clusters, c.eigen_order):
        np.testing.assert_array_equal(measure(similarity[::-1, ::-1]), measure(similarity[::-1, ::-1].copy()))
    np.testing.assert_array_equal(*(c.polar_features(v, v)[0] for v in (vectors[:, 0], vectors[:, 0].copy())))


@pytest.mark.parametrize("width", [2, 3, 4, 12])
def test_random_directions_seldom_exceed_the_limit_of_chance(width):
    """Where the limit is clipped to 1, a fifth of all networks of two neurons reach it; none exceeds it."""
    draws = np.random.default_rng(0).standard_normal((1000, width, 2))
    ratios = np.array([c.condensed_ratio(c.cosine_similarity(rows)) for rows in draws])
    limit = c.chance_limit(width, 2)
    assert (ratios > limit).mean() <= 0.01
    if width == 2:
        assert limit == 1 and (ratios >= limit).mean() > 0.1


def test_small_integer_types_do_not_wrap():
    assert c.chance_limit(np.int8(100), np.int8(3)) == c.chance_limit(100, 3)


# ------------------------------------------------------------------------------------------------ bad input
EYE = np.eye(3)
NOT_FINITE = np.where(EYE > 0, np.nan, 0)
BAD = [
    (lambda: c.cosine_similarity([1.0, 2.0]), r"vectors must be a matrix, one row a neuron; got shape \(2,\)"),
    (lambda: c.cosine_similarity(np.zeros((0, 3))), r"vectors must not be empty; got shape \(0, 3\)"),
    (lambda: c.cosine_similarity(np.zeros((3, 0))), r"vectors must not be empty; got shape \(3, 0\)"),
    (lambda: c.cosine_similarity([[1.0, np.nan]]), "vectors must hold finite numbers only; 1 of 2 are NaN or infinite"),
    (lambda: c.cosine_similarity([[1.0, np.inf]]), "vectors must hold finite numbers only"),
    (lambda: c.chance_ratio(1), "dim must be a whole number >= 2; got 1"),
    (lambda: c.chance_ratio(2.5), "dim must be a whole number >= 2; got 2.5"),
    (lambda: c.chance_ratio(3, 1.5), "threshold must be a number >= 0 and <= 1; got 1.5"),
    (lambda: c.condensed_ratio(EYE, -0.1), "threshold must be a number >= 0 and <= 1; got -0.1"),
    (lambda: c.clusters(EYE, "0.9"), "threshold must be a number >= 0 and <= 1; got '0.9'"),
]
BAD += [
    (lambda f=f, a=a: f(a), message)
    for f in (c.condensed_ratio, c.mean_abs_cosine, c.clusters, c.eigen_order)
    for a, message in [
        (EYE[:2], r"similarity must be a square matrix of two neurons or more; got shape \(2, 3\)"),
        (EYE[:1, :1], r"similarity must be .* got shape \(1, 1\)"),
        (EYE[0], r"similarity must be .* got shape \(3,\)"),
        (np.zeros((0, 0)), r"similarity must not be empty; got shape \(0, 0\)"),
        (1.1 * EYE, "similarity must hold cosines, between -1 and 1; got a number of size 1.1"),
        (NOT_FINITE, "similarity must hold finite numbers only; 3 of 9 are NaN or infinite"),
    ]
]


BAD += [
    (lambda: c.polar_features([1, 2], [1]), r"weights and biases must have one shape; got \(2,\) and \(1,\)"),
    (lambda: c.polar_features([np.nan], [1]), "weights must hold finite numbers only; 1 of 1"),
    (lambda: c.polar_features([1], [np.inf]), "biases must hold finite numbers only; 1 of 1"),
    (lambda: c.cosine_similarity([[1, 2], [3]]), "vectors must be an array of numbers; got rows of unequal length"),
]
NOT_REAL = {
    "masked": (np.ma.masked_array(EYE, EYE == 0), "must have no masked entries; got 6"),
    "complex": (EYE * 1j, "must hold real numbers; got dtype complex128"),
    "dates": (EYE.astype("datetime64[D]"), "must hold real numbers; got dtype datetime64"),
    "strings": (EYE.astype(str), "must hold real numbers; got dtype <U"),
}
BAD += [
    (lambda f=f, a=a: f(a), message)
    for a, message in NOT_REAL.values()
    for f in (c.condensed_ratio, c.clusters, c.eigen_order, c.cosine_similarity, lambda a: c.polar_features(EYE, a))
]


@pytest.mark.parametrize("call, message", BAD)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_cosines_of_single_precision_are_cosines():
    almost = np.full((3, 3), 1 + 1e-7)
    assert c.condensed_ratio(almost) == c.mean_abs_cosine(almost) == 1 and set(c.clusters(almost)) == {0}


def test_a_general_eigen_solver_would_not_do():
    """Source A: on a matrix of rank 6 rounding gives complex pairs, and the leading eigenvalue has no fixed place."""
    first, complex_ones = [], 0
    for seed in range(50):
        similarity = c.cosine_similarity(np.random.default_rng(seed).standard_normal((50, 6)))
        values = np.linalg.eig(similarity)[0]
        complex_ones += np.iscomplexobj(values)
        first.append(np.argmax(values.real) == 0)
        assert np.isrealobj(np.linalg.eigh(similarity)[0])
    assert complex_ones > 0 and not all(first)
