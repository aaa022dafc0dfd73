"""Full-batch training: steps against formulas, what is recorded, what is refused, how a run ends."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from feature_learning import data, networks
from feature_learning.training import train


def problem(activation="tanh", *, gamma=0.5, dim=5, width=7, n=20, seed=0):
    model = networks.initialise_gaussian(networks.fully_connected([dim, width, 1], activation), gamma, seed)
    return model, *data.sine_sum(n, seed, dim=dim)


def parameters(model):
    return {k: p.detach().numpy().copy() for k, p in model.named_parameters()}


def gradient(p, x, y):
    """Mean squared error of W2 tanh(W1 x + b1), and its gradient by the chain rule, written out in NumPy."""
    a = np.tanh(x @ p["0.weight"].T + p["0.bias"])
    residual = a @ p["2.weight"].T - y[:, None]
    r = 2 * residual / len(y)
    back = (r @ p["2.weight"]) * (1 - a**2)
    return (residual**2).mean(), {"0.weight": back.T @ x, "0.bias": back.sum(axis=0), "2.weight": r.T @ a}


def norm(g):
    return np.sqrt(sum((v**2).sum() for v in g.values()))


def assert_close(model, expected):
    for k, p in parameters(model).items():
        np.testing.assert_allclose(p, expected[k], rtol=1e-10, atol=1e-13, err_msg=k)  # rounding in float64


# ------------------------------------------------------------------------------------------------ the step
def test_one_sgd_step_by_hand():
    model, x, y = problem()
    p = parameters(model)
    loss, g = gradient(p, x, y)
    history = train(model, x, y, n_steps=1, step_size=0.05, optimiser="sgd")
    assert_close(model, {k: p[k] - 0.05 * g[k] for k in p})
    assert history.series["loss"][0] == pytest.approx(loss, rel=1e-12)
    assert history.series["gradient_norm"][0] == pytest.approx(norm(g), rel=1e-12)
    assert history.series["loss"][1] == pytest.approx(gradient(parameters(model), x, y)[0], rel=1e-12)


def test_first_adam_steps_by_hand():
    """Kingma and Ba (2015), algorithm 1, with its default constants."""
    model, x, y = problem()
    p = parameters(model)
    m, v = ({k: 0 * q for k, q in p.items()} for _ in range(2))
    for t in range(1, 4):
        g = gradient(p, x, y)[1]
        for k in p:
            m[k] = 0.9 * m[k] + 0.1 * g[k]
            v[k] = 0.999 * v[k] + 0.001 * g[k] ** 2
            p[k] = p[k] - 0.01 * (m[k] / (1 - 0.9**t)) / (np.sqrt(v[k] / (1 - 0.999**t)) + 1e-8)
    train(model, x, y, n_steps=3, step_size=0.01)
    assert_close(model, p)


@pytest.mark.parametrize("share", [0.1, 10])
def test_clipping(share):
    """A gradient above the limit is shortened to it, a shorter one left alone; the recorded norm is the raw one."""
    model, x, y = problem()
    p = parameters(model)
    g = gradient(p, x, y)[1]
    limit = share * norm(g)
    history = train(model, x, y, n_steps=1, step_size=0.05, optimiser="sgd", max_gradient_norm=limit)
    factor = min(1, limit / (norm(g) + 1e-6))  # torch adds 1e-6 to the norm
    assert_close(model, {k: p[k] - 0.05 * factor * g[k] for k in p})
    assert history.series["gradient_norm"][0] == pytest.approx(norm(g), rel=1e-12)


def test_loss_falls():
    model, x, y = problem(n=30, width=30)
    loss = train(model, x, y, n_steps=200, step_size=0.01, record_every=50).series["loss"]
    assert np.all(np.diff(loss) < 0) and loss[-1] < 0.7 * loss[0]


def test_several_outputs():
    x = np.random.default_rng(0).standard_normal((10, 3))
    y = np.stack([x[:, 0], x[:, 1] ** 2], axis=1)
    model = networks.initialise_gaussian(networks.fully_connected([3, 8, 2]), 0.5, 0)
    loss = train(model, x, y, n_steps=0).series["loss"]
    assert loss[0] == pytest.approx(((model(torch.tensor(x)).detach().numpy() - y) ** 2).mean(), rel=1e-12)


@pytest.mark.parametrize("kind", [np.float32, int, list])
def test_inputs_of_any_kind_train_a_float32_model(kind):
    x, y = np.arange(12.0).reshape(6, 2) % 5, np.arange(6.0) % 3
    x, y = (x.tolist(), y.tolist()) if kind is list else (x.astype(kind), y.astype(kind))
    model = networks.initialise_gaussian(networks.fully_connected([2, 3, 1], dtype=torch.float32), 1, 0)
    history = train(model, x, y, n_steps=2)
    assert history.snapshots["0.weight"].dtype == np.float32 and np.isfinite(history.series["loss"]).all()


# ------------------------------------------------------------------------------------------------ what is recorded
def test_recording_and_snapshots():
    model, x, y = problem()
    start = parameters(model)
    history = train(model, x, y, n_steps=10, record_every=4, snapshot_every=[0, 3])
    assert history.steps.tolist() == [0, 4, 8, 10] and history.snapshot_steps.tolist() == [0, 3]
    assert set(history.series) == {"loss", "gradient_norm"} and set(history.snapshots) == set(start)
    assert all(len(v) == 4 for v in history.series.values())
    for k, v in history.snapshots.items():
        assert v.shape == (2, *start[k].shape)
        np.testing.assert_array_equal(v[0], start[k])
        assert not np.array_equal(v[1], v[0])
    assert history.finished is True
    settings = {"n_steps": 10, "step_size": 1e-3, "optimiser": "adam", "n": 20, "max_gradient_norm": None}
    assert history.settings == settings


def test_recording_does_not_change_the_run():
    one, x, y = problem()
    two = copy.deepcopy(one)
    a = train(one, x, y, n_steps=20, record_every=1, snapshot_every=1, test=(x, y))
    b = train(two, x, y, n_steps=20, record_every=[7, 20])
    assert_close(one, parameters(two))
    np.testing.assert_array_equal(a.series["loss"][[7, 20]], b.series["loss"])
    for k, p in parameters(one).items():
        np.testing.assert_array_equal(a.snapshots[k][-1], p)  # the last snapshot is the trained model


def test_no_steps():
    model, x, y = problem()
    start = parameters(model)
    history = train(model, x, y, n_steps=0)
    assert history.steps.tolist() == history.snapshot_steps.tolist() == [0] and history.finished
    assert_close(model, start)


def test_test_loss():
    model, x, y = problem()
    test = data.sine_sum(33, 1)
    history = train(model, x, y, n_steps=6, record_every=3, snapshot_every=3, test=test)
    for i in range(3):
        p = {k: v[i] for k, v in history.snapshots.items()}
        assert history.series["test_loss"][i] == pytest.approx(gradient(p, *test)[0], rel=1e-12)
        assert history.series["loss"][i] == pytest.approx(gradient(p, x, y)[0], rel=1e-12)


def test_a_model_of_ones_own_with_a_frozen_and_an_unused_layer():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.frozen, self.unused = nn.Linear(5, 3), nn.Linear(3, 1), nn.Linear(2, 2)
            self.frozen.requires_grad_(False)

        def forward(self, x):
            return self.frozen(torch.relu(self.used(x)))

    model = networks.initialise_gaussian(Own(), 0.3, 0)
    before = parameters(model)
    _, x, y = problem()
    history = train(model, x, y, n_steps=5)
    assert np.isfinite(history.series["gradient_norm"]).all()
    after = parameters(model)
    assert np.array_equal(before["frozen.weight"], after["frozen.weight"])
    assert not np.array_equal(before["used.weight"], after["used.weight"])


def test_global_random_state_is_neither_read_nor_written():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()
    model, x, y = problem()
    train(model, x, y, n_steps=3, test=(x, y), max_gradient_norm=1)
    assert torch.equal(torch.get_rng_state(), torch_before)
    after = np.random.get_state()
    assert numpy_before[2:] == after[2:] and np.array_equal(numpy_before[1], after[1])


# ------------------------------------------------------------------------------------------------ divergence
def diverges(model, x, y, **settings):
    """Train, demand a FloatingPointError that says where and what to do, and no warning; return its text."""
    with warnings.catch_warnings(), pytest.raises(FloatingPointError) as caught:
        warnings.simplefilter("error")
        train(model, x, y, **settings)
    return str(caught.value)


@pytest.mark.parametrize("activation", ["tanh", "relu", "xtanh", "xtan_clamped"])
def test_step_size_of_a_thousand(activation):
    message = diverges(*problem(activation), n_steps=100, step_size=1e3, optimiser="sgd")
    assert "diverged at step 1:" in message and "last finite loss" in message
    assert "lower step_size (now 1000.0)" in message


@pytest.mark.parametrize("seed", range(4))
def test_unguarded_xtan_from_a_large_start(seed):
    model, x, y = problem("xtan", gamma=0, width=50, n=80, seed=seed)
    message = diverges(model, x, y, n_steps=3000, step_size=0.01, optimiser="sgd")
    assert "diverged at step" in message and "start smaller" in message and "max_gradient_norm" in message


def test_a_first_loss_that_is_infinite_or_not_a_number():
    model, x, y = problem()
    single = copy.deepcopy(model).float()
    assert "diverged at step 0: loss inf" in diverges(single, x, y * 1e25, n_steps=0)
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    assert "diverged at step 0: loss nan" in diverges(model, x, y, n_steps=3)


def test_a_loss_that_rises_and_falls_again_is_not_divergence():
    """Adam's first steps at a large rate overshoot; the limit is 10,000 times the start, not the start itself."""
    model, x, y = problem(width=50)
    loss = train(model, x, y, n_steps=200, step_size=0.3).series["loss"]
    assert loss.max() > 1.5 * loss[0] and np.isfinite(loss).all()


