r"""Gradient flow of a two-layer ReLU network in the variables of the phase diagram, many runs at once.

The network is f(x) = (1/alpha) sum_k a_k s(<w_k, x>) with s = max(0, .), a_k ~ N(0, beta1^2), w_k ~ N(0, beta2^2 I)
and a bias folded into x. Luo, Xu, Ma and Zhang (2021, JMLR 22(71)) divide each layer by its scale at the start. With

    kappa = beta1 beta2 / alpha = m^-gamma,      kappa' = beta1 / beta2 = m^-gamma',

and time counted in units of alpha, the flow of the loss (1/2n) sum_i e_i^2, e_i = f(x_i) - y_i, becomes

    f(x) = kappa sum_k a_k s(<w_k, x>),      da_k/dt = -(1/kappa') <w_k, v_k>,      dw_k/dt = -kappa' a_k v_k,

where v_k = (1/n) sum_i e_i 1[<w_k, x_i> > 0] x_i, and a_k and all entries of w_k start as N(0, 1): m, gamma and gamma'
are all that is left of alpha, beta1 and beta2. (Each line follows from the chain rule; <w_k, v_k> is the mean of
e_i s(<w_k, x_i>) because s is homogeneous.)

What these equations say about RD = |w(end) - w(0)| / |w(0)| when the loss is small at the end: kappa' a_k^2 -
|w_k|^2 / kappa' does not change, and f is of order 1, so the sum of a_k |w_k| is of order 1 / kappa. Solved for the
leading power of m, RD is of order m^p with

    p = gamma - 1 - 2 max(gamma', 0)      for gamma <= 1, and for gamma >= 1
    p = 2 (gamma - 1 - gamma')            where gamma' >= gamma - 1 (the output weights do the work),
    p = gamma - 1                         where gamma' <= 1 - gamma (the input weights do it),
    p = (gamma - 1 - gamma') / 2          in between (both grow together),

whose sign is that of the paper's phase diagram: RD vanishes where gamma < 1 or gamma' > gamma - 1.
"""

import numpy as np

from ._checks import generator, number, real

REFRESH = 50  # steps after which the kernel is computed again even if the weights have hardly changed
DRIFT = 0.05  # relative change of the weights' size that asks for it at once


