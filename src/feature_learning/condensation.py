"""Measures of condensation: do the neurons of a layer point the same way?

A neuron's *input vector* is its row of incoming weights with its bias appended. Two neurons are condensed onto the same
line if the cosine between their input vectors is close to 1 or to -1, so |cos| is what is counted.
"""

from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.special import beta, betainc
from torch import nn

from ._checks import finite, number, real
from .networks import linear_layers

ROUNDING = 1e-14  # of the cosine of two exact copies, with room: 1e-15 is the most for up to 50,000 inputs


def input_vectors(layer):
    """Weights and biases of a linear layer, or of a convolution's channels, as NumPy rows, (width, fan_in + 1).

    Without bias one column less. A channel's weights are those of its window, input channel by input channel.
    """
    parts = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    return np.concatenate([p.detach().cpu().double().reshape(len(p), -1).numpy() for p in parts], axis=1)


def snapshot_vectors(history, step, layer=0):
    """Input vectors of one linear layer at a recorded step: weights and, if the layer has them, biases.

    Parameters
    ----------
    history : History
        From `train` or `train_ensemble`.
    step : int
        One of `history.snapshot_steps`.
    layer : int
        Which linear layer, counted from the input; the layers must have names ending in ".weight" and ".bias".

    Returns
    -------
    ndarray, shape (width, fan_in + 1), or (copies, width, fan_in + 1) from an ensemble; without bias one column less

    Raises
    ------
    ValueError
        If there is no such step or no such layer.
    """
    names = [name.removesuffix(".weight") for name in history.snapshots if name.endswith(".weight")]
    kept = np.asarray(history.snapshot_steps)
    if step not in kept:
        raise ValueError(f"step must be one of the recorded steps, {kept.tolist()}; got {step!r}")
    number("layer", layer, 0, len(names) - 1, integer=True)
    at = int(np.flatnonzero(kept == step)[0])
    weight, bias = (history.snapshots.get(f"{names[layer]}.{part}") for part in ("weight", "bias"))
    parts = [weight[at]] if bias is None else [weight[at], bias[at][..., None]]
    return np.concatenate(parts, axis=-1).astype(float)


def cosine_similarity(vectors):
    """Cosines between all pairs of rows; rows of zero norm are left out.

    Parameters
    ----------
    vectors : array_like, shape (m, D)

    Returns
    -------
    ndarray, shape (k, k)
        k is the number of rows that are not zero; the order is kept.

    Raises
    ------
    ValueError
        If `vectors` is not a matrix, is empty or holds anything but finite real numbers.
    """
    vectors = real("vectors", vectors)
    if vectors.ndim != 2:
        raise ValueError(f"vectors must be a matrix, one row a neuron; got shape {vectors.shape}")
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    alive = largest[:, 0] > 0
    scaled = vectors[alive] / largest[alive]  # so that squares of tiny weights do not underflow
    unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.clip(unit @ unit.T, -1, 1)


def _square(similarity):
    similarity = real("similarity", similarity)
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1] or len(similarity) < 2:
        raise ValueError(f"similarity must be a square matrix of two neurons or more; got shape {similarity.shape}")
    if (largest := np.abs(similarity).max()) > 1 + 1e-6:  # single precision may round that far
        raise ValueError(f"similarity must hold cosines, between -1 and 1; got a number of size {largest:.6g}")
    return np.clip(similarity, -1, 1)


def _pairs(similarity):
    return np.abs(_square(similarity)[np.triu_indices(len(similarity), 1)])


def condensed_ratio(similarity, threshold=0.95):
    """Share of pairs of neurons with |cos| above the threshold, between 0 and 1.

    Parameters
    ----------
    similarity : array_like, shape (m, m)
        Cosines, m >= 2.
    threshold : float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If the matrix is not square, has fewer than two rows or holds no cosines, or the threshold is out of range.

    Examples
    --------
    >>> similarity = cosine_similarity([[1, 2], [2, 4], [-1, -2], [2, -1]])
    >>> condensed_ratio(similarity)
    0.5
    """
    number("threshold", threshold, 0, 1)
    return float((_pairs(similarity) > threshold).mean())


def mean_abs_cosine(similarity):
    """Mean of |cos| over all pairs of neurons, between 0 and 1."""
    return float(_pairs(similarity).mean())