# ------------------------------------------------------------------------------------------------ interruption
@pytest.mark.parametrize("stop", [1, 2, 5, 6, 9])
def test_interrupted_run_keeps_what_it_has(stop):
    """Ctrl-C in the forward pass number `stop`; with a test set there are two passes at every recorded step."""
    model, x, y = problem()
    calls = []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == stop:
            raise KeyboardInterrupt

    hook = model.register_forward_pre_hook(interrupt)
    history = train(model, x, y, n_steps=50, test=(x, y), snapshot_every=2)
    hook.remove()
    done = (stop - 1) // 2  # complete recorded steps
    assert history.finished is False
    assert history.steps.tolist() == list(range(done))
    assert all(len(v) == done for v in history.series.values())
    assert all(len(v) == len(history.snapshot_steps) for v in history.snapshots.values())
    assert history.snapshot_steps.tolist() == list(range(0, done, 2))
    assert all(np.isfinite(p).all() for p in parameters(model).values())
    assert train(model, x, y, n_steps=2).finished  # the model can go on


# ------------------------------------------------------------------------------------------------ bad input
NAN = np.where(np.arange(20) == 3, np.nan, 1.0)
BAD = [
    ({"n_steps": -1}, "n_steps must be a whole number >= 0; got -1"),
    ({"n_steps": 1.5}, "n_steps must be a whole number >= 0; got 1.5"),
    ({"n_steps": True}, "n_steps must be a whole number >= 0; got True"),
    ({"step_size": 0}, "step_size must be a number > 0; got 0"),
    ({"step_size": -1e-3}, "step_size must be a number > 0; got -0.001"),
    ({"step_size": float("nan")}, "step_size must be a number > 0; got nan"),
    ({"step_size": "0.1"}, "step_size must be a number > 0; got '0.1'"),
    ({"optimiser": "adamw"}, "optimiser must be one of adam, sgd; got 'adamw'"),
    ({"optimiser": None}, "optimiser must be one of adam, sgd; got None"),
    ({"max_gradient_norm": 0}, "max_gradient_norm must be a number > 0; got 0"),
    ({"record_every": 0}, "record_every must be None, a whole number >= 1, or steps from 0 to 5; got 0"),
    ({"record_every": [9]}, r"record_every must be .* got \[9\]"),
    ({"snapshot_every": -2}, "snapshot_every must be None, a whole number >= 1, or steps from 0 to 5; got -2"),
    ({"x": np.zeros((0, 5)), "y": np.zeros(0)}, r"x must not be empty; got shape \(0, 5\)"),
    ({"x": np.full((20, 5), np.nan)}, "x must hold finite numbers only; 100 of 100 are NaN or infinite"),
    ({"y": NAN}, "y must hold finite numbers only; 1 of 20 are NaN or infinite"),
    ({"x": np.zeros(20)}, r"x must have shape \(n, dim\) and y n entries; got \(20,\) and \(20,\)"),
    ({"y": np.zeros(19)}, r"x must have shape \(n, dim\) and y n entries; got \(20, 5\) and \(19,\)"),
    ({"y": 3.0}, r"x must have shape .* got \(20, 5\) and \(\)"),
    ({"y": np.zeros((20, 2))}, r"y must have the model's output shape, \(20, 1\); got \(20, 2\)"),
    ({"test": (np.zeros((0, 5)), np.zeros(0))}, r"test\[0\] must not be empty"),
    ({"test": (np.ones((20, 5)), NAN)}, r"test\[1\] must hold finite numbers only"),
    (
        {"test": (np.ones((4, 5)), np.ones((4, 3)))},
        r"test\[1\] must have the model's output shape, \(4, 1\); got \(4, 3\)",
    ),
    ({"test": (np.ones((4, 3)), np.ones(4))}, r"test\[0\] must be inputs that the model takes; got \(4, 3\): "),
    ({"test": (np.ones((4, 5)),)}, r"test must be a pair \(inputs, targets\); got 1 entries"),
    ({"test": np.ones((2, 5))}, r"test must be a pair \(inputs, targets\); got ndarray"),
    ({"test": 5}, r"test must be a pair \(inputs, targets\); got int"),
    ({"x": np.ones((20, 4))}, r"x must be inputs that the model takes; got \(20, 4\): .*20x4 and 5x7"),
    ({"x": np.ones((20, 5)) * 1j}, "x must hold real numbers; got dtype complex128"),
    ({"x": np.ones((20, 5)).astype(str)}, "x must hold real numbers; got dtype <U"),
    ({"x": [[1.0], [1.0, 2.0]]}, "x must be an array of numbers; got rows of unequal length"),
    ({"y": np.ma.masked_equal(np.arange(20), 3)}, "y must have no masked entries; got 1"),
    ({"y": np.arange(20).astype("datetime64[s]")}, "y must hold real numbers; got dtype datetime64"),
    ({"step_size": 10**400}, r"step_size must be a number > 0; got a whole number above 10\^100"),
    ({"record_every": (k for k in [1])}, "record_every must be None, .* got <generator"),
    ({"layers": 2}, "layers must be a whole number >= -2 and <= 1; got 2"),
    ({"layers": [0.0]}, "layers must be a whole number >= -2 and <= 1; got 0.0"),
    ({"layers": []}, r"model must have a parameter to train; got none with requires_grad \(layers=\[\]\)"),
    (
        {"optimiser": torch.optim.SGD, "step_size": 0.1},
        "step_size must be left out if optimiser is a function, .* got 0.1",
    ),
    ({"optimiser": lambda parameters: None}, "optimiser must return a torch.optim.Optimizer, not LBFGS; got NoneType"),
    ({"optimiser": torch.optim.LBFGS}, "optimiser must return a torch.optim.Optimizer, not LBFGS; got LBFGS"),
    ({"test": (np.ones((4, 5)), np.ones(3))}, r"test\[0\] must have shape \(n, dim\) and test\[1\] n entries"),
]


