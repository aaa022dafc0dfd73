"""Merging of condensed ReLU neurons and channels, with a bound on what that changes."""

import copy
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from ._checks import finite, number
from .condensation import clusters, cosine_similarity, input_vectors
from .networks import Activation

WEIGHTED, MOVING = (nn.Linear, nn.Conv2d), (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten)


def _relu(layer):
    return isinstance(layer, nn.ReLU) or (isinstance(layer, Activation) and layer.name == "relu")


def _known(layer):
    """Whether this layer keeps merging exact: it acts on each channel, or on all of them, positively homogeneously."""
    usual = {"groups": 1, "start_dim": 1, "end_dim": -1, "divisor_override": None, "return_indices": False}
    return (_relu(layer) or isinstance(layer, WEIGHTED + MOVING)) and all(
        getattr(layer, name, value) == value for name, value in usual.items()
    )


def _plain(layer):
    """Whether a layer computes what its class says: its class's own forward, on weights that are its parameters."""
    kind = next(kind for kind in (*WEIGHTED, *MOVING, nn.ReLU, Activation) if isinstance(layer, kind))
    return type(layer).forward is kind.forward and {name for name, _ in layer.named_parameters()} <= {"weight", "bias"}


def _fits(first, between, second):
    """Whether each input of the second layer comes from one neuron or channel of the first, whose order is kept."""
    moved = [isinstance(layer, nn.Flatten) for layer in between if isinstance(layer, MOVING)]
    if isinstance(second, nn.Conv2d):
        return isinstance(first, nn.Conv2d) and first.out_channels == second.in_channels and not any(moved)
    if isinstance(first, nn.Conv2d):
        return any(moved[-1:]) and second.in_features % first.out_channels == 0
    return all(moved) and first.out_features == second.in_features


def _norm(array, axis):
    """Norms along an axis, whose squares must not underflow."""
    largest = np.maximum(np.abs(array).max(axis=axis, keepdims=True), np.finfo(float).tiny)
    return np.linalg.norm(array / largest, axis=axis) * largest.squeeze(axis)


def _gain(row, fan_in, scale):
    """Largest factor by which a layer stretches (h, 1): the norm of ((scale W, b), (0, 1))."""
    matrix = np.zeros((len(row) + 1, fan_in + 1))
    matrix[:-1, : row.shape[1]] = row
    matrix[:, :fan_in] *= scale
    matrix[-1, -1] = 1
    return np.linalg.norm(matrix, 2)


def _merge_layer(u, a, fan_in, from_relu, threshold, reads, pooled):
    """New input vectors, new output weights, and how much the sums that read them change per unit of |(h, 1)|.

    The next layer reads a channel at `reads` places, after pooling windows of `pooled` places; rows have 1 of each.
    """
    w, b = u[:, :fan_in], u[:, fan_in:]
    alive = (b > 0).any(axis=1) | ((w > 0) if from_relu else (w != 0)).any(axis=1)
    size = _norm(a, 0) * _norm(u, 1)
    tiny = (size <= 1e-150) | (_norm(u, 1) <= 1e-140)  # squares underflow: dropped, and charged
    dropped, alive = size[alive & tiny].sum(), alive & ~tiny
    if not alive.any():
        return 0 * u[:1], 0 * a[:, :1], dropped * reads**0.5  # torch wants at least one neuron
    u, a = u[alive], a[:, alive]
    closeness = (1 + cosine_similarity(u)) / 2  # 0 for opposite neurons, which `clusters` would put on one line
    label = clusters(closeness, (1 + threshold) / 2) if len(u) > 1 else np.zeros(1, dtype=int)
    member = np.eye(label.max() + 1)[label].T
    norm = np.linalg.norm(u, axis=1)
    v = member @ (np.linalg.norm(a, axis=0)[:, None] * u)
    v *= (np.sqrt(member @ norm**2) / np.linalg.norm(v, axis=1))[:, None]
    ratio = norm / np.linalg.norm(v, axis=1)[label]
    moved = u - ratio[:, None] * v[label]
    change = (np.linalg.norm(a, axis=0) @ np.linalg.norm(moved, axis=1) + dropped) * reads**0.5
    spectral = np.linalg.norm(a, 2) * np.linalg.norm(moved, 2) * reads * pooled**0.5 + dropped * reads**0.5
    return v, (a * ratio) @ member.T, min(change, spectral)


