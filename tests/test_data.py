"""The data sets: shapes, ranges, formulas, seeds, refusals."""

import re

import numpy as np
import pytest

from feature_learning import data

DRAWN = {
    "sine_sum": lambda rng: data.sine_sum(50, rng),
    "noisy_sine": lambda rng: data.noisy_sine(50, rng),
    "sparse_parity": lambda rng: data.sparse_parity(50, 6, 3, rng),
}


def test_sine_sum_formula_and_box():
    x, y = data.sine_sum(2000, 0)
    assert x.shape == (2000, 5) and y.shape == (2000,) and x.dtype == y.dtype == np.float64
    assert -4 <= x.min() and x.max() <= 2
    # the extremes of 10,000 uniform draws lie within 6 * 10/10,000 of the box's ends but for a chance of exp(-10)
    assert x.min() < -4 + 0.006 and x.max() > 2 - 0.006
    by_hand = [sum(3.5 * np.sin(5 * a + 1) for a in row) for row in x]
    np.testing.assert_allclose(y, by_hand, atol=1e-12)  # rounding of a sum of five terms below 3.5


def test_sine_sum_reads_its_range_and_dimension():
    x, _ = data.sine_sum(500, 0, dim=2, low=10, high=11)
    assert x.shape == (500, 2) and 10 <= x.min() and x.max() <= 11


def test_noisy_sine():
    x, y = data.noisy_sine(20_000, 0)
    assert x.shape == (20_000, 1) and 0 <= x.min() and x.max() < 1
    noise = y - np.sin(2 * np.pi * x[:, 0])
    # the estimate of a standard deviation from n draws has a relative error of 1/sqrt(2n) = 0.5 %: five of them
    assert noise.std() == pytest.approx(0.1, rel=5 / np.sqrt(2 * len(x)))
    x, y = data.noisy_sine(10, 0, noise=0)
    np.testing.assert_array_equal(y, np.sin(2 * np.pi * x[:, 0]))


def test_relu_teacher_against_the_four_neurons():
    x, y = data.relu_teacher(201)
    t = x[:, 0]

    def s(v):
        return np.maximum(v, 0)

    np.testing.assert_allclose(t, np.linspace(-1, 1, 201), rtol=0)
    by_hand = -s(t) + s(2 * (t + 0.3)) - s(1.5 * (t - 0.4)) + s(0.5 * (t - 0.8))
    np.testing.assert_allclose(y, by_hand, atol=1e-14)  # rounding of numbers below 3


def test_relu_teacher_kinks():
    """Its slope is 0, 2, 1, -0.5, 0 between -0.3, 0, 0.4 and 0.8."""
    x, y = data.relu_teacher(2001)
    slope = np.diff(y) / np.diff(x[:, 0])
    middle = (x[:-1, 0] + x[1:, 0]) / 2
    for low, high, expected in [(-1, -0.3, 0), (-0.3, 0, 2), (0, 0.4, 1), (0.4, 0.8, -0.5), (0.8, 1, 0)]:
        inside = (middle > low) & (middle < high)
        np.testing.assert_allclose(slope[inside], expected, atol=1e-11)  # rounding 1e-16 over a step of 1e-3, and some


@pytest.mark.parametrize("d, k", [(1, 1), (2, 2), (5, 3), (20, 2), (4, 4)])
def test_sparse_parity(d, k):
    z, y = data.sparse_parity(400, d, k, 1)
    assert z.shape == (400, d) and y.shape == (400,) and y.dtype == np.float64
    np.testing.assert_allclose(np.abs(z), 1 / np.sqrt(d), rtol=1e-15)  # one division
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-14)  # rounding of a sum of d squares
    np.testing.assert_array_equal(y, np.sign(np.prod(np.sign(z[:, :k]), axis=1)))
    # signs are fair: 400 d draws, five standard deviations
    assert abs(np.sign(z).mean()) < 5 / np.sqrt(400 * d)


