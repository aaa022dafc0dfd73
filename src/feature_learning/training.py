"""Full-batch training of a torch network, or of many at once, recorded into a `History`."""

import math

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from ._checks import choice, finite, number
from .history import History, recording_steps, stack

OPTIMISERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
BLOW_UP = 1e4  # a loss this many times the larger of its start and the targets' mean square has diverged


def _tensors(model, x, y, names, copies=None):
    """Check the data and move them to the model: (n, dim) and (n, outputs), after `copies` if each copy has its own."""
    like = next(model.parameters())
    x, y = (finite(name, np.asarray(a, dtype=float)) for name, a in zip(names, (x, y), strict=True))
    lead = x.shape[:-1]
    if not (x.ndim == 2 or (copies and x.ndim == 3 and len(x) == copies)) or y.shape[: len(lead)] != lead:
        each = f", or ({copies}, n, dim) and ({copies}, n)" if copies else ""
        raise ValueError(
            f"{names[0]} must have shape (n, dim) and {names[1]} n entries{each}; got {x.shape} and {y.shape}"
        )
    return [torch.as_tensor(a, dtype=like.dtype, device=like.device) for a in (x, y.reshape(*lead, -1))]


def _check(n_steps, step_size, optimiser, max_gradient_norm):
    number("n_steps", n_steps, 0, integer=True)
    number("step_size", step_size, 0, open_low=True)
    choice("optimiser", optimiser, OPTIMISERS)
    if max_gradient_norm is not None:
        number("max_gradient_norm", max_gradient_norm, 0, open_low=True)


def _measure(model, x, test, activation_statistics):
    """Gradient norm, and test loss and activation statistics if asked for."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    row = {"gradient_norm": math.sqrt(sum((g**2).sum().item() for g in gradients))}
    with torch.no_grad():
        if test is not None:
            row["test_loss"] = nn.functional.mse_loss(model(test[0]), test[1]).item()
        if activation_statistics:
            row["activations"] = _activation_statistics(model, x)
    return row


def _activation_statistics(model, x):
    """Mean and standard deviation over neurons and data of each hidden layer's output, shape (layers, 2)."""
    rows = []
    for layer in model:
        x = layer(x)
        if not isinstance(layer, nn.Linear):
            rows.append([x.mean().item(), x.std(correction=0).item()])
    return rows


def train(
    model,
    x,
    y,
    *,
    n_steps,
    step_size=1e-3,
    optimiser="adam",
    test=None,
    record_every=1,
    snapshot_every=None,
    max_gradient_norm=None,
    activation_statistics=False,
):
    """Train on the whole data set at once, by the mean squared error, and record what happens.

    Parameters
    ----------
    model : torch.nn.Module
        Trained in place, where its parameters lie (CPU or GPU).
    x, y : array_like, shapes (n, dim) and (n,) or (n, outputs)
    n_steps : int
        Number of steps; with full batches a step is an epoch.
    step_size : float
        Learning rate, above 0.
    optimiser : {"adam", "sgd"}
    test : pair of arrays, optional
        Inputs and targets on which "test_loss" is measured.
    record_every : int or sequence of int
        When to measure losses, gradient norm and activations; step 0 is before training.
    snapshot_every : int, sequence of int or None
        When to copy all parameters; None for the first and the last step.
    max_gradient_norm : float, optional
        Clip the gradient to this norm before each step.
    activation_statistics : bool
        Record mean and standard deviation of each hidden layer's output (needs an `nn.Sequential`), an array of
        shape (T, layers, 2).

    Returns
    -------
    History
        Series "loss", "gradient_norm", and "test_loss" and "activations" if asked for; one snapshot entry for each
        parameter, named as in `model.named_parameters()`. If interrupted with Ctrl-C: what was recorded, and
        `finished` is False.

    Raises
    ------
    ValueError
        If an argument is out of its range, or the data are empty, not finite or of unequal length.
    FloatingPointError
        If the loss stops being finite, or grows to 10,000 times the larger of its first value and the mean of y^2.
    """
    _check(n_steps, step_size, optimiser, max_gradient_norm)
    if activation_statistics and not isinstance(model, nn.Sequential):
        raise ValueError(f"activation_statistics needs an nn.Sequential as model; got {type(model).__name__}")
    x, y = _tensors(model, x, y, ("x", "y"))
    test = None if test is None else _tensors(model, *test, ("test[0]", "test[1]"))
    record = set(recording_steps("record_every", record_every, n_steps).tolist())
    keep = set(recording_steps("snapshot_every", snapshot_every, n_steps).tolist())
    engine = OPTIMISERS[optimiser](model.parameters(), lr=step_size)
    rows, copies = [], []
    finished, last, bound = False, None, None
    try:
        for step in range(n_steps + 1):
            engine.zero_grad(set_to_none=True)
            output = model(x)
            if output.shape != y.shape:  # mse_loss would broadcast
                raise ValueError(f"y must have the model's output shape, {tuple(output.shape)}; got {tuple(y.shape)}")
            loss = nn.functional.mse_loss(output, y)
            value = loss.item()
            bound = BLOW_UP * max(value, (y**2).mean().item()) if bound is None else bound
            if not (math.isfinite(value) and value <= bound):
                raise FloatingPointError(
                    f"training diverged at step {step}: loss {value:.3g}, last finite loss {last}; lower step_size "
                    f"(now {step_size}), start smaller, or clip with max_gradient_norm"
                )
            last = value
            loss.backward()
            if step in record:
                rows.append({"steps": step, "loss": value} | _measure(model, x, test, activation_statistics))
            if step in keep:
                now = {name: p.detach().cpu().numpy().copy() for name, p in model.named_parameters()}
                copies.append({"steps": step} | now)
            if step < n_steps:
                if max_gradient_norm is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), max_gradient_norm)
                engine.step()
        finished = True
    except KeyboardInterrupt:
        pass
    series, snapshots = (stack(part) for part in (rows, copies))
    settings = {
        "n_steps": n_steps,
        "step_size": step_size,
        "optimiser": optimiser,
        "n": len(x),
        "max_gradient_norm": max_gradient_norm,
    }
    return History(series.pop("steps"), series, snapshots.pop("steps"), snapshots, settings, finished)


