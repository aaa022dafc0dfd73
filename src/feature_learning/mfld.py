r"""Mean-field Langevin dynamics: a two-layer network as a cloud of noisy particles.

A particle x = (w, b, c) in R^(d+1+1) is one neuron, the network is the average over the cloud,

    h_x(z) = R [tanh(<w, z> + b) + 2 tanh(c)] / 3,      f(z) = (1/N) sum_i h_{x_i}(z),

and one step of size eta at temperature lambda is

    x <- x - eta grad(dU/dmu)(x) - 2 eta lambda lambda_1 x + sqrt(2 lambda eta) xi,      xi ~ N(0, I),

with U the mean logistic loss and lambda_1 the weight decay: Suzuki, Wu, Oko and Nitanda (2023), equation 4 and
section 4. The four functions are these formulas and run on NumPy and on CuPy arrays. The classifier takes the same step
faster, and on more devices, in `_engine`.
"""

import copy
import math
import numbers
import warnings

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from ._checks import choice, generator, number, unmasked
from ._engine import Engine, find_device
from .data import with_bias
from .history import Recorder

FARTHEST_MOVE = 50  # of an offset c in one step, before a run counts as diverged; tanh is flat from 20 on


def network(particles, inputs, output_scale=15.0):
    """The network's output, the average of the neurons; the array module is that of the particles.

    Parameters
    ----------
    particles : array, shape (N, d + 2)
        Rows (w, b, c).
    inputs : array, shape (n, d + 1)
        Data with a column of ones, see `data.with_bias`.
    output_scale : float
        R in the equation above.

    Returns
    -------
    array, shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> network(np.zeros((3, 4)), np.ones((2, 3)))
    array([0., 0.])
    """
    hidden, offset = np.tanh(particles[:, :-1] @ inputs.T), np.tanh(particles[:, -1])
    return output_scale / 3 * (hidden.mean(axis=0) + 2 * offset.mean())


def logistic_loss(margins):
    """Mean of log(1 + exp(-margin)) over the last axis, stable for margins of any size."""
    return np.logaddexp(0, np.negative(margins)).mean(axis=-1, dtype=float)


def risk_gradient(particles, inputs, labels, output_scale=15.0):
    r"""Gradient, at each particle, of the functional derivative of the mean logistic loss.

    With f the output and s_j = -y_j / (1 + exp(y_j f_j)) / n the derivative of the loss in f_j (it holds the label
    already; multiplying by it once more is the mistake that the corrections page reports),

        grad_(w,b) = R/3 sum_j s_j (1 - tanh^2(<w, z_j> + b)) (z_j, 1),     grad_c = 2R/3 (1 - tanh^2(c)) sum_j s_j.

    This is N times the gradient of the loss in the particle's coordinates: Suzuki et al. (2023), section 2.

    Parameters
    ----------
    particles, inputs, output_scale
        As for `network`.
    labels : array of -1 and 1, shape (n,)

    Returns
    -------
    array, shape (N, d + 2)
    """
    hidden, offset = np.tanh(particles[:, :-1] @ inputs.T), np.tanh(particles[:, -1])
    output = output_scale / 3 * (hidden.mean(axis=0) + 2 * offset.mean())
    with np.errstate(over="ignore"):  # of exp, where the slope is 0
        slope = -labels / (1 + np.exp(labels * output)) / len(labels)
    of_weights = ((1 - hidden**2) * slope) @ inputs
    of_offset = 2 * (1 - offset**2) * slope.sum()
    return output_scale / 3 * np.column_stack([of_weights, of_offset])


def langevin_step(particles, inputs, labels, noise, *, step_size, temperature, weight_decay, output_scale=15.0):
    """One mean-field Langevin step: Suzuki et al. (2023), equation 4.

    The temperature multiplies the weight decay as well as the noise, because the objective is
    U + lambda (lambda_1 E|x|^2 + negative entropy): without a loss the stationary law is then N(0, 1 / (2 lambda_1)) at
    every temperature.

    Parameters
    ----------
    particles, inputs, labels
        As for `risk_gradient`.
    noise : array, shape (N, d + 2)
        Standard normal numbers.
    step_size, temperature, weight_decay, output_scale : float
        eta, lambda, lambda_1 and R.

    Returns
    -------
    array, shape (N, d + 2)
        The particles after the step.
    """
    drift = risk_gradient(particles, inputs, labels, output_scale) + 2 * temperature * weight_decay * particles
    return particles - step_size * drift + math.sqrt(2 * temperature * step_size) * noise