def start_weights(width, dim, seed):
    """Draw an antisymmetric start: neuron k + m/2 has neuron k's input weights and minus its output weight, so f = 0.

    Parameters
    ----------
    width, dim : int
        m, an even number, and the length D of an input with its one appended.
    seed : int or numpy.random.Generator

    Returns
    -------
    a : ndarray, shape (m,)
    w : ndarray, shape (D, m)
    """
    draws = generator("seed", seed).standard_normal((dim + 1, width // 2))
    return np.concatenate([draws[0], -draws[0]]), np.tile(draws[1:], 2)


def tangent_kernel(a, w, inputs, kappa, ratio):
    """The flow's kernel: df(x_i)/dt = -(1/n) sum_j K_ij e_j.

    K = kappa [kappa' sum_k a_k^2 s'(.) s'(.) <x_i, x_j> + (1/kappa') sum_k s(.) s(.)].

    Parameters
    ----------
    a, w : ndarray, shapes (R, m) and (R, D, m)
    inputs : ndarray, shape (n, D)
    kappa, ratio : ndarray, shape (R,)
        kappa and kappa'.

    Returns
    -------
    ndarray, shape (R, n, n)
    """
    before = inputs @ w
    on = (before > 0) * 1.0
    hidden, back = on * before, on.swapaxes(1, 2)
    slopes = (on * (a * a)[:, None]) @ back * (inputs @ inputs.T)
    return kappa[:, None, None] * (
        ratio[:, None, None] * slopes + hidden @ hidden.swapaxes(1, 2) / ratio[:, None, None]
    )


def velocity(a, w, inputs, y, kappa, ratio):
    """Errors e, shape (R, n), the pulls v, shape (R, D, m), and the flow's da/dt and dw/dt, shaped as `a` and `w`."""
    on = (inputs @ w > 0) * 1.0
    moments = on @ (a[:, None] * w).swapaxes(1, 2)
    errors = kappa[:, None] * (moments * inputs).sum(axis=2) - y
    pulls = (inputs.T * errors[:, None]) @ on / len(y)
    return errors, pulls, -(w * pulls).sum(axis=1) / ratio[:, None], -(ratio[:, None] * a)[:, None] * pulls


def gradient_flow(x, y, *, width, gamma, gamma_prime, seed=0, tolerance=0.01, step_fraction=0.5, max_steps=20_000):
    r"""Follow the flow by gradient descent from an antisymmetric start until the loss has fallen to `tolerance`.

    The step is `step_fraction` / (lambda_max(K) / n + max_k |v_k|), for each run by itself. The Hessian of the loss, in
    the metric of the flow, is J^T J / n, whose largest eigenvalue is that of the tangent kernel K / n, plus one block
    for each neuron, whose eigenvalues are 0 and +-|v_k|: so the step is below 1 / |Hessian|, also while a small network
    grows and K says nothing yet. v is new at each step; K is computed again after 50 steps, or when the weights' size
    has changed by 5 %.

    Parameters
    ----------
    x, y : array_like, shapes (n, dim) and (n,)
    width : int
        m, an even number.
    gamma, gamma_prime, seed : array_like
        One run for each entry; they are broadcast against each other to a shape S. Seeds are whole numbers; runs of
        equal seed and width start from the same weights. kappa and kappa' lie between 1e-300 and 1e300.
    tolerance : float
        Loss, relative to the start, at which a run has converged; between 0 and 1.
    step_fraction : float
        Above 0, at most 1.
    max_steps : int
        A run that has not converged by then is given up.

    Returns
    -------
    dict of ndarray
        "relative_change" (the paper's RD = |w(end) - w(0)| / |w(0)|), "converged", "relative_loss", "steps", "time"
        (of the flow), each of shape S; "start" and "weights", the input weights w before and after, shape
        S + (m, dim + 1), the bias last; "outputs", the weights a after, shape S + (m,).

    Raises
    ------
    ValueError
        If an argument is out of its range or the data are empty, not finite, of unequal length, or all targets are 0.
    FloatingPointError
        If numbers overflow; the message names the runs.

    Examples
    --------
    A small start (gamma = 1.5) moves the input weights far, a large one (gamma = 0.5) does not:

    >>> from feature_learning import data
    >>> run = gradient_flow(*data.relu_teacher(6), width=100, gamma=[0.5, 1.5], gamma_prime=0)
    >>> run["converged"].all().item(), run["relative_change"].round(1).tolist()
    (True, [0.1, 3.0])
    """
    x, y = real("x", x), real("y", y)
    if x.ndim != 2 or y.shape != (len(x),) or not y.any():
        raise ValueError(f"x must have shape (n, dim) and y n entries, not all 0; got {x.shape} and {y.shape}")
    if (width := number("width", width, 2, integer=True)) % 2:
        raise ValueError(f"width must be even, because the start is antisymmetric; got {width}")
    tolerance = number("tolerance", tolerance, 0, 1, open_low=True)
    step_fraction = number("step_fraction", step_fraction, 0, 1, open_low=True)
    max_steps = number("max_steps", max_steps, 0, integer=True)
    gamma, gamma_prime = real("gamma", gamma), real("gamma_prime", gamma_prime)
    for name, values in (("gamma", gamma), ("gamma_prime", gamma_prime)):
        if (largest := np.abs(values).max()) > (limit := 300 / np.log10(width)):
            allowed = f"between -{limit:.4g} and {limit:.4g} at width {width}, so that width^-{name} is a number"
            raise ValueError(f"{name} must lie {allowed}; got one of size {largest:g}")
    seeds = np.asarray(seed)
    if seeds.dtype.kind not in "iu" or seeds.size == 0 or seeds.min() < 0 or np.ma.is_masked(seed):
        raise ValueError(f"seed must hold whole numbers >= 0; got {seed!r}")
    try:
        runs = np.broadcast_arrays(gamma, gamma_prime, seeds)
    except ValueError as why:
        shapes = gamma.shape, gamma_prime.shape, seeds.shape
        raise ValueError(f"gamma, gamma_prime and seed must fit together by broadcasting; got shapes {shapes}") from why
    shape, (gamma, gamma_prime, seeds) = runs[0].shape, (r.ravel() for r in runs)
    inputs = np.column_stack([x, np.ones(len(x))])
    starts = {s: start_weights(width, inputs.shape[1], s) for s in set(seeds.tolist())}
    first_a, first_w = (np.stack([starts[s][part] for s in seeds.tolist()]) for part in (0, 1))
    group = max(1, 8192 // width)  # a few runs at a time, so that their arrays stay in the cache
    with np.errstate(over="ignore", invalid="ignore"):  # _descend raises when numbers stop being finite
        kappa, ratio = float(width) ** -gamma, float(width) ** -gamma_prime
        each = first_a, first_w, kappa, ratio
        parts = [
            _descend(inputs, y, *(v[i : i + group] for v in each), tolerance, step_fraction, max_steps, i)
            for i in range(0, len(seeds), group)
        ]
    result = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    result["relative_change"] = np.linalg.norm(result["weights"] - first_w, axis=(1, 2))
    result["relative_change"] /= np.linalg.norm(first_w, axis=(1, 2))
    result |= {"start": first_w.swapaxes(1, 2), "weights": result["weights"].swapaxes(1, 2)}
    return {key: value.reshape(shape + value.shape[1:]) for key, value in result.items()}


def _descend(inputs, y, a, w, kappa, ratio, tolerance, step_fraction, max_steps, number_of_first):
    """Run a group of flows side by side; those that have converged leave the arrays."""
    runs, n, live = len(a), len(y), np.arange(len(a))
    end = {"relative_loss": np.ones(runs), "steps": np.zeros(runs, int), "time": np.zeros(runs)}
    end |= {"weights": w.copy(), "outputs": a.copy()}
    time, top, size_then, age = (np.zeros(runs) for _ in range(4))
    for step in range(max_steps + 1):
        errors, pulls, rate_a, rate_w = velocity(a, w, inputs, y, kappa, ratio)
        relative = (errors**2).mean(axis=1) / (y**2).mean()
        if not np.isfinite(relative).all():
            wrong = live[~np.isfinite(relative)] + number_of_first
            raise FloatingPointError(
                f"the flow overflowed at step {step} in runs {wrong.tolist()} (counted along S); "
                f"scale x and y, or lower step_fraction (now {step_fraction})"
            )
        done = (relative <= tolerance) | (step == max_steps)
        if done.any():
            now = {"relative_loss": relative, "steps": step, "time": time, "weights": w, "outputs": a}
            for key, value in now.items():
                end[key][live[done]] = value[done] if np.ndim(value) else value
            keep = ~done
            if not keep.any():
                break
            a, w, kappa, ratio, pulls, rate_a, rate_w, time, top, size_then, age, live = (
                v[keep] for v in (a, w, kappa, ratio, pulls, rate_a, rate_w, time, top, size_then, age, live)
            )
        size = ratio * (a * a).sum(axis=1) + (w * w).sum(axis=(1, 2)) / ratio
        stale = (np.abs(size - size_then) > DRIFT * size_then) | (age >= REFRESH)
        if stale.any():
            kernel = tangent_kernel(a[stale], w[stale], inputs, kappa[stale], ratio[stale])
            top[stale], size_then[stale], age[stale] = np.linalg.eigvalsh(kernel)[:, -1], size[stale], 0
        rate = top / n + np.sqrt((pulls**2).sum(axis=1).max(axis=1))
        eta = np.divide(step_fraction, rate, out=np.zeros_like(rate), where=rate > 0)  # 0: no neuron sees a data point
        a, w, time, age = a + eta[:, None] * rate_a, w + eta[:, None, None] * rate_w, time + eta, age + 1
    return end | {"converged": end["relative_loss"] <= tolerance}
