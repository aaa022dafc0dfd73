"""Data: a sum of sines, a noisy sine, a one-dimensional ReLU teacher, sparse parities.

Every one of them returns inputs of shape (n, dim) and targets of shape (n,), in float64. Random ones take `rng`, a
`numpy.random.Generator` or an int seed; no global random state is read or written. `with_bias` makes a bias one more
weight.
"""

import numpy as np

from ._checks import generator, number


def sine_sum(n, rng, *, dim=5, low=-4.0, high=2.0):
    r"""Draw inputs from a box and the target f(x) = sum_k 3.5 sin(5 x_k + 1).

    The regression task on which Zhou et al. (2022, section 4) watch neurons condense.

    Parameters
    ----------
    n : int
        Number of points, at least 1.
    rng : numpy.random.Generator or int
        Source of randomness.
    dim : int
        Input dimension d.
    low, high : float
        The box [low, high]^d.

    Returns
    -------
    x : ndarray, shape (n, dim)
    y : ndarray, shape (n,)

    Raises
    ------
    ValueError
        If n or dim is not a whole number >= 1, if low >= high, or if the box reaches beyond 1e300.
    """
    n, dim = number("n", n, 1, integer=True), number("dim", dim, 1, integer=True)
    low, high = number("low", low), number("high", high, low, open_low=True)
    if max(-low, high) > 1e300:
        raise ValueError(f"low and high must lie between -1e300 and 1e300; got {low} and {high}")
    x = generator("rng", rng).uniform(low, high, (n, dim))
    return x, 3.5 * np.sin(5 * x + 1).sum(axis=1)


def noisy_sine(n, rng, *, noise=0.1):
    """Draw x uniformly from [0, 1] and y = sin(2 pi x) + noise * standard normal.

    Parameters
    ----------
    n : int
        Number of points, at least 1.
    rng : numpy.random.Generator or int
        Source of randomness.
    noise : float
        Standard deviation of the noise, at least 0.

    Returns
    -------
    x : ndarray, shape (n, 1)
    y : ndarray, shape (n,)

    Raises
    ------
    ValueError
        If n < 1 or noise < 0.
    """
    number("n", n, 1, integer=True)
    number("noise", noise, 0)
    rng = generator("rng", rng)
    x = rng.random((n, 1))
    return x, np.sin(2 * np.pi * x[:, 0]) + noise * rng.standard_normal(n)


def relu_teacher(n):
    """Evenly spaced points on [-1, 1] and a target made of four ReLU neurons.

    f(x) = -s(x) + s(2 (x + 0.3)) - s(1.5 (x - 0.4)) + s(0.5 (x - 0.8)) with s = max(0, .): Xu, Zhang and Zhou
    (2025), figure 1.

    Parameters
    ----------
    n : int
        Number of points, at least 2.

    Returns
    -------
    x : ndarray, shape (n, 1)
    y : ndarray, shape (n,)

    Raises
    ------
    ValueError
        If n < 2.

    Examples
    --------
    >>> x, y = relu_teacher(5)
    >>> [(float(a), round(float(b), 2)) for a, b in zip(x[:, 0], y)]
    [(-1.0, 0.0), (-0.5, 0.0), (0.0, 0.6), (0.5, 0.95), (1.0, 0.8)]
    """
    number("n", n, 2, integer=True)
    x = np.linspace(-1, 1, n)
    kinks = [(-1, 1, 0), (1, 2, -0.3), (-1, 1.5, 0.4), (1, 0.5, 0.8)]
    return x[:, None], sum(sign * np.maximum(slope * (x - at), 0) for sign, slope, at in kinks)


def sparse_parity(n, d, k, rng):
    r"""Draw the k-sparse parity problem; k = 2 is XOR.

    Inputs z are uniform on {-1/sqrt(d), +1/sqrt(d)}^d, so |z| = 1; the label is the sign of z_1 ... z_k (Suzuki, Wu,
    Oko and Nitanda 2023, section 4).

    Parameters
    ----------
    n : int
        Number of points, at least 1.
    d : int
        Dimension, at least 1.
    k : int
        How many coordinates matter, from 1 to d.
    rng : numpy.random.Generator or int
        Source of randomness.

    Returns
    -------
    z : ndarray, shape (n, d)
    y : ndarray, shape (n,)
        Labels -1.0 and 1.0.

    Raises
    ------
    ValueError
        If n or d is below 1, or k is not in 1..d.

    Examples
    --------
    The label is the product of the first two signs:

    >>> z, y = sparse_parity(3, 4, 2, rng=0)
    >>> z.tolist()
    [[0.5, 0.5, 0.5, -0.5], [-0.5, -0.5, -0.5, -0.5], [-0.5, 0.5, 0.5, 0.5]]
    >>> y.tolist()
    [1.0, 1.0, -1.0]
    """
    number("n", n, 1, integer=True)
    number("d", d, 1, integer=True)
    number("k", k, 1, d, integer=True)
    signs = 2.0 * generator("rng", rng).integers(0, 2, (n, d)) - 1
    return signs / np.sqrt(d), signs[:, :k].prod(axis=1)


def with_bias(inputs):
    """Append a column of ones, so that a bias is one more weight.

    Parameters
    ----------
    inputs : array, shape (..., n, d)
        Of NumPy or CuPy.

    Returns
    -------
    array, shape (..., n, d + 1)
        Of the same library and dtype.

    Raises
    ------
    ValueError
        If `inputs` has fewer than two dimensions, masked entries, or entries that are no real numbers.
    """
    inputs = inputs if hasattr(inputs, "__array_function__") else np.asarray(inputs)
    if inputs.ndim < 2 or inputs.dtype.kind not in "biuf" or np.ma.is_masked(inputs):
        got = f"{inputs.dtype}, shape {inputs.shape}" + ", masked" * np.ma.is_masked(inputs)
        raise ValueError(f"inputs must be real numbers of shape (..., n, d), none masked; got {got}")
    return np.concatenate([inputs, np.ones_like(inputs, shape=(*inputs.shape[:-1], 1))], axis=-1)