@pytest.mark.parametrize("change, message", BAD, ids=[m for _, m in BAD])
def test_bad_input_before_any_work(change, message):
    model, x, y = problem()
    start = parameters(model)
    with pytest.raises(ValueError, match=message):
        train(model, **({"x": x, "y": y, "n_steps": 5} | change))
    for k, p in parameters(model).items():
        np.testing.assert_array_equal(p, start[k])


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda model: nn.Sequential(nn.Tanh()), "a torch.nn.Module with parameters; got Sequential without"),
        (lambda model: None, "a torch.nn.Module with parameters; got NoneType without"),
        (lambda model: model.requires_grad_(False), r"a parameter to train; got none with requires_grad"),
        (lambda model: model.bfloat16(), "parameters of torch.float32 or torch.float64; got torch.bfloat16"),
        (lambda model: model.half(), "parameters of torch.float32 or torch.float64; got torch.float16"),
    ],
)
def test_models_that_cannot_be_trained(spoil, message):
    model, x, y = problem()
    with pytest.raises(ValueError, match=f"model must (be|have) {message}"):
        train(spoil(model), x, y, n_steps=1)


def test_test_data_are_checked_before_training_even_if_nothing_is_recorded_then():
    model, x, y = problem()
    start = parameters(model)
    with pytest.raises(ValueError, match=r"test\[1\] must have the model's output shape"):
        train(model, x, y, n_steps=5, record_every=[5], test=(x, np.ones((20, 2))))
    assert_close(model, start)


