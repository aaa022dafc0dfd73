r"""Mean-field Langevin dynamics: a two-layer network as a cloud of noisy particles.

A particle x = (w, b, c) in R^(d+1+1) is one neuron, the network is the average over the cloud,

    h_x(z) = R [tanh(<w, z> + b) + 2 tanh(c)] / 3,      f(z) = (1/N) sum_i h_{x_i}(z),

and one step of size eta at temperature lambda is

    x <- x - eta grad(dU/dmu)(x) - 2 eta lambda lambda_1 x + sqrt(2 lambda eta) xi,      xi ~ N(0, I),

with U the mean logistic loss and lambda_1 the weight decay: Suzuki, Wu, Oko and Nitanda (2023), equation 4 and
section 4. The same lines run on NumPy and on CuPy arrays.
"""

import math
import numbers
import warnings
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from queue import SimpleQueue
from threading import Event, Lock, Thread, get_ident

import numpy as np
from joblib import cpu_count
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import ThreadpoolController

from ._checks import choice, generator, number
from .history import History, recording_steps, stack

FARTHEST_MOVE = 50  # of an offset c in one step, before a run counts as diverged; tanh is flat from 20 on


def array_module(device="auto"):
    """Return CuPy where a GPU can be used, else NumPy.

    Parameters
    ----------
    device : {"auto", "cpu", "gpu"}
        "auto" takes the GPU if CuPy is installed and a small computation on it succeeds.

    Returns
    -------
    module
        `cupy` or `numpy`.

    Raises
    ------
    ValueError
        If `device` is none of the three.
    RuntimeError
        If the GPU was asked for by name and cannot be used; the message says why.
    """
    choice("device", device, {"auto", "cpu", "gpu"})
    if device == "cpu":
        return np
    try:
        import cupy

        if not cupy.cuda.is_available():
            raise RuntimeError("CuPy finds no GPU")
    except (ImportError, RuntimeError) as why:
        if device == "gpu":
            raise RuntimeError(f"device='gpu' cannot be used here: {why}; take device='cpu'") from why
        return np
    try:
        float(cupy.arange(3.0).sum())
    except Exception as why:  # a driver too old, a card held by somebody else: CuPy's errors share no base class
        if device == "gpu":
            raise RuntimeError(f"device='gpu' cannot be used here: {why}; take device='cpu'") from why
        warnings.warn(f"a GPU is present but cannot be used ({why}); NumPy does the work", RuntimeWarning, stacklevel=2)
        return np
    return cupy


def to_numpy(array):
    """Return `array` as a NumPy array, from the GPU if it lies there."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def with_bias(inputs):
    """Append a column of ones: (n, d) -> (n, d + 1), so that a bias is one more weight."""
    return np.concatenate([inputs, np.ones((len(inputs), 1), dtype=inputs.dtype)], axis=1)


def network(particles, inputs, output_scale=15.0, *, xp=np):
    """The network's output, the average of the neurons.

    Parameters
    ----------
    particles : ndarray, shape (N, d + 2)
        Rows (w, b, c).
    inputs : ndarray, shape (n, d + 1)
        Data with a column of ones, see `with_bias`.
    output_scale : float
        R in the equation above.
    xp : module
        The particles' array module.

    Returns
    -------
    ndarray, shape (n,)
    """
    hidden = xp.tanh(particles[..., :-1] @ inputs.swapaxes(-1, -2))
    return output_scale / 3 * (hidden.mean(axis=-2) + 2 * xp.tanh(particles[..., -1:]).mean(axis=-2))


def logistic_loss(margins):
    """Mean of log(1 + exp(-margin)) over the last axis, stable for margins of any size."""
    margins = np.asarray(margins, dtype=float)
    return (np.maximum(-margins, 0) + np.log1p(np.exp(-np.abs(margins)))).mean(axis=-1)


class _Team:
    """Threads that share the blocks of a step; the calling thread is one of them.

    A step needs two rounds of work with a sum in between, every millisecond: queues take less time than the futures of
    `concurrent.futures`.
    """

    def __init__(self, size):
        self.queues, self.done = [SimpleQueue() for _ in range(size - 1)], SimpleQueue()
        for queue in self.queues:
            Thread(target=self._work, args=(queue,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for queue in self.queues:
            queue.put(None)

    @staticmethod
    def _work(queue):
        with np.errstate(over="ignore", invalid="ignore"):
            while (task := queue.get()) is not None:
                with suppress(Exception):  # what is done ahead of time fails again where it is needed
                    task()

    def later(self, block, blocks):
        """How to leave a task to the thread of this block, or of no block at all; None where that is the caller."""
        thread = block % (len(self.queues) + 1) if blocks > 1 else len(self.queues)
        return self.queues[thread - 1].put if thread else None

    def map(self, function, items):
        """As the built-in `map`, all items done on return, results in the items' order."""
        results, size, errors = [None] * len(items), len(self.queues) + 1, []

        def share(first):
            try:
                for k in range(first, len(items), size):
                    results[k] = function(items[k])
            except Exception as error:  # is raised again when all are done
                return error

        busy = self.queues[: len(items) - 1]
        for first, queue in enumerate(busy, 1):
            queue.put(lambda first=first: self.done.put(share(first)))
        try:
            errors.append(share(0))
        finally:
            errors += [self.done.get() for _ in busy]
        for error in filter(None, errors):
            raise error
        return results


