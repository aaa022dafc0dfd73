r"""Kernels of wide two-layer ReLU networks, in closed form.

The network has width m and the NTK's scaling: with s = max(0, .) and an input that carries its bias as one more
coordinate, x' = (x, bias),

    f(x) = m^(-1/2) sum_k a_k s(<w_k, x'>),      a_k and all entries of w_k start as N(0, 1).

Its tangent kernel is K(x, z) = <grad f(x), grad f(z)>, the gradient taken in all a_k and w_k (Jacot, Gabriel and
Hongler 2018). As m grows it tends to a sum of two arc-cosine kernels (Cho and Saul 2009), one for each layer:

    K(x, z) = E[s(<w, x'>) s(<w, z'>)] + <x', z'> P(<w, x'> > 0 and <w, z'> > 0)
            = k_1(x', z') / 2 + <x', z'> k_0(x', z') / 2.

The first term alone is the kernel of random features: of a network whose output weights only are trained.
"""

import numpy as np

from ._checks import choice, number, real

ANGULAR = {
    "step": lambda t, c: np.pi - t,
    "relu": lambda t, c: np.sin(t) + (np.pi - t) * c,
    "square": lambda t, c: 3 * np.sin(t) * c + (np.pi - t) * (1 + 2 * c**2),
}


def _inputs(x, z):
    x = real("x", x)
    z = x if z is None else real("z", z)
    if x.ndim != 2 or z.ndim != 2 or x.shape[1] != z.shape[1]:
        raise ValueError(f"x and z must have shapes (n, d) and (l, d) with the same d; got {x.shape} and {z.shape}")
    return x, z


def _with_bias(x, z, bias):
    bias = number("bias", bias, 0)
    return (np.pad(part, ((0, 0), (0, 1)), constant_values=bias) for part in _inputs(x, z))


def _scaled(x):
    """Rows divided by powers of two near their largest entries, so that squares stay in range, and the powers."""
    powers = np.frexp(np.abs(x).max(axis=1))[1]
    return np.ldexp(x, -powers[:, None]), powers


def _angles(x, z, power=1):
    """Products of lengths, to a power; angles and their cosines."""
    (x, p), (z, q) = _scaled(x), _scaled(z)
    norms = np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(z, axis=1))
    cosine = np.divide(x @ z.T, norms, out=np.zeros_like(norms), where=norms > 0).clip(-1, 1)
    cosine[cosine > 1 - 1e-14] = 1
    with np.errstate(over="ignore", under="ignore"):
        sizes = np.ldexp(norms, p[:, None] + q) ** power
    if sizes.max() > 1e300:
        raise ValueError(f"x and z must give kernels below 1e300; got rows as large as 2^{p.max()} and 2^{q.max()}")
    return sizes, np.arccos(cosine), cosine


def arc_cosine(x, z=None, kind="relu"):
    r"""The arc-cosine kernel k_p(x, z) = 2 E[g(<w, x>) g(<w, z>)] with w ~ N(0, I) and g(t) = max(0, t)^p.

    k_p = |x|^p |z|^p J_p(theta) / pi with theta the angle between x and z: Cho and Saul (2009).

    Parameters
    ----------
    x : array_like, shape (n, d)
    z : array_like, shape (l, d), optional
        x itself unless given.
    kind : {"step", "relu", "square"}
        p = 0, 1, 2. A step is 1 for positive numbers, else 0.

    Returns
    -------
    ndarray, shape (n, l)
        An angle below about 1e-7 counts as 0, so that equal inputs get the exact value in spite of rounding.

    Raises
    ------
    ValueError
        If x or z is empty, not finite, too large or not two-dimensional, if they do not fit, or kind is unknown.
    """
    power = list(ANGULAR).index(choice("kind", kind, ANGULAR))
    norms, theta, cosine = _angles(*_inputs(x, z), power)
    return norms * ANGULAR[kind](theta, cosine) / np.pi


def random_features_kernel(x, z=None, *, bias=1.0):
    """The infinitely wide network's kernel if only its output weights are trained: E[s(<w, x'>) s(<w, z'>)].

    Parameters and errors as for `ntk`.

    Returns
    -------
    ndarray, shape (n, l)
    """
    return arc_cosine(*_with_bias(x, z, bias)) / 2


def ntk(x, z=None, *, bias=1.0):
    """The tangent kernel of the infinitely wide two-layer ReLU network, both layers trained; K(x, x) = |x|^2 + bias^2.

    Parameters
    ----------
    x : array_like, shape (n, d)
    z : array_like, shape (l, d), optional
        x itself unless given.
    bias : float
        The constant coordinate appended to every input, at least 0; 0 is a network without biases.

    Returns
    -------
    ndarray, shape (n, l)
        For scikit-learn's `kernel="precomputed"`; `SVC` also takes the function itself as its `kernel`.

    Raises
    ------
    ValueError
        If x or z is empty, not finite, too large or not two-dimensional, if they do not fit, or if bias is negative.

    Examples
    --------
    >>> ntk([[3, 4], [0, 0]]).round(3).tolist()
    [[26.0, 1.359], [1.359, 1.0]]
    """
    x, z = _with_bias(x, z, bias)
    norms, theta, cosine = _angles(x, z)
    return norms * (ANGULAR["relu"](theta, cosine) + cosine * ANGULAR["step"](theta, cosine)) / (2 * np.pi)