def chance_ratio(dim, threshold=0.95):
    """What `condensed_ratio` is expected to be for independent random directions in R^dim.

    The squared cosine follows a Beta(1/2, (dim - 1)/2) law (Muirhead 1982, theorem 1.5.7), so
    P(|cos| > t) = I_(1 - t^2)((dim - 1)/2, 1/2) with I the regularised incomplete beta function.

    Parameters
    ----------
    dim : int
        Length of an input vector (bias included), at least 2.
    threshold : float
        t, between 0 and 1.
    """
    dim, threshold = number("dim", dim, 2, integer=True), number("threshold", threshold, 0, 1)
    return float(betainc((dim - 1) / 2, 0.5, 1 - threshold**2))


def chance_mean(dim):
    """What `mean_abs_cosine` is expected to be for independent random directions in R^dim.

    E|cos| = 2 / ((dim - 1) B(1/2, (dim - 1)/2)), the mean of the law in `chance_ratio`; about sqrt(2 / (pi dim)).
    """
    dim = number("dim", dim, 2, integer=True)
    return float(2 / (dim - 1) / beta(0.5, (dim - 1) / 2))


def chance_limit(width, dim, threshold=0.95):
    """A ratio that random directions exceed in at most one network of a hundred, for any width.

    Of independent uniform directions, the events |cos| > t of any two pairs are independent, so the ratio's variance is
    exactly p (1 - p) / pairs with p = `chance_ratio`; Cantelli's inequality P(ratio - p >= k sd) <= 1 / (1 + k^2) then
    holds whatever else the ratio's law is. No claim is made below the limit, nor at it: for few
    neurons it is clipped to 1, which chance may well reach.

    `width` is the number of neurons, at least 2; `dim` and `threshold` are those of `chance_ratio`.
    """
    p, width = chance_ratio(dim, threshold), number("width", width, 2, integer=True)
    return min(1.0, p + np.sqrt(99 * p * (1 - p) / (width * (width - 1) / 2)))


def clusters(similarity, threshold=0.95):
    """Group neurons into lines by hierarchical clustering (complete linkage on 1 - |cos|).

    Any two neurons of one group have |cos| of at least `threshold`, apart from rounding. Errors: as `condensed_ratio`.

    Parameters
    ----------
    similarity : array_like, shape (m, m)
    threshold : float
        Between 0 and 1.

    Returns
    -------
    ndarray of int, shape (m,)
        Labels 0, 1, ..., the largest group first.

    Examples
    --------
    >>> clusters(cosine_similarity([[2, -1], [1, 2], [2, 4], [-1, -2]])).tolist()
    [1, 0, 0, 0]
    """
    number("threshold", threshold, 0, 1)
    distance = 1 - _pairs(similarity)
    labels = fcluster(linkage(distance, "complete"), 1 - threshold + ROUNDING, "distance") - 1
    order = np.argsort(-np.bincount(labels), kind="stable")
    return np.argsort(order)[labels]


def eigen_order(similarity):
    """Order neurons by their entry in the leading eigenvector of the similarity matrix.

    Neurons that point the same way end up side by side, opposite ones at the two ends.

    Parameters
    ----------
    similarity : array_like, shape (m, m)
        Symmetric; the symmetric solver is used.

    Returns
    -------
    ndarray of int, shape (m,)
    """
    leading = np.linalg.eigh(_square(similarity))[1][:, -1]
    leading = leading * np.sign(leading[np.argmax(np.abs(leading))])  # an eigenvector's sign is arbitrary: fix it
    return np.argsort(leading, kind="stable")


def polar_features(weights, biases):
    """Angle and amplitude of neurons with one-dimensional input.

    theta = sign(b) arccos(w / A) in (-pi, pi] and A = sqrt(w^2 + b^2): Xu, Zhang and Zhou (2025), figure 1.

    Parameters
    ----------
    weights, biases : array_like, shape (m,)
        Or any other shape that both have; else ValueError.

    Returns
    -------
    theta, amplitude : ndarray, shape (m,)
    """
    weights, biases = real("weights", weights), real("biases", biases)
    if weights.shape != biases.shape:
        raise ValueError(f"weights and biases must have one shape; got {weights.shape} and {biases.shape}")
    return np.arctan2(biases + 0.0, weights), np.hypot(weights, biases)