def fit_many(estimators, X, y):
    """Fit independent runs at once: what differs is data, temperature and random state.

    All runs share one leading axis, so that many small ones fill a processor or a card; of large ones, each fills a
    processor by itself. The results are those of separate fits, to rounding. Ctrl-C stops all runs and keeps their
    records.

    Parameters
    ----------
    estimators : sequence of MeanFieldLangevinClassifier
        R of them, equal in all parameters but `temperature` and `random_state`. Fitted in place.
    X, y : array_like, shapes (R, n, d) and (R, n), or (n, d) and (n,) for all

    Returns
    -------
    list of MeanFieldLangevinClassifier

    Raises
    ------
    ValueError, FloatingPointError
        As `fit`; also if there is none, or parameters or shapes differ. All estimators then stay as they were.
    """
    estimators = list(estimators)
    if not estimators or len(set(map(id, estimators))) < len(estimators):
        raise ValueError(f"estimators must hold one or more, each once; got {estimators or 'none'}")
    shared = [e.get_params() for e in estimators]
    fixed = set(shared[0]) - {"temperature", "random_state"}
    unequal = sorted(k for k in fixed if any(not np.array_equal(other[k], shared[0][k]) for other in shared))
    if unequal:
        raise ValueError(f"estimators must be equal in all but temperature and random_state; got unequal {unequal}")
    data = []
    for name, values, one in (("X", X, 2), ("y", y, 1)):
        try:
            runs = list(values) if np.ndim(values[0]) == one else [values] * len(estimators)
        except (TypeError, LookupError) as why:  # a number, nothing, a table whose columns have names
            raise ValueError(f"{name} must be an array or a list that is not empty; got {values!r:.80}") from why
        shapes = sorted({np.shape(run) for run in runs})
        if len(runs) != len(estimators) or len(shapes) != 1:
            raise ValueError(f"{name} must hold {len(estimators)} runs of one shape; got {len(runs)}, shapes {shapes}")
        data.append(runs)
    return _run(estimators, *data)


def _run(estimators, X, y):
    """Check everything, move the particles of all estimators at once, and only then change the estimators."""
    like, ready = estimators[0], map(MeanFieldLangevinClassifier._prepare, estimators, X, y)
    fitted, clouds, inputs, labels, seeds = zip(*ready, strict=True)
    n, n_steps = len(labels[0]), int(like.n_steps)  # a small type would overflow at n_steps + 1
    length = max(np.median(np.hypot.reduce(z[:, :-1], axis=1)) for z in inputs)
    if not length <= max(10, 2 * math.sqrt(inputs[0].shape[1])):
        warnings.warn(
            f"X has rows of typical length {length:.3g}, where tanh(<w, z> + b) is flat and learns nothing: scale X, "
            "as make_pipeline(StandardScaler(), MeanFieldLangevinClassifier()) does",
            stacklevel=3,
        )
    spread = 3 * like.output_scale / math.sqrt(like.n_particles)  # by which noise alone moves the output
    bound = lambda loss: 6 * np.maximum(loss, math.log(2)) + spread  # noqa: E731
    recorder = Recorder(n_steps, like.record_every, like.record_every, bound=bound)
    settings = {k: getattr(like, k) for k in ("step_size", "weight_decay", "output_scale", "dtype")}
    engine = Engine(clouds, inputs, labels, seeds, device=find_device(like.device, like.dtype), **settings)
    with recorder:
        for step in range(n_steps + 1):
            heat = [e._temperature(step, n) for e in estimators]
            cloud = engine.cloud() if recorder.records(step) else None
            judged = cloud is not None or step % 10 == 0 or step < 10 or step == n_steps
            output = engine.output() if judged else None
            if step < n_steps:
                engine.step(heat, output)
            if not judged:
                continue
            # a step too large lets the loss rise far above the spread, or an offset go where tanh is flat for ever
            (loss, move), last = engine.measure(output), recorder.last
            if (recorder.diverged(loss) | ~(move <= FARTHEST_MOVE)).any():
                raise FloatingPointError(
                    f"the dynamics diverged by step {step}: loss {np.max(loss):.3g}, last loss within bounds {last}, "
                    f"an offset moves by up to {np.max(move):.3g} in a step; lower step_size (now {like.step_size}), "
                    "or scale X"
                )
            if cloud is not None:
                recorder.record(step, loss=loss, temperature=heat)
                recorder.copy(step, particles=cloud)
    history, particles = recorder.history({}), engine.cloud()
    for k, estimator in enumerate(estimators):
        estimator.__dict__ = fitted[k] | {"history_": history.run(k), "particles_": particles[k]}
        kept = {key: v for key, v in estimator.get_params().items() if isinstance(v, (numbers.Real, str, type(None)))}
        estimator.history_.settings |= kept | {"n": n}
    return estimators


