"""Full-batch training of a torch network, recorded into a `History`."""

import math

import numpy as np
import torch
from torch import nn

from ._checks import choice, number, real
from .history import Recorder
from .networks import linear_layers

__all__ = ["train"]

OPTIMISERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
DATA, TEST = ("x", "y"), ("test[0]", "test[1]")
BLOW_UP = 1e4  # a loss this many times the larger of its start and the targets' mean square has diverged


def trained_parameters(model, layers=None):
    """The parameters that training moves, by name: those not frozen, of the chosen linear layers if `layers` is given.

    Raises
    ------
    ValueError
        If the model is no module, has nothing to train, or a parameter that is neither float32 nor float64.
    """
    named = dict(model.named_parameters()) if isinstance(model, nn.Module) else {}
    if not named:
        raise ValueError(f"model must be a torch.nn.Module with parameters; got {type(model).__name__} without")
    kinds = sorted({str(p.dtype) for p in named.values()} - {"torch.float32", "torch.float64"})
    if kinds:
        raise ValueError(f"model must have parameters of torch.float32 or torch.float64; got {', '.join(kinds)}")
    if layers is not None:
        every = linear_layers(model)
        chosen = [number("layers", k, -len(every), len(every) - 1, integer=True) for k in np.ravel(layers).tolist()]
        ids = {id(p) for k in chosen for p in every[k].parameters()}
        named = {name: p for name, p in named.items() if id(p) in ids}
    free = {name: p for name, p in named.items() if p.requires_grad}
    if not free:
        raise ValueError(f"model must have a parameter to train; got none with requires_grad (layers={layers})")
    return free


def make_optimiser(optimiser, step_size, max_gradient_norm, parameters):
    """The torch optimiser that `optimiser` names or makes, and the settings of the step, all checked."""
    if max_gradient_norm is not None:
        max_gradient_norm = number("max_gradient_norm", max_gradient_norm, 0, open_low=True)
    if not callable(optimiser):
        step_size = 1e-3 if step_size is None else number("step_size", step_size, 0, open_low=True)
        made = OPTIMISERS[choice("optimiser", optimiser, OPTIMISERS)](parameters, lr=step_size)
    elif step_size is None:
        made = optimiser(parameters)
    else:
        raise ValueError(f"step_size must be left out if optimiser is a function, which sets it; got {step_size!r}")
    if not isinstance(made, torch.optim.Optimizer) or isinstance(made, torch.optim.LBFGS):  # its step needs a function
        raise ValueError(f"optimiser must return a torch.optim.Optimizer, not LBFGS; got {type(made).__name__}")
    name = type(made).__name__ if callable(optimiser) else optimiser
    step_size = float(made.param_groups[0]["lr"])
    return made, {"step_size": step_size, "optimiser": name, "max_gradient_norm": max_gradient_norm}