def _tanh(x):
    return torch.from_numpy(np.tanh(x.numpy()))


def _bmm(a, b):
    return a * b if a.shape[-1] == 1 else torch.from_numpy(a.numpy() @ b.numpy())


# on a CPU NumPy takes a third of the time for tanh, and down to a fifth for stacks of small products
FASTER = {torch.ops.aten.tanh.default: _tanh, torch.ops.aten.bmm.default: _bmm}


def _together(models, x, y):
    """Stack the parameters of models that print alike; return them, the gradients' function and the forward pass."""
    base, parameters = models[0], stack_module_state(models)[0]
    axes = [0 if d.ndim == 3 else None for d in (x, y)]

    def forward(p, x):
        return functional_call(base, p, (x,))

    def loss(trained, fixed, x, y):
        return nn.functional.mse_loss(forward(fixed | trained, x), y)

    def split():  # the optimiser's tensors, seen without autograd
        trained = {k: p.detach() for k, p in parameters.items() if p.requires_grad}
        return trained, {k: p.detach() for k, p in parameters.items() if not p.requires_grad}

    many = vmap(forward, in_dims=(0, axes[0]))
    with torch.no_grad():
        outputs = many(parameters, x)
        if outputs.shape[1:] != y.shape[-2:]:  # mse_loss would broadcast
            raise ValueError(f"y must have the model's output shape, {tuple(outputs.shape[1:])}; got {tuple(y.shape)}")
        for k, (model, output) in enumerate(zip(models, outputs, strict=True)):
            alone = model(x[k] if axes[0] == 0 else x)
            close = math.sqrt(torch.finfo(alone.dtype).eps) * alone.nan_to_num().abs().max().item()
            if not torch.allclose(alone, output, rtol=0, atol=close, equal_nan=True):
                raise ValueError(
                    "models that print alike must compute the same function of their parameters; two of "
                    f"the models that print as {base} do not"
                )
    # traced once: a step is then a list of tensor operations, without what vmap and grad cost in Python
    traced = make_fx(vmap(grad_and_value(loss), in_dims=(0, 0, *axes)))(*split(), x, y)
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        for node in traced.graph.nodes:
            node.target = FASTER.get(node.target, node.target)
        traced.recompile()

    def gradients():
        with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite is an error of its own
            return traced(*split(), x, y)

    return parameters, gradients, many