def merge(model, *, threshold=0.999):
    r"""Replace each group of ReLU neurons or channels that point the same way by one, and bound what that changes.

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

    A channel of a convolution is a neuron that looks through a window: h is then the patch in the window, and a_i holds
    all the weights that read the channel, at q places: the next layer's window, or the whole image that is flattened.
    Pooling, by maximum or mean, is as homogeneous as ReLU and enlarges no difference of a channel. Images are measured
    by the longest vector that their channels form at one place. In that norm a patch of q places is at most sqrt(q)
    times as long as its image, and so is a pooled one with q the size of the pooling window: this multiplies W above.
    The change becomes

        min(sqrt(q) sum_i |a_i| |u_i - u_i'|,  q sqrt(p) |A| |U - U'|) |(h, 1)|,

    p being the size of the pooling window, 1 without, and A having a row for each place and each of the next layer's
    outputs, since a channel's differences at q places are q different numbers.

    Rounding is charged as well. A layer with n inputs that computes with relative errors of at most e multiplies an
    error by at most (1 + e)^(n + 1), relative to the Frobenius norm of ((W, b), (0, 1)); the product of these norms
    over the layers, times (1 + e)^N - 1 with N = sum (2 n + 8), which leaves room for storing the weights and for the
    arithmetic of merging, is added for the model as it was and for the merged one. In float64 this is next to nothing,
    in bfloat16 it is most of the bound.

    Parameters
    ----------
    model : torch.nn.Sequential
        Of `torch.nn.Linear`, `Conv2d` (without groups) and ReLU layers, `MaxPool2d`, `AvgPool2d` and
        `AdaptiveAvgPool2d`, and a `Flatten` between convolutional and linear layers; inputs are batches. Not changed.
    threshold : float
        Between 0 and 1.

    Returns
    -------
    smaller : torch.nn.Sequential
        The same layers with fewer neurons, at least one each; in each layer those of the largest groups come first.
    bound : float
        |smaller(x) - model(x)| <= bound |(x, 1)| for every input x, rounding in the model's precision included,
        as long as nothing overflows or underflows. If the model ends in images: at each of their places.

    Raises
    ------
    ValueError
        If `model` is not an `nn.Sequential`, has no linear or convolutional layer, has a layer of another kind (batch
        normalisation, say, is not homogeneous) or not a plain one (pruned, spectral_norm, a subclass with its own
        forward), or one that does not read what the layer before it writes, or holds NaN or a weight above 1e60, for
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
        raise ValueError(f"model must be a torch.nn.Sequential of its layers; got {type(model).__name__}")
    if foreign := [layer for layer in model if not _known(layer)]:
        raise ValueError(
            "model must consist of linear and ReLU layers, Conv2d without groups, pooling and Flatten(1), or merging "
            f"is not exact; got {foreign[0]}"
        )
    if own := ", ".join(f"layer {i} ({type(layer).__name__})" for i, layer in enumerate(model) if not _plain(layer)):
        raise ValueError(f"model must hold plain layers, none pruned, parametrized or with its own forward; got {own}")
    smaller = nn.Sequential(*[copy.deepcopy(layer) for layer in model])
    at = [i for i, layer in enumerate(model) if isinstance(layer, WEIGHTED)]
    if not at:
        raise ValueError(f"model must have a linear layer; got {len(model)} layers, none of them linear")
    for i, j in pairwise(at):
        if not _fits(model[i], model[i + 1 : j], model[j]):
            raise ValueError(f"layer {j} must read what layer {i} writes; got {model[j]} after {model[i]}")
    rows = [finite("model", input_vectors(model[i])) for i in at]
    if (largest := max(np.abs(row).max() for row in rows)) > 1e60:
        raise ValueError(f"model must hold weights of at most 1e60 for a bound to be computed; got {largest:.3g}")
    given, fan_in, bound = list(rows), [model[i].weight[0].numel() for i in at], 0.0
    reads = [model[at[0]].weight[0, 0].numel(), *(f // len(row) for f, row in zip(fan_in[1:], rows, strict=False))]
    reads[0] = fan_in[0] if any(isinstance(p, nn.AdaptiveAvgPool2d) for p in model[: at[0]]) else reads[0]  # repeats
    windows = [
        [np.broadcast_to(getattr(p, "kernel_size", 1), 2) for p in model[i + 1 : j]] for i, j in pairwise([-1, *at])
    ]
    pooled = [np.prod(sizes) for sizes in windows]
    scale = np.sqrt(np.array(reads) * pooled)
    for k, (i, j) in enumerate(pairwise(at)):
        if not any(map(_relu, model[i + 1 : j])):
            continue  # no activation in between: these are not ReLU neurons
        from_relu = next((_relu(layer) for layer in model[:i][::-1] if not isinstance(layer, MOVING)), False)
        out, (a, rest) = len(rows[k + 1]), np.split(rows[k + 1], fan_in[k + 1 : k + 2], axis=1)
        a = np.moveaxis(a.reshape(out, -1, reads[k + 1]), 1, 2).reshape(-1, len(rows[k]))
        rows[k], a, change = _merge_layer(rows[k], a, fan_in[k], from_relu, threshold, reads[k + 1], pooled[k + 1])
        a = np.moveaxis(a.reshape(out, reads[k + 1], -1), 1, 2).reshape(out, -1)
        rows[k + 1], fan_in[k + 1] = np.hstack([a, rest]), a.shape[1]
        before = np.prod([_gain(*layer) for layer in list(zip(rows, fan_in, scale, strict=True))[:k]]) * scale[k]
        after = np.prod([np.linalg.norm(row[:, :f], 2) for row, f in zip(rows[k + 2 :], fan_in[k + 2 :], strict=True)])
        bound += float(before * change * after * np.prod(scale[k + 2 :]))
    unit = np.log1p(max(torch.finfo(model[i].weight.dtype).eps for i in at) / 2)
    for version in (given, rows):
        gain = np.prod([np.hypot(np.linalg.norm(row) * s, 1) for row, s in zip(version, scale, strict=True)])
        bound += float(gain * np.expm1(unit * sum(2 * row.shape[1] + 8 for row in version)))
    for layer, row, f in zip((smaller[i] for i in at), rows, fan_in, strict=True):
        weight, kind = row[:, :f].reshape(len(row), -1, *layer.weight.shape[2:]), layer.weight.ndim > 2
        for side, size in zip(("out", "in"), weight.shape, strict=False):
            setattr(layer, side + ("_channels" if kind else "_features"), size)
        layer.weight = nn.Parameter(torch.tensor(weight).to(layer.weight), layer.weight.requires_grad)
        if layer.bias is not None:
            layer.bias = nn.Parameter(torch.tensor(row[:, f]).to(layer.weight), layer.bias.requires_grad)
        finite("what merging leaves", input_vectors(layer))
    return smaller, bound