@dataclass(frozen=True, eq=False)
class LayerReport:
    """What `report` measures in one layer; NaN for means and ratios if fewer than two neurons are alive."""

    layer: str  #: its name in the model
    neurons: int  #: outputs of the layer
    alive: int  #: how many of them have an input vector that is not zero
    dim: int  #: that vector's length
    mean: float  #: mean |cos| over pairs of alive neurons
    chance_mean: float  #: what random directions would give
    ratio: float  #: share of pairs with |cos| above the threshold
    chance: float  #: what random directions would give
    limit: float  #: what they exceed in at most one network of a hundred (`chance_limit`)
    clusters: int  #: number of groups that `clusters` finds
    similarity: np.ndarray  #: the cosines, shape (alive, alive)


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """The rows of `report`, one `LayerReport` for each layer; prints as a table with rounded numbers."""

    rows: tuple
    threshold: float

    def __repr__(self):
        head = ["layer", "neurons", "alive", "D", "mean |cos|", "(chance)", "ratio", "(chance)", "(limit)", "clusters"]
        table = [head]
        for r in self.rows:
            numbers = f"{r.mean:.2f} ({r.chance_mean:.2f}) {r.ratio:.2f} ({r.chance:.2g}) ({r.limit:.2g})".split()
            numbers = ["-"] * 5 if np.isnan(r.ratio) else numbers
            table.append([r.layer, *map(str, (r.neurons, r.alive, r.dim)), *numbers, str(r.clusters)])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table)
        return "\n".join([*lines, f"ratio: share of pairs with |cos| > {self.threshold:g}"])


def report(model, *, threshold=0.95):
    """Measure the condensation of every linear and convolutional layer, next to what chance alone would give.

    A channel of a convolution counts as a neuron whose input vector holds the weights of its window and its bias. In
    a convolution with groups the windows of two channels may look at different inputs, and the weights of a transposed
    one are laid out by input: neither is measured, and a model that holds one is refused by name.

    A linear layer is any `torch.nn.Linear`, subclasses included: in a `TransformerEncoderLayer` these are "linear1",
    "linear2" and the attention's output projection "self_attn.out_proj". The attention's joint query, key and value
    matrix is a bare parameter and no layer; it is left out. A layer used twice is counted once. To leave a layer out,
    pass the submodule that does not hold it: the cost grows with the square of a layer's width.

    Alive means: the input vector (weights and bias) is not zero. A ReLU neuron that no example switches on has a
    direction like any other and counts; only data could tell.

    Parameters
    ----------
    model : torch.nn.Module
        It is not changed.
    threshold : float
        Between 0 and 1.

    Returns
    -------
    Report
        `rows`, one `LayerReport` a layer, in the order of `model.named_modules()`. Draw it with `plots.report`.

    Raises
    ------
    ValueError
        If `model` is no module, has no linear or convolutional layer or one with groups or transposed, if a weight is
        not finite (the message names the layer), or if the threshold is out of range.

    Examples
    --------
    >>> from feature_learning import networks
    >>> model = networks.initialise_gaussian(networks.fully_connected([2, 50, 1]), 1, rng=0)
    >>> report(model)
    layer  neurons  alive   D  mean |cos|  (chance)  ratio  (chance)  (limit)  clusters
    0           50     50   3        0.49    (0.50)   0.04    (0.05)   (0.11)        25
    2            1      1  50           -         -      -         -        -         1
    ratio: share of pairs with |cos| > 0.95
    """
    number("threshold", threshold, 0, 1)
    layers, rows = linear_layers(model, (nn.Linear, nn.modules.conv._ConvNd)), []
    names = {module: name or type(module).__name__ for name, module in model.named_modules()}
    if odd := [m for m in layers if getattr(m, "groups", 1) > 1 or getattr(m, "transposed", False)]:
        raise ValueError(f"model must have convolutions without groups, none transposed; got {names[odd[0]]}: {odd[0]}")
    for layer in layers:
        vectors = finite(f"the parameters of layer {names[layer]!r}", input_vectors(layer))
        similarity, dim = cosine_similarity(vectors), vectors.shape[1]
        alive, values, groups = len(similarity), [np.nan] * 5, len(similarity)
        if alive > 1:
            chance = [1.0] * 3  # on a line, every two vectors are parallel
            if dim > 1:
                chance = chance_mean(dim), chance_ratio(dim, threshold), chance_limit(alive, dim, threshold)
            values = [mean_abs_cosine(similarity), chance[0], condensed_ratio(similarity, threshold), *chance[1:]]
            groups = int(clusters(similarity, threshold).max()) + 1
        rows.append(LayerReport(names[layer], len(vectors), alive, dim, *values, groups, similarity))
    return Report(tuple(rows), threshold)