@pytest.mark.parametrize("n_steps", [np.int8(127), np.uint8(255), np.int16(300)], ids=repr)
def test_small_integer_types_take_all_their_steps(n_steps):
    model, x, y = problem()
    history = train(model, x, y, n_steps=n_steps, record_every=[int(n_steps)])
    assert history.finished and history.steps.tolist() == [n_steps] and history.settings["n_steps"] == n_steps


def test_views_with_negative_strides():
    model, x, y = problem()
    twin = copy.deepcopy(model)
    views = train(model, x[::-1, ::-1], y[::-1], n_steps=2, test=(x[::-2, ::-1], y[::-2]))
    copies = train(twin, x[::-1, ::-1].copy(), y[::-1].copy(), n_steps=2, test=(x[::-2, ::-1].copy(), y[::-2].copy()))
    for key in ("loss", "test_loss"):
        np.testing.assert_allclose(views.series[key], copies.series[key], rtol=1e-12)


# ------------------------------------------------------------------------------------------------ optimisers, layers
def test_an_optimiser_of_ones_own():
    """Polyak's heavy ball, three steps by hand: v <- 0.9 v + g, p <- p - 0.05 v."""
    model, x, y = problem()
    p = parameters(model)
    v = {k: 0 * q for k, q in p.items()}
    for _ in range(3):
        g = gradient(p, x, y)[1]
        v = {k: 0.9 * v[k] + g[k] for k in p}
        p = {k: p[k] - 0.05 * v[k] for k in p}
    history = train(model, x, y, n_steps=3, optimiser=lambda q: torch.optim.SGD(q, lr=0.05, momentum=0.9))
    assert_close(model, p)
    assert history.settings["optimiser"] == "SGD" and history.settings["step_size"] == 0.05