def tensors(model, pair, names, copies=None):
    """Check inputs and targets and move them to the model: (n, dim) and (n, outputs), after `copies` if there are."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        what = f"{len(pair)} entries" if isinstance(pair, (tuple, list)) else type(pair).__name__
        raise ValueError(f"test must be a pair (inputs, targets); got {what}")
    like = next(model.parameters())
    x, y = (real(name, a) for name, a in zip(names, pair, strict=True))
    lead = x.shape[:-1]
    if not (x.ndim == 2 or (copies and x.ndim == 3 and len(x) == copies)) or y.shape[: len(lead)] != lead:
        each = f", or ({copies}, n, dim) and ({copies}, n)" if copies else ""
        raise ValueError(
            f"{names[0]} must have shape (n, dim) and {names[1]} n entries{each}; got {x.shape} and {y.shape}"
        )
    both = (torch.as_tensor(a, dtype=like.dtype, device=like.device) for a in (x, y.reshape(*lead, -1)))
    return [a.expand(copies, *a.shape[-2:]) if copies else a for a in both]


def answer(model, x, y, names):
    """What the model makes of x, or ValueError if it cannot take x or its answer has another shape than y."""
    try:
        output = model(x)
    except RuntimeError as why:
        raise ValueError(f"{names[0]} must be inputs that the model takes; got {tuple(x.shape)}: {why}") from why
    if output.shape != y.shape:  # mse_loss would broadcast
        raise ValueError(f"{names[1]} must have the model's output shape, {tuple(output.shape)}; got {tuple(y.shape)}")
    return output


def _measure(parameters, test, model):
    """Gradient norm, and test loss if there are test data."""
    row = {"gradient_norm": math.sqrt(sum((p.grad**2).sum().item() for p in parameters if p.grad is not None))}
    with torch.no_grad():
        if test is not None:
            row["test_loss"] = nn.functional.mse_loss(answer(model, *test, TEST), test[1]).item()
    return row


def train(model, x, y, *, n_steps, step_size=None, optimiser="adam", layers=None, test=None, record_every=1,
          snapshot_every=None, max_gradient_norm=None):  # fmt: skip
    """Train on the whole data set at once, by the mean squared error, and record what happens.

    Parameters
    ----------
    model : torch.nn.Module
        Trained in place, where its parameters lie (CPU or GPU); they are float32 or float64.
    x, y : array_like, shapes (n, dim) and (n,) or (n, outputs)
    n_steps : int
        Number of steps; with full batches a step is an epoch.
    step_size : float, optional
        Learning rate, above 0; None for 0.001. Left out if `optimiser` is a function.
    optimiser : {"adam", "sgd"} or callable
        Or a function of a list of parameters that returns a `torch.optim.Optimizer`.
    layers : int or sequence of int, optional
        Train these linear layers only, counted from 0 (from -1 backwards), and leave the rest of the model as it is.
    test : pair of arrays, optional
        Inputs and targets on which "test_loss" is measured.
    record_every : int or sequence of int
        When to measure losses and gradient norm; step 0 is before training.
    snapshot_every : int, sequence of int or None
        When to copy all parameters; None for the first and the last step.
    max_gradient_norm : float, optional
        Clip the gradient to this norm before each step.

    Returns
    -------
    History
        Series "loss", "gradient_norm", and "test_loss" if there are test data; one snapshot entry for each parameter,
        named as in `model.named_parameters()`. The gradient is that of the trained parameters. If
        interrupted with Ctrl-C: what was recorded, and `finished` is False.

    Raises
    ------
    ValueError
        If an argument is out of its range, the data are empty, not finite or of unequal length, or the model cannot
        take them or has nothing to train.
    FloatingPointError
        If the loss stops being finite, or grows to 10,000 times the larger of its first value and the mean of y^2.

    Examples
    --------
    >>> from feature_learning import data, networks
    >>> model = networks.initialise_gaussian(networks.fully_connected([5, 50, 1]), 1, rng=0)
    >>> x, y = data.sine_sum(80, 0)
    >>> history = train(model, x, y, n_steps=100, record_every=50)
    >>> history.steps
    array([  0,  50, 100])

    Momentum, and the output layer alone:

    >>> def momentum(parameters):
    ...     return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    >>> history = train(model, x, y, n_steps=10, optimiser=momentum, layers=-1)
    """
    n_steps = number("n_steps", n_steps, 0, integer=True)
    parameters = list(trained_parameters(model, layers).values())
    x, y = tensors(model, (x, y), DATA)
    test, size = None if test is None else tensors(model, test, TEST), (y**2).mean().item()
    recorder = Recorder(n_steps, record_every, snapshot_every, bound=lambda first: BLOW_UP * np.maximum(first, size))
    stepper, settings = make_optimiser(optimiser, step_size, max_gradient_norm, parameters)
    settings |= {"n_steps": n_steps, "n": len(x)}
    with recorder:
        for step in range(n_steps + 1):
            recorded = recorder.records(step)
            for p in parameters:
                p.grad = None
            loss = nn.functional.mse_loss(answer(model, x, y, DATA), y)
            value = loss.item()
            if recorder.diverged(value):
                raise FloatingPointError(
                    f"training diverged at step {step}: loss {value:.3g}, last finite loss {recorder.last}; lower "
                    f"step_size (now {settings['step_size']}), start smaller, or clip with max_gradient_norm"
                )
            loss.backward(inputs=parameters if layers is not None else None)
            if recorded or step == 0:  # the test data are checked before the first step
                row = _measure(parameters, test, model)
            if recorded:
                recorder.record(step, loss=value, **row)
            if recorder.copies(step):
                recorder.copy(step, **{name: p.detach().cpu().numpy() for name, p in model.named_parameters()})
            if step < n_steps:
                if max_gradient_norm is not None:
                    nn.utils.clip_grad_norm_(parameters, max_gradient_norm)
                stepper.step()
    return recorder.history(settings if layers is None else settings | {"layers": np.ravel(layers).tolist()})