def train_ensemble(
    models,
    x,
    y,
    *,
    n_steps,
    step_size=1e-3,
    optimiser="adam",
    test=None,
    record_every=1,
    snapshot_every=None,
    max_gradient_norm=None,
):
    """Train many copies of a network at once: what `train` does for each of them, in a fraction of the time.

    The copies' parameters are stacked along a first axis; torch.func's vmap and grad turn the loss of one network into
    the gradients of all. SGD and Adam work entry by entry, so torch's own serve for the stack.

    Parameters
    ----------
    models : sequence of torch.nn.Module
        R networks whose parameters agree in name, shape, dtype and device; trained in place. Activations may differ:
        models that print alike are stacked together. The forward pass must be without randomness.
    x, y : array_like, shapes (n, dim) and (n,) or (n, outputs)
        The data of all copies, or with a leading axis of length R the data of each.
    n_steps, step_size, optimiser, record_every, snapshot_every
        As in `train`.
    test : pair of arrays, optional
        As x and y.
    max_gradient_norm : float, optional
        Clip each copy's gradient to this norm before each step.

    Returns
    -------
    History
        As from `train`, with an axis for the copies after that of the steps: series of shape (T, R), snapshots of
        shape (S, R, ...). The settings hold R as "copies". Ctrl-C keeps what was recorded.

    Raises
    ------
    ValueError
        As `train`; also if there is no model, if their parameters differ in shape (the message names the shapes), or if
        models that print alike do not compute the same function.
    FloatingPointError
        If any copy diverges (see `train`); the message names the copies. No copy reads another's numbers, so the models
        keep the parameters that each of them would have alone at that step.
    """
    _check(n_steps, step_size, optimiser, max_gradient_norm)
    models, groups = list(models), {}
    if not models:
        raise ValueError("models must hold at least one torch.nn.Module; got none")
    signatures = [{k: (tuple(p.shape), str(p.dtype), str(p.device)) for k, p in m.named_parameters()} for m in models]
    for i, (model, signature) in enumerate(zip(models, signatures, strict=True)):
        if signature != signatures[0]:
            raise ValueError(
                f"models must agree in their parameters' names, shapes, dtypes and devices; got "
                f"{signatures[0]} in model 0 and {signature} in model {i}"
            )
        groups.setdefault(repr(model), []).append(i)
    x, y = _tensors(models[0], x, y, ("x", "y"), len(models))
    test = None if test is None else _tensors(models[0], *test, ("test[0]", "test[1]"), len(models))
    # Linux' C library asks the system for every large array, page by page, until it has seen one as large come and go
    torch.empty(31 * 2**20, dtype=torch.uint8)
    record = set(recording_steps("record_every", record_every, n_steps).tolist())
    keep = set(recording_steps("snapshot_every", snapshot_every, n_steps).tolist())
    own = [lambda d, index=index: d[index] if d.ndim == 3 else d for index in groups.values()]
    stacks = [
        _together([models[i] for i in index], take(x), take(y))
        for index, take in zip(groups.values(), own, strict=True)
    ]
    back = np.argsort(np.concatenate(list(groups.values())))

    def gather(parts):  # one tensor from each group -> one array, in the order of `models`
        return torch.cat([p.detach() for p in parts]).cpu().numpy()[back]

    def test_losses(parameters, forward, take):
        return ((forward(parameters, take(test[0])) - take(test[1])) ** 2).mean((1, 2))

    engine = OPTIMISERS[optimiser](
        [p for parameters, _, _ in stacks for p in parameters.values() if p.requires_grad], lr=step_size
    )
    rows, copies, last, bound = [], [], None, None
    finished, mean_square = False, (y**2).mean((-2, -1)).cpu().numpy()
    try:
        for step in range(n_steps + 1):
            slopes, losses = zip(*(gradients() for _, gradients, _ in stacks), strict=True)
            values = gather(losses).astype(float)
            bound = BLOW_UP * np.maximum(values, mean_square) if bound is None else bound
            bad = np.flatnonzero(~(np.isfinite(values) & (values <= bound)))
            if bad.size:
                before = None if last is None else last[bad].tolist()
                raise FloatingPointError(
                    f"training diverged at step {step} in {bad.size} of {len(models)} copies, numbers {bad.tolist()}: "
                    f"losses {values[bad].tolist()}, last finite losses {before}; leave these copies out, lower "
                    f"step_size (now {step_size}), start smaller, or clip with max_gradient_norm"
                )
            last = values
            if step in record or max_gradient_norm is not None:
                norms = [sum((g**2).flatten(1).sum(1) for g in gs.values()).sqrt() for gs in slopes]
            if step in record:
                rows.append({"steps": step, "loss": values, "gradient_norm": gather(norms)})
                if test is not None:
                    rows[-1]["test_loss"] = gather(
                        test_losses(p, f, take) for (p, _, f), take in zip(stacks, own, strict=True)
                    )
            if step in keep:
                copies.append({"steps": step} | {k: gather(p[k] for p, _, _ in stacks) for k in signatures[0]})
            if step < n_steps:
                for i, (parameters, _, _) in enumerate(stacks):
                    for k, g in slopes[i].items():
                        if max_gradient_norm is not None:
                            g *= (max_gradient_norm / (norms[i] + 1e-6)).clamp(max=1).view(-1, *[1] * (g.ndim - 1))
                        parameters[k].grad = g
                engine.step()
        finished = True
    except KeyboardInterrupt:
        pass
    finally:
        with torch.no_grad():
            for index, (parameters, _, _) in zip(groups.values(), stacks, strict=True):
                for k, i in enumerate(index):
                    for name, p in models[i].named_parameters():
                        p.copy_(parameters[name][k])
    series, snapshots = (stack(part) for part in (rows, copies))
    settings = {
        "n_steps": n_steps,
        "step_size": step_size,
        "optimiser": optimiser,
        "n": x.shape[-2],
        "max_gradient_norm": max_gradient_norm,
        "copies": len(models),
    }
    return History(series.pop("steps"), series, snapshots.pop("steps"), snapshots, settings, finished)