def test_parity_of_a_later_coordinate_does_not_matter():
    z, y = data.sparse_parity(4000, 4, 2, 0)
    assert abs(np.mean(y * np.sign(z[:, 2]))) < 5 / np.sqrt(4000)  # five standard deviations of a fair coin's mean


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_same_seed_same_data_and_a_generator_moves_on(draw):
    for a, b in zip(draw(3), draw(np.random.default_rng(3)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(draw(3)[0], draw(4)[0])
    rng = np.random.default_rng(3)
    assert not np.array_equal(draw(rng)[0], draw(rng)[0])


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_global_random_state_is_neither_read_nor_written(draw):
    before = np.random.get_state()
    draw(0)
    after = np.random.get_state()
    assert before[2:] == after[2:] and np.array_equal(before[1], after[1])


BAD = [
    (lambda: data.sine_sum(0, 0), "n must be a whole number >= 1; got 0"),
    (lambda: data.sine_sum(-3, 0), "n must be a whole number >= 1; got -3"),
    (lambda: data.sine_sum(2.5, 0), "n must be a whole number >= 1; got 2.5"),
    (lambda: data.sine_sum(True, 0), "n must be a whole number >= 1; got True"),
    (lambda: data.sine_sum("5", 0), "n must be a whole number >= 1; got '5'"),
    (lambda: data.sine_sum(None, 0), "n must be a whole number >= 1; got None"),
    (lambda: data.sine_sum(5, 0, dim=0), "dim must be a whole number >= 1; got 0"),
    (lambda: data.sine_sum(5, 0, low=2, high=2), "high must be a number > 2; got 2"),
    (lambda: data.sine_sum(5, 0, low=float("nan")), "low must be a number; got nan"),
    (lambda: data.sine_sum(5, 0, high=float("inf")), "high must be a number > -4.0; got inf"),
    (
        lambda: data.sine_sum(5, 0, low=-1e308, high=1e308),
        r"low and high must lie between -1e300 and 1e300; got -1e\+308",
    ),
    (lambda: data.sine_sum(5, 0, low=0, high=1e308), r"low and high must lie between -1e300 and 1e300; got 0.0 and 1e"),
    (lambda: data.sine_sum(5, "seed"), "rng must be a numpy.random.Generator, a whole number >= 0 or None; got 'seed'"),
    (lambda: data.sine_sum(5, -1), "rng must be .* got -1"),
    (lambda: data.noisy_sine(0, 0), "n must be a whole number >= 1; got 0"),
    (lambda: data.noisy_sine(5, 0, noise=-0.1), "noise must be a number >= 0; got -0.1"),
    (lambda: data.noisy_sine(5, 1.5), "rng must be .* got 1.5"),
    (lambda: data.relu_teacher(1), "n must be a whole number >= 2; got 1"),
    (lambda: data.sparse_parity(0, 3, 2, 0), "n must be a whole number >= 1; got 0"),
    (lambda: data.sparse_parity(5, 0, 0, 0), "d must be a whole number >= 1; got 0"),
    (lambda: data.sparse_parity(5, 3, 0, 0), "k must be a whole number >= 1 and <= 3; got 0"),
    (lambda: data.sparse_parity(5, 3, 4, 0), "k must be a whole number >= 1 and <= 3; got 4"),
    (lambda: data.sparse_parity(5, 3, 2, True), "rng must be .* got True"),
]


@pytest.mark.parametrize("call, message", BAD, ids=[m for _, m in BAD])
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_input_leaves_the_generator_where_it_was():
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    with pytest.raises(ValueError, match="k must be"):
        data.sparse_parity(5, 3, 4, rng)
    assert rng.bit_generator.state == before


# ------------------------------------------------------------------------------------------------ a bias as a weight
@pytest.mark.parametrize("shape", [(3, 2), (1, 1), (4, 3, 2), (3, 0)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_with_bias_appends_ones_and_keeps_the_type(shape, dtype):
    inputs = np.arange(np.prod(shape), dtype=dtype).reshape(shape)[..., ::-1, :]
    extended = data.with_bias(inputs)
    assert extended.dtype == dtype and extended.shape == (*shape[:-1], shape[-1] + 1)
    np.testing.assert_array_equal(extended[..., :-1], inputs)
    np.testing.assert_array_equal(extended[..., -1], 1)


def test_with_bias_takes_lists():
    assert data.with_bias([[1, 2], [3, 4]]).tolist() == [[1, 2, 1], [3, 4, 1]]


@pytest.mark.parametrize(
    "inputs",
    [
        np.ma.masked_equal(np.eye(2), 0),
        1j * np.eye(2),
        np.eye(2).astype("datetime64[D]"),
        np.eye(2).astype(str),
        np.array([[None]]),
    ],
    ids=["masked", "complex", "dates", "strings", "objects"],
)
def test_with_bias_wants_numbers(inputs):
    got = re.escape(f"{inputs.dtype}, shape {inputs.shape}")
    with pytest.raises(
        ValueError, match=rf"inputs must be real numbers of shape \(\.\.\., n, d\), none masked; got {got}"
    ):
        data.with_bias(inputs)


def test_with_bias_wants_rows():
    with pytest.raises(ValueError, match=r"inputs must be .* of shape \(\.\.\., n, d\), .* got float64, shape \(3,\)"):
        data.with_bias(np.ones(3))