class MeanFieldLangevinClassifier(ClassifierMixin, BaseEstimator):
    r"""A two-layer network trained by mean-field Langevin dynamics, as a scikit-learn binary classifier.

    The defaults are the setting of Suzuki, Wu, Oko and Nitanda (2023), figure 1.

    Parameters
    ----------
    n_particles, n_steps : int
        Number N of neurons, and of steps.
    step_size : float
        eta, above 0.
    temperature : None, float or callable
        lambda: None for the paper's 0.1 / n, a number >= 0 (0: noiseless), or a function of the step (annealing).
    weight_decay, output_scale : float
        lambda_1, at least 0, which the temperature multiplies, and R, above 0.
    record_every : None, int or sequence of int
        When to keep the loss and all particles; None for the first and the last step.
    dtype : {"float32", "float64"}
        Precision of the training; predictions are always made in float64.
    device : {"auto", "cpu", "gpu"}
        "auto" takes CUDA if PyTorch finds it, or Apple's MPS if `dtype` is "float32", and else the CPU.
    random_state : None, int or numpy.random.Generator
        Source of randomness. One seed gives the same bits in every thread of Python; another number of threads in the
        linear algebra may change the last digits.

    Attributes
    ----------
    classes_ : ndarray, shape (2,)
        The labels; the second one is the class of positive outputs.
    particles_ : ndarray, shape (N, d + 2)
        Rows (w, b, c) after training.
    history_ : History
        Series "loss" (mean logistic loss) and "temperature", snapshots "particles".

    Notes
    -----
    Inputs are used as they are; with |z| of order 1 the default step size is stable. Ctrl-C keeps what was reached so
    far and marks `history_.finished` False. A fit that fails leaves the classifier as it was.

    Examples
    --------
    >>> from feature_learning import MeanFieldLangevinClassifier, data
    >>> X, y = data.sparse_parity(300, 10, 2, rng=0)
    >>> model = MeanFieldLangevinClassifier(500, 300, step_size=0.5, random_state=0).fit(X, y)
    >>> bool(model.score(*data.sparse_parity(1000, 10, 2, rng=1)) > 0.95)
    True
    """

    def __init__(self, n_particles=2000, n_steps=10_000, step_size=0.2, temperature=None, weight_decay=0.1,
                 output_scale=15.0, record_every=None, dtype="float32", device="auto", random_state=None):  # fmt: skip
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

    def fit(self, X, y):
        """Run the dynamics on X, shape (n, d), and labels y of two classes, shape (n,); return the classifier.

        ValueError says what is wrong with a parameter or the data, FloatingPointError that the run diverges.
        """
        return _run([self], [X], [y])[0]

    def _temperature(self, step, n):
        if callable(self.temperature):
            return number("temperature", self.temperature(step), 0)
        return 0.1 / n if self.temperature is None else self.temperature

    def _prepare(self, X, y):
        """Check everything; return what a fit will set, particles, inputs, labels and the seed of the noise."""
        number("n_particles", self.n_particles, 1, integer=True)
        number("n_steps", self.n_steps, 0, integer=True)
        number("step_size", self.step_size, 0, open_low=True)
        number("weight_decay", self.weight_decay, 0)
        number("output_scale", self.output_scale, 0, open_low=True)
        if self.temperature is not None and not callable(self.temperature):
            number("temperature", self.temperature, 0)
        choice("dtype", self.dtype, {"float32", "float64"})
        Recorder(self.n_steps, self.record_every, self.record_every)
        rng, new = generator("random_state", self.random_state), copy.copy(self)
        X, y = validate_data(new, unmasked("X", X), unmasked("y", y, kinds=""), dtype=np.float64)
        check_classification_targets(y)
        kind, new.classes_ = type_of_target(y), np.unique(y)
        if kind != "binary" or len(new.classes_) != 2:
            raise ValueError(
                f"Only binary classification is supported. The type of the target is {kind}; y must hold two classes, "
                f"got {len(new.classes_)} class{'es' if len(new.classes_) > 1 else ''}"
            )
        start, seed = rng.standard_normal((self.n_particles, X.shape[1] + 2)), int(rng.integers(2**63))
        with np.errstate(over="ignore"):  # infinite in float32: the run will diverge
            arrays = [a.astype(self.dtype) for a in (start, with_bias(X), 2 * (y == new.classes_[1]) - 1)]
        return vars(new), *arrays, seed

    def decision_function(self, X):
        """The network's output f for each row of X, shape (n,); positive for `classes_[1]`."""
        check_is_fitted(self)
        inputs = with_bias(validate_data(self, unmasked("X", X), dtype=np.float64, reset=False))
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
