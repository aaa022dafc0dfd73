"""Fully connected networks of any depth, their activations and their initialisation (torch)."""

import math
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from ._checks import choice, generator, number


class Activation(nn.Module):
    """Wrap an elementwise function, so that it shows its name when the network is printed."""

    def __init__(self, name, function):
        super().__init__()
        self.name, self.function = name, function

    def forward(self, x):
        return self.function(x)

    def extra_repr(self):
        return self.name


def _xtan(x):
    return x * torch.tan(x)


def _xtan_clamped(x):
    return _xtan(x.clamp(-1.4, 1.4))


#: Name -> elementwise function. "xtan" has poles at odd multiples of pi/2 and is left unguarded on purpose: a run that
#: meets one diverges, and `train` says so. "xtan_clamped" is the same function with its argument kept in [-1.4, 1.4].
ACTIVATIONS = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "softplus": nn.functional.softplus,
    "xtanh": lambda x: x * torch.tanh(x),
    "x2tanh": lambda x: x * x * torch.tanh(x),
    "xtan": _xtan,
    "xtan_clamped": _xtan_clamped,
}


def fully_connected(widths, activation="tanh", *, output_bias=False, dtype=torch.float64):
    """Build a fully connected network; its parameters are zero until one of the initialisers fills them.

    f(x) = W_L s(W_{L-1} s(... s(W_1 x + b_1) ...) + b_{L-1}) (+ b_L).

    Parameters
    ----------
    widths : sequence of int
        Input dimension, hidden widths, output dimension: at least three numbers, each at least 1.
    activation : str
        A key of `ACTIVATIONS`.
    output_bias : bool
        Whether the last layer has a bias; hidden layers always do.
    dtype : torch.dtype
        Float64 by default: check the mathematics first.

    Returns
    -------
    torch.nn.Sequential
        Linear layers with `Activation` modules between them.

    Raises
    ------
    ValueError
        If there are fewer than three widths, one is not a whole number >= 1, or the activation is unknown.

    Examples
    --------
    >>> fully_connected([2, 50, 1], "tanh")
    Sequential(
      (0): Linear(in_features=2, out_features=50, bias=True)
      (1): Activation(tanh)
      (2): Linear(in_features=50, out_features=1, bias=False)
    )
    """
    widths = list(widths)
    if len(widths) < 3:
        raise ValueError(f"widths must hold input, hidden and output sizes, three or more; got {widths!r}")
    widths = [number("widths", width, 1, integer=True) for width in widths]
    function = ACTIVATIONS[choice("activation", activation, ACTIVATIONS)]
    layers = []
    for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        # skip_init: the constructor alone would draw from torch's global generator
        layers.append(nn.utils.skip_init(nn.Linear, fan_in, fan_out, bias=not last or output_bias, dtype=dtype))
        if not last:
            layers.append(Activation(activation, function))
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def linear_layers(model, kinds=nn.Linear):
    """Return the linear layers of any module, or those of other `kinds`, in order, as a list.

    Raises
    ------
    ValueError
        If `model` is not a module or has no such layer.
    """
    known = isinstance(model, nn.Module)
    layers = [m for m in model.modules() if isinstance(m, kinds)] if known else []
    if not layers:
        leaf = known and not list(model.children())
        got = repr(model) if leaf else type(model).__name__ + " without" * known
        raise ValueError(f"model must be a torch.nn.Module with a linear layer; got {got}")
    return layers


def _fill(parameter, values):
    with torch.no_grad():
        parameter.copy_(torch.as_tensor(values))


def initialise_gaussian(model, init_exponent, rng):
    """Draw all weights and biases of layer l from N(0, m_l^(-2 gamma)), in place.

    The standard deviation is m_l^(-gamma). m_l is the layer's own width: the number of neurons it writes to, and for
    the last layer the number it reads from. Xu, Zhang and Zhou (2025) call initialisation small when gamma > 1/2; a
    larger gamma is smaller.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.
    init_exponent : float
        gamma, at least 0.
    rng : numpy.random.Generator or int
        The numbers are drawn by NumPy in float64, so that they are the same on every device.

    Returns
    -------
    torch.nn.Module
        The same model.

    Raises
    ------
    ValueError
        If gamma is negative or not finite, or the model has no linear layer.

    Examples
    --------
    >>> model = initialise_gaussian(fully_connected([2, 10_000, 1]), 0.5, rng=0)
    >>> round(model[0].weight.std().item(), 3)  # 10,000^-0.5
    0.01
    """
    init_exponent = number("init_exponent", init_exponent, 0)
    rng, layers = generator("rng", rng), linear_layers(model)
    for layer in layers:
        m = layer.in_features if layer is layers[-1] else layer.out_features
        for parameter in layer.parameters():
            _fill(parameter, rng.standard_normal(parameter.shape) * float(m) ** -init_exponent)
    return model


def initialise_xavier(model, gain, rng):
    """Draw weights uniformly from [-a, a] with a = gain sqrt(6 / (fan_in + fan_out)), set biases to zero, in place.

    Glorot and Bengio (2010), equation 16, times a gain.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.
    gain : float
        At least 0; 1 is Xavier's own scale.
    rng : numpy.random.Generator or int
        Source of randomness.

    Returns
    -------
    torch.nn.Module
        The same model.

    Raises
    ------
    ValueError
        If gain is negative or not finite, or the model has no linear layer.
    """
    gain = number("gain", gain, 0)
    rng = generator("rng", rng)
    for layer in linear_layers(model):
        bound = gain * math.sqrt(6 / (layer.in_features + layer.out_features))
        _fill(layer.weight, rng.uniform(-bound, bound, layer.weight.shape))
        if layer.bias is not None:
            _fill(layer.bias, np.zeros(layer.bias.shape))
    return model
