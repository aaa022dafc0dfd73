"""Merging of condensed ReLU neurons, with a bound on what that changes."""

import copy
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from ._checks import finite, number
from .condensation import clusters, cosine_similarity, input_vectors
from .networks import Activation


def _relu(layer):
    return isinstance(layer, nn.ReLU) or (isinstance(layer, Activation) and layer.name == "relu")


def _plain(layer):
    """Whether a layer computes what its class says: its class's own forward, on weights that are its parameters."""
    kind = next(kind for kind in (nn.Linear, nn.ReLU, Activation) if isinstance(layer, kind))
    return type(layer).forward is kind.forward and {name for name, _ in layer.named_parameters()} <= {"weight", "bias"}


def _norm(array, axis):
    """Norms along an axis, whose squares must not underflow."""
    largest = np.maximum(np.abs(array).max(axis=axis, keepdims=True), np.finfo(float).tiny)
    return np.linalg.norm(array / largest, axis=axis) * largest.squeeze(axis)


def _gain(row, fan_in):
    """Largest factor by which a linear layer stretches (h, 1): the norm of its matrix with the row (0, ..., 0, 1)."""
    matrix = np.zeros((len(row) + 1, fan_in + 1))
    matrix[:-1, : row.shape[1]] = row
    matrix[-1, -1] = 1
    return np.linalg.norm(matrix, 2)


def _merge_layer(u, a, fan_in, from_relu, threshold):
    """New input vectors, new output weights, and how much the layer's answer changes per unit of |(h, 1)|."""
    w, b = u[:, :fan_in], u[:, fan_in:]
    alive = (b > 0).any(axis=1) | ((w > 0) if from_relu else (w != 0)).any(axis=1)
    size = _norm(a, 0) * _norm(u, 1)
    tiny = (size <= 1e-150) | (_norm(u, 1) <= 1e-140)  # squares underflow: dropped, and charged
    dropped, alive = size[alive & tiny].sum(), alive & ~tiny
    if not alive.any():
        return 0 * u[:1], 0 * a[:, :1], dropped  # torch wants at least one neuron
    u, a = u[alive], a[:, alive]
    closeness = (1 + cosine_similarity(u)) / 2  # 0 for opposite neurons, which `clusters` would put on one line
    label = clusters(closeness, (1 + threshold) / 2) if len(u) > 1 else np.zeros(1, dtype=int)
    member = np.eye(label.max() + 1)[label].T
    norm = np.linalg.norm(u, axis=1)
    v = member @ (np.linalg.norm(a, axis=0)[:, None] * u)
    v *= (np.sqrt(member @ norm**2) / np.linalg.norm(v, axis=1))[:, None]
    ratio = norm / np.linalg.norm(v, axis=1)[label]
    moved = u - ratio[:, None] * v[label]
    change = np.linalg.norm(a, axis=0) @ np.linalg.norm(moved, axis=1)
    return v, (a * ratio) @ member.T, min(change, np.linalg.norm(a, 2) * np.linalg.norm(moved, 2)) + dropped