@pytest.mark.parametrize("layers, names", [(-1, ["4.weight"]), ([0, 1], ["0.weight", "0.bias", "2.weight", "2.bias"])])
def test_some_layers_only(layers, names):
    """The others stay as they are and as trainable as they were; norm and clipping are those of the trained ones."""
    model = networks.initialise_gaussian(networks.fully_connected([5, 6, 4, 1]), 0.5, 0)
    model[2].bias.requires_grad_(False)
    names = [name for name in names if name != "2.bias"]
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    start, (x, y) = parameters(model), data.sine_sum(20, 0)
    loss = nn.functional.mse_loss(model(torch.tensor(x)), torch.tensor(y)[:, None])
    slopes = torch.autograd.grad(loss, [dict(model.named_parameters())[name] for name in names])
    expected = norm({name: g.numpy() for name, g in zip(names, slopes, strict=True)})
    settings = {"n_steps": 1, "step_size": 0.1, "optimiser": "sgd", "max_gradient_norm": expected / 3}
    history = train(model, x, y, layers=layers, **settings)
    assert history.series["gradient_norm"][0] == pytest.approx(expected, rel=1e-12)
    assert history.settings["layers"] == np.ravel(layers).tolist()
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    moved = {name: parameters(model)[name] - start[name] for name in start}
    assert [name for name in start if np.any(moved[name])] == names
    assert norm(moved) == pytest.approx(0.1 * expected / 3, rel=1e-4)  # torch adds 1e-6 to the norm


def test_layers_and_frozen_parameters_leave_nothing():
    model, x, y = problem()
    model[2].requires_grad_(False)
    with pytest.raises(ValueError, match=r"a parameter to train; got none with requires_grad \(layers=1\)"):
        train(model, x, y, n_steps=1, layers=1)