def _blocks(n_particles, n):
    """Cut the particles into blocks, the same on every machine: two from 2^18 hidden values on, 2^19 values at most."""
    count = 1 if n_particles * n < 2**18 else 2
    while n_particles * n > count * 2**19 and count < n_particles:
        count *= 2
    edges = [n_particles * k // count for k in range(count + 1)]
    return [slice(*pair) for pair in pairwise(edges) if pair[0] < pair[1]]


def _hidden(work, block, particles, xp):
    """Room for the hidden values of one block: a part of the kept array, or scratch that each thread uses again."""
    if "hidden" in work:
        return work["hidden"][..., block, :]
    scratch = work.get(get_ident())
    if scratch is None or len(scratch) < len(particles):
        shape = *particles.shape[:-1], work["across"].shape[-1]
        scratch = work[get_ident()] = xp.empty(shape, particles.dtype)
    return scratch[: len(particles)]


def _forward(particles, work, hidden, xp):
    """Fill `hidden` with tanh(<w, z> + b), and tanh(c) in the last column but one; return it."""
    xp.matmul(particles, work["across"], out=hidden)
    return xp.tanh(hidden, out=hidden)


def _evaluate(particles, work, blocks, parallel, xp):
    """Network output f; and what A^2 is to be multiplied by for the gradient, shape (n + 2, d + 2)."""

    def forward(block):
        x = particles[..., block, :]
        hidden = _forward(x, work, _hidden(work, block, x, xp), xp)
        return work["mean"][: hidden.shape[-2]] @ hidden

    sums, *others = parallel(forward, blocks)
    for more in others:
        sums += more
    output, slope = sums[..., :-2] + 2 * sums[..., -2:-1], work["slope"]
    growth = xp.exp(work["labels"] * output)
    growth += 1
    xp.divide(work["factor"], growth, out=slope[..., :-2])
    slope[..., -2] = slope[..., :-2] @ work["two"]
    pull = slope[..., None] * work["down"]
    pull[..., -1, :] = -(slope[..., None, :] @ work["down"])[..., 0, :]
    return output, pull


def _set_up(work, particles, inputs, labels, output_scale, factor, xp):
    """Constants and buffers of a step. The offset c counts as a weight, that of one more example (0, 0, 1)."""
    work = {} if work is None else work
    of = inputs, labels, particles.shape, particles.dtype, output_scale, factor
    if "of" in work and work["of"][0] is inputs and work["of"][1] is labels and work["of"][2:] == of[2:]:
        return work
    work.clear()
    (*lead, count, width), n, dtype = particles.shape, labels.shape[-1], particles.dtype
    size = math.prod(lead) * count * (n + 2)
    try:
        down = xp.zeros((*inputs.shape[:-2], n + 2, width), dtype)
        down[..., :-2, :-1], down[..., -2, -1] = inputs, 1
        work |= {
            "of": of,
            "down": down,
            "across": down.swapaxes(-1, -2).copy(),
            "labels": labels.astype(dtype),
            "factor": (labels * (output_scale * factor / (3 * n))).astype(dtype),
            "gradient": xp.empty_like(particles),
            "slope": xp.zeros((*lead, n + 2), dtype),
            "mean": xp.full(count, output_scale / (3 * count), dtype),
            "two": xp.full(n, 2, dtype),
        }
        if size <= KEPT:
            work["hidden"] = xp.empty((*lead, count, n + 2), dtype)
    except MemoryError as why:
        raise MemoryError(
            f"no memory for a step with {size} hidden values ({why}); lower n_particles, or how many "
            f"of them are kept, feature_learning.mfld.KEPT (now {KEPT})"
        ) from why
    return work


KEPT = 2**26  # hidden values that are kept from the first half of a step to the second; more are computed twice
WHOLE = (slice(None),)
PIECE = 2**18  # normal numbers that are drawn in one go, for several steps if the cloud is small


def _descend(particles, block, pull, work, xp):
    """Gradient of one block, times what `_set_up` was given as factor, and the block itself.

    With A for the hidden values, sum_j (1 - A_j^2) s_j z_j is a sum that all particles share minus a product with A^2:
    no second array of A's size. The shared sum is the last row of `pull`, where a one takes the place of A.
    """
    x, gradient = particles[..., block, :], work["gradient"][..., block, :]
    hidden = _hidden(work, block, x, xp)
    if "hidden" not in work:
        _forward(x, work, hidden, xp)
    hidden[..., -1] = 1
    xp.multiply(hidden, hidden, out=hidden)
    xp.matmul(hidden, pull, out=gradient)
    return x, gradient


def risk_gradient(particles, inputs, labels, output_scale=15.0, *, xp=np, work=None):
    r"""Gradient, at each particle, of the functional derivative of the mean logistic loss.

    With f the network's output and s_j = -y_j / (1 + exp(y_j f_j)) / n the derivative of the loss in f_j (it holds the
    label already; multiplying by the label once more is the mistake that the corrections page reports),

        grad_(w,b) = R/3 sum_j s_j (1 - tanh^2(<w, z_j> + b)) (z_j, 1),     grad_c = 2R/3 (1 - tanh^2(c)) sum_j s_j.

    This is N times the gradient of the loss in the particle's coordinates: Suzuki et al. (2023), section 2.

    Parameters
    ----------
    particles : ndarray, shape (N, d + 2)
    inputs : ndarray, shape (n, d + 1)
        Data with a column of ones.
    labels : ndarray, shape (n,)
        -1 or 1.
    output_scale : float
    xp : module
        The arrays' module.
    work : dict, optional
        Buffers and constants, made by the first call and used again by the next ones with the same arrays `inputs` and
        `labels`, which must not be changed in between.

    Returns
    -------
    output : ndarray, shape (n,)
        The network before the step.
    gradient : ndarray, shape (N, d + 2)
        Overwritten by the next call if `work` is given.
    """
    work = _set_up(work, particles, inputs, labels, output_scale, 1, xp)
    blocks = _blocks(len(particles), len(inputs))
    output, pull = _evaluate(particles, work, blocks, map, xp)
    for block in blocks:
        _descend(particles, block, pull, work, xp)
    return output, work["gradient"]


def langevin_step(
    particles,
    inputs,
    labels,
    noise,
    *,
    step_size,
    temperature,
    weight_decay,
    output_scale=15.0,
    xp=np,
    work=None,
    blocks=WHOLE,
    parallel=map,
):
    """One mean-field Langevin step, in place: Suzuki et al. (2023), equation 4.

    The temperature multiplies the weight decay as well as the noise, because the objective is
    U + lambda (lambda_1 E|x|^2 + negative entropy): without a loss the stationary law is then N(0, 1 / (2 lambda_1)) at
    every temperature.

    Parameters
    ----------
    particles : ndarray, shape (N, d + 2)
        Changed in place. All arrays may have one more axis in front, for independent runs; then `blocks` is left out.
    inputs, labels : ndarray, shapes (n, d + 1) and (n,)
    noise : ndarray, shape (N, d + 2), or callable
        Standard normal numbers; overwritten. Or a function that returns those of a block.
    step_size, weight_decay, output_scale : float
    temperature : float, or an array of shape (R, 1, 1) for R runs
    xp : module
    work : dict, optional
        See `risk_gradient`.
    blocks : sequence of slice
        Blocks of particles that are worked on one by one, or at once if `parallel` says so.
    parallel : callable
        `map`, or a thread pool's.

    Returns
    -------
    ndarray, shape (n,)
        The network's output before the step.
    """
    work = _set_up(work, particles, inputs, labels, output_scale, step_size, xp)
    output, pull = _evaluate(particles, work, blocks, parallel, xp)
    kick, shrink = (2 * temperature * step_size) ** 0.5, 1 - 2 * step_size * temperature * weight_decay

    def move(block):
        x, gradient = _descend(particles, block, pull, work, xp)
        xi = noise(block) if callable(noise) else noise[..., block, :]
        xi *= kick
        x *= shrink
        x -= gradient
        x += xi

    for _ in parallel(move, blocks):
        pass
    return output


def _normals(rng, out, uniform):
    """Fill a float32 array with normal numbers by Box and Muller (1958); `uniform` is scratch for as many, in two rows.

    NumPy draws them one by one. This way logarithm, root, cosine and sine work on whole arrays and take a third of the
    time. The radius is a function of 24 random bits, so nothing beyond 5.8 standard deviations comes up (where a true
    normal number lies once in a hundred million). Axes in front of the rows are arrays drawn one after another.
    """
    radius, angle = uniform[..., 0, :], uniform[..., 1, :]
    rng.random(out=uniform, dtype=np.float32)
    np.subtract(1, radius, out=radius)  # in (0, 1]
    np.log(radius, out=radius)
    radius *= -2
    np.sqrt(radius, out=radius)
    angle *= 2 * math.pi
    flat, half = out.reshape(*uniform.shape[:-2], -1), uniform.shape[-1]
    np.cos(angle, out=flat[..., :half])
    flat[..., :half] *= radius
    np.sin(angle, out=angle)
    angle *= radius
    flat[..., half:] = angle[..., : flat.shape[-1] - half]


def _streams(rng, blocks):
    """A function that fills an array with the normal numbers of one block for some steps, each block its generator."""
    streams = dict(zip((b.start for b in blocks), rng.spawn(len(blocks)), strict=True))
    scratch = {}

    def draw(out, block):
        stream, size = streams[block.start], out[0].size
        if out.dtype != np.float32 or size < 4096:
            return stream.standard_normal(out=out, dtype=out.dtype)
        if block.start not in scratch:
            scratch[block.start] = np.empty((len(out), 2, -(-size // 2)), np.float32)
        return _normals(stream, out, scratch[block.start])

    return draw


class _Ahead:
    """The noise of one block, a piece of several steps at a time; the next piece may be drawn by another thread."""

    def __init__(self, draw, particles, block, later, xp):
        *lead, count, width = particles[..., block, :].shape
        self.steps = max(1, PIECE // particles.size)
        self.pieces = [xp.empty((*lead, self.steps, count, width), particles.dtype) for _ in range(1 + bool(later))]
        self.draw, self.later, self.lock = partial(draw, block=block), later, Lock()
        self.left, self.ready = 0, False

    def fill(self):
        """Draw the next piece if that has not been done."""
        with self.lock:
            if not self.ready:
                self.draw(self.pieces[-1])
                self.ready = True

    def __call__(self):
        """The noise of the next step."""
        if self.left == 0:
            self.fill()
            self.pieces.reverse()
            self.left, self.ready = self.steps, False
            if self.later:
                self.later(self.fill)
        self.left -= 1
        return self.pieces[0][..., self.steps - self.left - 1, :, :]


def _device_stream(rng, xp):
    """The same with the device's one generator."""
    stream = xp.random.default_rng(int(rng.integers(2**63)))

    def draw(out, block):
        out[...] = stream.standard_normal(out.shape, dtype=out.dtype)

    return draw


class _OneThreadEach:
    """Products of the linear algebra get one thread each while any fit runs; fits may overlap in threads of Python."""

    lock, users, limit = Lock(), 0, None

    def __enter__(self):
        kind = type(self)
        with kind.lock:
            blas = ThreadpoolController().select(user_api="blas")
            self.allowed = max([library.num_threads for library in blas.lib_controllers], default=1)
            if kind.users == 0:
                kind.limit = blas.limit(limits=1)
            kind.users += 1
        return self

    def __exit__(self, *_):
        kind = type(self)
        with kind.lock:
            kind.users -= 1
            if kind.users == 0:
                kind.limit.restore_original_limits()


@contextmanager
def _threads(most):
    """A team of at most so many threads, and no more than the linear algebra was allowed."""
    # no warning of overflow: a run itself raises when its numbers stop being finite
    with _OneThreadEach() as limit, np.errstate(over="ignore", invalid="ignore"):
        with _Team(min(most, limit.allowed, cpu_count())) as team:
            yield team


def _run(estimators, particles, inputs, labels, temperature, draw, xp, blocks=WHOLE, team=None, stop=None):
    """Move the particles in place; return one record for each estimator: several share a leading axis of the arrays."""
    like, n = estimators[0], labels.shape[-1]
    record = set(recording_steps("record_every", like.record_every, like.n_steps).tolist())
    rows, finished, bound = [], False, None
    later = [team.later(k, len(blocks)) if team else None for k in range(len(blocks))]
    pieces = {b.start: _Ahead(draw, particles, b, put, xp) for b, put in zip(blocks, later, strict=True)}
    settings = {k: getattr(like, k) for k in ("step_size", "weight_decay", "output_scale")}
    settings |= {
        "blocks": blocks,
        "parallel": team.map if team and len(blocks) > 1 else map,
        "xp": xp,
        "work": {},
        "noise": lambda block: pieces[block.start](),
    }
    try:
        for step in range(like.n_steps + 1):
            if stop is not None and stop.is_set():
                raise KeyboardInterrupt
            now = temperature(step)
            copy = to_numpy(particles).copy() if step in record else None
            if step == like.n_steps:
                output = network(particles, inputs, like.output_scale, xp=xp)
            else:
                output = langevin_step(particles, inputs, labels, temperature=now, **settings)
            if copy is None and step % 10 and 10 < step < like.n_steps:
                continue
            margins = to_numpy(labels * output).astype(float)
            loss = logistic_loss(margins)
            # The network is bounded, so a step too large shows in two ways: the loss rises far above the R / sqrt(N) by
            # which noise alone moves the output, or an offset moves to where tanh is flat for ever.
            if bound is None:
                bound = 6 * np.maximum(loss, math.log(2)) + 3 * like.output_scale / math.sqrt(like.n_particles)
            move = np.abs((to_numpy(labels) * expit(-margins)).mean(axis=-1)) * 2 / 3 * like.output_scale
            move = move * like.step_size
            if not np.all(np.isfinite(loss) & (loss <= bound) & (move <= FARTHEST_MOVE)):
                raise FloatingPointError(
                    f"the dynamics diverged by step {step}: loss {np.max(loss):.3g}, last recorded loss "
                    f"{np.max(rows[-1]['loss']) if rows else None}, an offset moves by up to {np.max(move):.3g} in one "
                    f"step; lower step_size (now {like.step_size}), or scale X"
                )
            if copy is not None:
                heat = to_numpy(now).ravel() if np.ndim(now) else now
                rows.append({"steps": step, "loss": loss, "temperature": heat, "particles": copy})
        finished = True
    except KeyboardInterrupt:
        if stop is not None:
            stop.set()
    runs = range(len(estimators)) if labels.ndim == 2 else [...]
    return [_history(e, rows, k, n, finished) for e, k in zip(estimators, runs, strict=True)]


def _history(estimator, rows, k, n, finished):
    """The record of one run out of rows that hold one run, or run k of several."""
    series = stack([{key: v if key == "steps" else np.asarray(v)[k] for key, v in row.items()} for row in rows])
    steps, snapshots = series.pop("steps"), {key: series.pop(key) for key in ("particles",) if key in series}
    settings = {key: v for key, v in estimator.get_params().items() if isinstance(v, (numbers.Real, str, type(None)))}
    return History(steps, series, steps, snapshots, settings | {"n": n}, finished)


def fit_many(estimators, X, y):
    """Fit independent runs at once: what differs is data, temperature and random state.

    On a CPU each thread takes whole runs, small ones several at once, and the results are those of separate fits, to
    rounding where several run at once. On a GPU all runs share one leading axis, so that many small ones fill the card.
    Ctrl-C stops all runs and keeps their records.

    Parameters
    ----------
    estimators : sequence of MeanFieldLangevinClassifier
        R of them, equal in all parameters but `temperature` and `random_state`. Fitted in place.
    X : array_like, shape (R, n, d), or (n, d) for all
        A list of R arrays of equal shape will do.
    y : array_like, shape (R, n), or (n,) for all

    Returns
    -------
    list of MeanFieldLangevinClassifier
        The estimators.

    Raises
    ------
    ValueError
        If there is none, their parameters differ, or the data of the runs differ in shape; and as `fit`.
    FloatingPointError
        If a run diverges.
    """
    estimators = list(estimators)
    if not estimators:
        raise ValueError("estimators must hold one or more; got none")
    shared = [e.get_params() for e in estimators]
    fixed = set(shared[0]) - {"temperature", "random_state"}
    unequal = sorted(k for k in fixed if any(other[k] != shared[0][k] for other in shared))
    if unequal:
        raise ValueError(f"estimators must be equal in all but temperature and random_state; got unequal {unequal}")
    data = []
    for name, values, one in (("X", X, 2), ("y", y, 1)):
        runs = list(values) if np.ndim(values[0]) == one else [values] * len(estimators)
        shapes = sorted({np.shape(run) for run in runs})
        if len(runs) != len(estimators) or len(shapes) != 1:
            raise ValueError(f"{name} must hold {len(estimators)} runs of one shape; got {len(runs)}, shapes {shapes}")
        data.append(runs)
    starts = [e._prepare(*run) for e, *run in zip(estimators, *data, strict=True)]
    xp, size = starts[0][-1], starts[0][0].shape[0] * starts[0][2].shape[0]
    if xp is not np:
        _together(estimators, starts, _device_stream(starts[0][3], xp), None)
        return estimators
    blocks = _blocks(len(starts[0][0]), len(starts[0][2]))
    with _threads(len(estimators)) as team:
        # small runs are stacked, so that a thread has some work to do between two words with the interpreter
        most = -(-len(estimators) // (len(team.queues) + 1))
        stack = min(max(1, 2**17 // size), most)
        stop = Event()  # Ctrl-C reaches one thread and stops them all

        def work(first):
            some = slice(first, first + stack)
            if stack == 1:
                estimators[first]._descend(*starts[first], blocks, stop=stop)
            else:
                draws = [_streams(start[3], WHOLE) for start in starts[some]]
                _together(estimators[some], starts[some], partial(_each, draws), stop)

        team.map(work, range(0, len(estimators), stack))
    return estimators


def _each(draws, out, block):
    for draw, one in zip(draws, out, strict=True):
        draw(one, block)


def _together(estimators, starts, draw, stop):
    """Run estimators of one shape along a leading axis."""
    xp = starts[0][-1]
    clouds, inputs, labels = (xp.stack(part) for part in list(zip(*starts, strict=True))[:3])

    def temperature(step):
        now = [e._temperature(step, labels.shape[-1]) for e in estimators]
        return xp.asarray(now, dtype=clouds.dtype)[:, None, None]

    histories = _run(estimators, clouds, inputs, labels, temperature, draw, xp, stop=stop)
    for estimator, history, cloud in zip(estimators, histories, clouds, strict=True):
        estimator.history_, estimator.particles_ = history, to_numpy(cloud)


class MeanFieldLangevinClassifier(ClassifierMixin, BaseEstimator):
    r"""A two-layer network trained by mean-field Langevin dynamics, as a scikit-learn binary classifier.

    The defaults are the setting of Suzuki, Wu, Oko and Nitanda (2023), figure 1.

    Parameters
    ----------
    n_particles : int
        Number N of neurons.
    n_steps : int
        Number of steps.
    step_size : float
        eta, above 0.
    temperature : None, float or callable
        lambda: None for the paper's 0.1 / n, a number >= 0 (0 is the noiseless mean field), or a function of the step
        (an annealing schedule) that returns one.
    weight_decay : float
        lambda_1, at least 0; multiplied by the temperature.
    output_scale : float
        R, above 0.
    record_every : None, int or sequence of int
        When to keep the loss and all particles; None for the first and the last step.
    dtype : {"float32", "float64"}
        Precision of the training; predictions are always made in float64.
    device : {"auto", "cpu", "gpu"}
        See `array_module`.
    random_state : None, int or numpy.random.Generator
        Source of randomness.

    Attributes
    ----------
    classes_ : ndarray, shape (2,)
        The labels; the second one is the class of positive outputs.
    particles_ : ndarray, shape (N, d + 2)
        Rows (w, b, c) after training.
    history_ : History
        Series "loss" (mean logistic loss) and "temperature", snapshots "particles".
    n_features_in_ : int
        d.

    Notes
    -----
    Inputs are used as they are; with |z| of order 1 the default step size is stable. Ctrl-C during `fit` keeps the
    particles reached so far and marks `history_.finished` False.
    """

    def __init__(
        self,
        n_particles=2000,
        n_steps=10_000,
        step_size=0.2,
        temperature=None,
        weight_decay=0.1,
        output_scale=15.0,
        record_every=None,
        dtype="float32",
        device="auto",
        random_state=None,
    ):
        self.n_particles = n_particles
        self.n_steps = n_steps
        self.step_size = step_size
        self.temperature = temperature
        self.weight_decay = weight_decay
        self.output_scale = output_scale
        self.record_every = record_every
        self.dtype = dtype
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def _check(self):
        number("n_particles", self.n_particles, 1, integer=True)
        number("n_steps", self.n_steps, 0, integer=True)
        number("step_size", self.step_size, 0, open_low=True)
        number("weight_decay", self.weight_decay, 0)
        number("output_scale", self.output_scale, 0, open_low=True)
        if self.temperature is not None and not callable(self.temperature):
            number("temperature", self.temperature, 0)
        choice("dtype", self.dtype, {"float32", "float64"})
        generator("random_state", self.random_state)

    def _temperature(self, step, n):
        if self.temperature is None:
            return 0.1 / n
        return number("temperature", self.temperature(step), 0) if callable(self.temperature) else self.temperature

    def fit(self, X, y):
        """Run the dynamics on the training data.

        Parameters
        ----------
        X : array_like, shape (n, d)
        y : array_like, shape (n,)
            Labels of two classes.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter is out of its range, X is not finite, or y does not hold exactly two classes.
        FloatingPointError
            If the run diverges.
        """
        start, inputs, labels, rng, xp = self._prepare(X, y)
        blocks = _blocks(len(start), len(labels)) if xp is np else WHOLE
        # a second thread is worth its while for the noise alone
        with _threads(max(len(blocks), 1 + (xp is np))) as team:
            self._descend(start, inputs, labels, rng, xp, blocks, team)
        return self

    def _prepare(self, X, y):
        """Check everything; return particles, inputs, labels (on the device), random source and array module."""
        self._check()
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        kind = type_of_target(y)
        classes = np.unique(y)
        if kind != "binary" or len(classes) != 2:
            raise ValueError(
                f"Only binary classification is supported. The type of the target is {kind}; y must hold two classes, "
                f"got {len(classes)} class{'es' if len(classes) > 1 else ''}"
            )
        recording_steps("record_every", self.record_every, self.n_steps)
        xp, rng = array_module(self.device), generator("random_state", self.random_state)
        self.classes_ = classes
        start = rng.standard_normal((self.n_particles, X.shape[1] + 2))
        with np.errstate(over="ignore"):
            arrays = start, with_bias(X), 2 * (y == classes[1]) - 1
            return *(xp.asarray(a, dtype=self.dtype) for a in arrays), rng, xp

    def _descend(self, particles, inputs, labels, rng, xp, blocks=WHOLE, team=None, stop=None):
        """Run the dynamics and keep its record."""
        n = len(labels)
        draw = _streams(rng, blocks) if xp is np else _device_stream(rng, xp)
        (self.history_,) = _run(
            [self], particles, inputs, labels, lambda step: self._temperature(step, n), draw, xp, blocks, team, stop
        )
        self.particles_ = to_numpy(particles)

    def decision_function(self, X):
        """The network's output f; positive for `classes_[1]`.

        Parameters
        ----------
        X : array_like, shape (n, d)

        Returns
        -------
        ndarray, shape (n,)
        """
        check_is_fitted(self)
        inputs = with_bias(validate_data(self, X, dtype=np.float64, reset=False))
        particles = self.particles_.astype(np.float64)
        block = max(1, 10_000_000 // len(particles))
        return np.concatenate(
            [network(particles, inputs[i : i + block], self.output_scale) for i in range(0, len(inputs), block)]
        )

    def predict(self, X):
        """The more likely class of each row of X, shape (n,)."""
        positive = self.decision_function(X) > 0
        return self.classes_[positive.astype(int)]

    def predict_proba(self, X):
        """Probabilities of the two classes under the logistic model, shape (n, 2)."""
        positive = expit(self.decision_function(X))
        return np.column_stack([1 - positive, positive])