def merge(model, *, threshold=0.999):
    r"""Replace each group of ReLU neurons that point the same way by one neuron, and bound what that changes.

    Layer by layer, from the input: neurons that can never be active or that nothing reads are dropped; the others are
    grouped by `clusters` on the cosines of their input vectors u_i = (w_i, b_i), so that every pair of a group has a
    cosine of at least `threshold`. Opposite ReLU neurons are different neurons and stay apart. With a_i the column of
    the next layer's weights that reads neuron i, a group becomes the one neuron (a, v) with

        v along sum_i |a_i| u_i,    |v|^2 = sum_i |u_i|^2,    a = sum_i a_i |u_i| / |v|.

    Since s = max(0, .) is positively homogeneous, this changes nothing if all u_i of the group have one direction. If
    they do not, write u_i' = |u_i| v / |v|. What neuron i sends on was a_i s(u_i . (h, 1)) and is a_i s(u_i' . (h, 1)),
    and |s(p) - s(q)| <= |p - q|, so the next layer's sums change by at most

        min(sum_i |a_i| |u_i - u_i'|,  |A| |U - U'|) |(h, 1)|,

    the second with the spectral norms of the matrices whose columns are a_i and whose rows are u_i - u_i'. The layers
    before map (x, 1) to (h, 1) and stretch it by at most the norms of their matrices ((W, b), (0, 1)); the layers after
    stretch the change by at most the norms of their W. The bound is the sum over layers of these products, with the
    layers before as they are after merging and the layers after as they were.

    Rounding is charged as well. A layer with n inputs that computes with relative errors of at most e multiplies an
    error by at most (1 + e)^(n + 1), relative to the Frobenius norm of ((W, b), (0, 1)); the product of these norms
    over the layers, times (1 + e)^N - 1 with N = sum (2 n + 8), which leaves room for storing the weights and for the
    arithmetic of merging, is added for the model as it was and for the merged one. In float64 this is next to nothing,
    in bfloat16 it is most of the bound.

    Parameters
    ----------
    model : torch.nn.Sequential
        Of `torch.nn.Linear` and ReLU layers, in any number; not changed.
    threshold : float
        Between 0 and 1.

    Returns
    -------
    smaller : torch.nn.Sequential
        The same layers with fewer neurons, at least one each; in each layer those of the largest groups come first.
    bound : float
        |smaller(x) - model(x)| <= bound |(x, 1)| for every input x, rounding in the model's precision included,
        as long as nothing overflows or underflows.

    Raises
    ------
    ValueError
        If `model` is not an `nn.Sequential`, has no linear layer, has a layer that is neither linear nor ReLU or not a
        plain one (pruned, spectral_norm, a subclass with its own forward), or holds NaN or a weight above 1e60, for
        which no bound can be computed; if a merged weight overflows; or if the threshold is out of range.

    Examples
    --------
    Four neurons on two lines become two, and nothing changes:

    >>> model = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1))
    >>> model[0].weight.data = torch.tensor([[1.0], [2.0], [-1.0], [-3.0]])
    >>> _ = model[0].bias.data.zero_()
    >>> smaller, bound = merge(model)
    >>> smaller[0].out_features, round(bound, 3)
    (2, 0.0)
    """
    number("threshold", threshold, 0, 1)
    if not isinstance(model, nn.Sequential):
        raise ValueError(f"model must be a torch.nn.Sequential of linear and ReLU layers; got {type(model).__name__}")
    if foreign := [layer for layer in model if not (isinstance(layer, nn.Linear) or _relu(layer))]:
        raise ValueError(f"model must consist of linear and ReLU layers, or merging is not exact; got {foreign[0]}")
    if own := ", ".join(f"layer {i} ({type(layer).__name__})" for i, layer in enumerate(model) if not _plain(layer)):
        raise ValueError(f"model must hold plain layers, none pruned, parametrized or with its own forward; got {own}")
    smaller = nn.Sequential(*[copy.deepcopy(layer) for layer in model])
    at = [i for i, layer in enumerate(model) if isinstance(layer, nn.Linear)]
    if not at:
        raise ValueError(f"model must have a linear layer; got {len(model)} layers, none of them linear")
    rows = [finite("model", input_vectors(model[i])) for i in at]
    if (largest := max(np.abs(row).max() for row in rows)) > 1e60:
        raise ValueError(f"model must hold weights of at most 1e60 for a bound to be computed; got {largest:.3g}")
    given, fan_in, bound = list(rows), [model[i].in_features for i in at], 0.0
    for k, (i, j) in enumerate(pairwise(at)):
        if j == i + 1:
            continue  # no activation in between: these are not ReLU neurons
        a, rest = np.split(rows[k + 1], [len(rows[k])], axis=1)
        rows[k], a, change = _merge_layer(rows[k], a, fan_in[k], i > 0 and _relu(model[i - 1]), threshold)
        rows[k + 1], fan_in[k + 1] = np.hstack([a, rest]), len(rows[k])
        before = np.prod([_gain(row, f) for row, f in zip(rows[:k], fan_in[:k], strict=True)])
        after = np.prod([np.linalg.norm(row[:, :f], 2) for row, f in zip(rows[k + 2 :], fan_in[k + 2 :], strict=True)])
        bound += float(before * change * after)
    unit = np.log1p(max(torch.finfo(model[i].weight.dtype).eps for i in at) / 2)
    for version in (given, rows):
        gain = np.prod([np.hypot(np.linalg.norm(row), 1) for row in version])
        bound += float(gain * np.expm1(unit * sum(2 * row.shape[1] + 8 for row in version)))
    for layer, row, f in zip((smaller[i] for i in at), rows, fan_in, strict=True):
        layer.in_features, layer.out_features = f, len(row)
        layer.weight = nn.Parameter(torch.tensor(row[:, :f]).to(layer.weight), layer.weight.requires_grad)
        if layer.bias is not None:
            layer.bias = nn.Parameter(torch.tensor(row[:, f]).to(layer.weight), layer.bias.requires_grad)
        finite("what merging leaves", input_vectors(layer))
    return smaller, bound
