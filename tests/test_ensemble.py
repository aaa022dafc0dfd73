"""Many networks at once: equal to training them one by one, in what is recorded, refused and left behind."""

import copy
import signal
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from feature_learning import History, data, networks
from feature_learning.ensemble import train_ensemble
from feature_learning.training import train

X, Y = data.sine_sum(20, 0)


def ensemble(copies=5, *, activations=("tanh",), gammas=(0.5,), width=7, dtype=torch.float64):
    return [
        networks.initialise_gaussian(
            networks.fully_connected([5, width, 1], activations[i % len(activations)], dtype=dtype),
            gammas[i % len(gammas)],
            i,
        )
        for i in range(copies)
    ]


def parameters(model):
    return {k: p.detach().numpy().copy() for k, p in model.named_parameters()}


def assert_same(history, singles, tolerance=1e-6):
    """Series and snapshots of copy i are those of run i, relative to the largest entry of each array."""
    for i, single in enumerate(singles):
        np.testing.assert_array_equal(history.steps, single.steps)
        np.testing.assert_array_equal(history.snapshot_steps, single.snapshot_steps)
        assert set(history.series) == set(single.series) and set(history.snapshots) == set(single.snapshots)
        for k, v in single.series.items():
            np.testing.assert_allclose(history.series[k][:, i], v, rtol=tolerance, err_msg=f"{k} of copy {i}")
        for k, v in single.snapshots.items():
            found, scale = history.snapshots[k][:, i], abs(v).max()
            np.testing.assert_allclose(found, v, rtol=tolerance, atol=tolerance * scale, err_msg=f"{k} of copy {i}")


def assert_parameters(model, expected, tolerance=0.0):
    for k, p in parameters(model).items():
        np.testing.assert_allclose(p, expected[k], rtol=tolerance, atol=tolerance * abs(expected[k]).max(), err_msg=k)


# ------------------------------------------------------------------------------------------------ the same numbers
def equal_to_separate_runs(tolerance, copies=6, **settings):
    """Three activations, three scales, in float64: every series, snapshot, setting and trained parameter."""
    models = ensemble(copies, activations=("tanh", "relu", "sigmoid"), gammas=(0.5, 2, 1, 2, 1, 0.5))
    twins = copy.deepcopy(models)
    settings |= {"step_size": 0.01, "test": data.sine_sum(9, 1), "record_every": 20, "snapshot_every": 20}
    history = train_ensemble(models, X, Y, **settings)
    singles = [train(m, X, Y, **settings) for m in twins]
    assert_same(history, singles, tolerance)
    for k, (model, twin) in enumerate(zip(models, twins, strict=True)):
        assert_parameters(model, parameters(twin), tolerance)
        assert history.run(k).settings == singles[k].settings
        np.testing.assert_array_equal(history.run(k).series["test_loss"], history.series["test_loss"][:, k])
    assert history.finished and history.settings["copies"] == copies


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_equal_to_separate_runs(optimiser, clip):
    """Forty steps to 1e-10: a step that differs by 1e-11 of itself is found, which hundreds of steps would hide."""
    equal_to_separate_runs(1e-10, n_steps=40, optimiser=optimiser, max_gradient_norm=clip)


def test_equal_to_separate_runs_after_hundreds_of_steps():
    equal_to_separate_runs(1e-6, copies=3, n_steps=400, optimiser="adam", max_gradient_norm=1.0)


@pytest.mark.parametrize("gamma", [4, 7])
def test_a_tiny_start_loses_no_digits(gamma):
    """Hidden values of 1e-4 to 1e-6 of their own: tanh as 2 sigmoid(2x) - 1 would err by 1e-16, not by 1e-16 x."""
    models = ensemble(3, gammas=(gamma,), width=20)
    twins = copy.deepcopy(models)
    history = train_ensemble(models, X, Y, n_steps=2, optimiser="sgd", step_size=0.01)
    for k, twin in enumerate(twins):
        start = parameters(twin)
        train(twin, X, Y, n_steps=2, optimiser="sgd", step_size=0.01)
        for name, p in parameters(twin).items():  # what the gradients moved is tinier still
            np.testing.assert_allclose(
                history.snapshots[name][-1, k] - start[name], p - start[name], rtol=1e-9, atol=1e-15 * abs(p).max()
            )


def test_an_optimiser_that_puts_another_tensor_into_a_parameter():
    class Replacing(torch.optim.SGD):
        def step(self, closure=None):
            for p in self.param_groups[0]["params"]:
                p.data = p.data - 0.05 * p.grad

    replaced, moved = (
        train_ensemble(ensemble(3, activations=("tanh", "relu")), X, Y, n_steps=5, **settings)
        for settings in ({"optimiser": Replacing}, {"optimiser": "sgd", "step_size": 0.05})
    )
    np.testing.assert_allclose(replaced.series["loss"], moved.series["loss"], rtol=1e-12)
    np.testing.assert_allclose(replaced.snapshots["0.weight"], moved.snapshots["0.weight"], rtol=1e-12)


@pytest.mark.parametrize("settings", [{"layers": -1}, {"layers": [0]}, {"optimiser": "momentum"}], ids=repr)
def test_layers_and_optimisers_of_ones_own(settings):
    if "optimiser" in settings:
        settings = {"optimiser": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9)}
    models = ensemble(3, activations=("tanh", "relu"))
    twins = copy.deepcopy(models)
    history = train_ensemble(models, X, Y, n_steps=10, **settings)
    singles = [train(m, X, Y, n_steps=10, **settings) for m in twins]
    assert_same(history, singles, 1e-10)
    assert history.run(1).settings == singles[1].settings
    for model, twin in zip(models, twins, strict=True):
        assert_parameters(model, parameters(twin), 1e-10)


def test_data_of_its_own_for_each_copy():
    draws = [data.sine_sum(20, seed) for seed in range(4)]
    tests = [data.sine_sum(6, seed) for seed in range(10, 14)]
    x, y = (np.stack(part) for part in zip(*draws, strict=True))
    test = tuple(np.stack(part) for part in zip(*tests, strict=True))
    models = ensemble(4, activations=("tanh", "relu"))
    twins = copy.deepcopy(models)
    history = train_ensemble(models, x, y, n_steps=30, test=test, record_every=10)
    assert_same(
        history,
        [train(m, *d, n_steps=30, test=t, record_every=10) for m, d, t in zip(twins, draws, tests, strict=True)],
    )
    shared = train_ensemble(ensemble(2), X, Y, n_steps=3)
    repeated = train_ensemble(ensemble(2), np.stack([X, X]), np.stack([Y, Y]), n_steps=3)
    np.testing.assert_allclose(shared.series["loss"], repeated.series["loss"], rtol=1e-12)


def test_several_outputs_deep_networks_and_frozen_layers():
    targets = np.stack([Y, Y**2, X[:, 0]], axis=1)
    models = [networks.initialise_gaussian(networks.fully_connected([5, 6, 4, 3]), 0.5, s) for s in range(3)]
    for model in models:
        model[2].requires_grad_(False)
    twins = copy.deepcopy(models)
    before = parameters(models[1])
    history = train_ensemble(models, X, targets, n_steps=50, record_every=25)
    assert_same(history, [train(m, X, targets, n_steps=50, record_every=25) for m in twins])
    after = parameters(models[1])
    assert np.array_equal(before["2.weight"], after["2.weight"])
    assert not np.array_equal(before["0.weight"], after["0.weight"])


def test_float32_and_one_copy():
    models = ensemble(1, dtype=torch.float32)
    twin = copy.deepcopy(models[0])
    history = train_ensemble(models, X, Y, n_steps=20)
    assert history.snapshots["0.weight"].dtype == np.float32 and history.series["loss"].shape == (21, 1)
    assert_same(history, [train(twin, X, Y, n_steps=20)], 1e-4)  # float32 keeps seven digits


# ------------------------------------------------------------------------------------------------ what is recorded
def test_shapes_order_and_saving(tmp_path):
    models = ensemble(5, activations=("tanh", "relu"))  # stacked as 0, 2, 4 and 1, 3
    start = [parameters(m) for m in models]
    history = train_ensemble(models, X, Y, n_steps=10, record_every=4, snapshot_every=[0, 10])
    assert history.series["loss"].shape == history.series["gradient_norm"].shape == (4, 5)
    assert history.snapshots["0.weight"].shape == (2, 5, 7, 5)
    for i, model in enumerate(models):
        for k, p in parameters(model).items():
            np.testing.assert_array_equal(history.snapshots[k][0, i], start[i][k])
            np.testing.assert_array_equal(history.snapshots[k][1, i], p)
    history.save(tmp_path / "run.npz")
    again = History.load(tmp_path / "run.npz")
    np.testing.assert_array_equal(again.series["loss"], history.series["loss"])
    assert again.settings == history.settings


def test_no_steps_and_no_random_state():
    before = torch.get_rng_state()
    models = ensemble(2)
    start = [parameters(m) for m in models]
    history = train_ensemble(models, X, Y, n_steps=0)
    assert history.steps.tolist() == [0] and history.finished
    for model, p in zip(models, start, strict=True):
        for k, v in parameters(model).items():
            np.testing.assert_array_equal(v, p[k])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("stop", [1, 2, 6])
@pytest.mark.parametrize("kind", ["raised", "signal"])
def test_interrupted_run_keeps_what_it_has(stop, kind):
    """Ctrl-C during optimiser step number `stop`: records up to there, and models that can go on."""
    calls = []

    class Interrupted(torch.optim.SGD):
        def step(self, closure=None):
            calls.append(1)
            if len(calls) == stop:
                if kind == "raised":
                    raise KeyboardInterrupt
                signal.raise_signal(signal.SIGINT)  # waits for the end of the step
            return super().step(closure)

    models = ensemble(3)
    history = train_ensemble(models, X, Y, n_steps=50, optimiser=Interrupted, snapshot_every=1)
    assert history.finished is False and history.steps.tolist() == list(range(stop))
    for i, model in enumerate(models):
        last = {k: v[-1, i] for k, v in history.snapshots.items()}
        if kind == "raised":
            assert_parameters(model, last)
        else:
            train(twin := copy.deepcopy(ensemble(3)[i]), X, Y, n_steps=stop, optimiser=torch.optim.SGD)
            assert_parameters(model, parameters(twin), 1e-10)


# ------------------------------------------------------------------------------------------------ divergence
def test_divergence_names_the_copies_and_poisons_no_other():
    models = ensemble(5, activations=("relu",))
    with torch.no_grad():
        for p in models[3].parameters():
            p *= 100  # a start far too large for the step
    twins = copy.deepcopy(models)
    settings = {"n_steps": 50, "step_size": 0.01, "optimiser": "sgd"}
    with warnings.catch_warnings(), pytest.raises(FloatingPointError) as caught:
        warnings.simplefilter("error")
        train_ensemble(models, X, Y, **settings)
    message = str(caught.value)
    assert "in 1 of 5 copies, numbers [3]" in message and "leave these copies out" in message
    assert "lower step_size (now 0.01)" in message and "max_gradient_norm" in message
    at = int(message.split("at step ")[1].split()[0])
    with pytest.raises(FloatingPointError, match=f"diverged at step {at}:"):
        train(twins[3], X, Y, **settings)
    for i in (0, 1, 2, 4):
        train(twins[i], X, Y, **(settings | {"n_steps": at}))
        for k, p in parameters(twins[i]).items():
            np.testing.assert_allclose(parameters(models[i])[k], p, rtol=1e-9, atol=1e-12)


def test_a_start_that_is_not_a_number_is_named():
    models = ensemble(4, activations=("tanh", "relu"))
    with torch.no_grad():
        models[2][0].weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"at step 0 in 1 of 4 copies, numbers \[2\]: losses \[nan\]"):
        train_ensemble(models, X, Y, n_steps=3)


# ------------------------------------------------------------------------------------------------ bad input
def half_frozen():
    one, other = ensemble(2)
    other[0].requires_grad_(False)
    return [one, other]


def wide(copies):
    return ensemble(2) + ensemble(copies, width=8)


BAD = [
    ({"models": []}, "models must hold at least one torch.nn.Module; got none"),
    ({"models": wide(1)}, r"must agree in their parameters' .*\(7, 5\).* in model 0 and .*\(8, 5\).* in model 2"),
    ({"n_steps": -1}, "n_steps must be a whole number >= 0; got -1"),
    ({"step_size": 0}, "step_size must be a number > 0; got 0"),
    ({"optimiser": "adamw"}, "optimiser must be one of adam, sgd; got 'adamw'"),
    ({"max_gradient_norm": 0}, "max_gradient_norm must be a number > 0; got 0"),
    ({"record_every": 0}, "record_every must be None, a whole number >= 1, or steps from 0 to 5; got 0"),
    (
        {"x": np.stack([X] * 4), "y": np.stack([Y] * 4)},
        r"x must have shape \(n, dim\) and y n entries, or \(3, n, dim\) and \(3, n\); got \(4, 20, 5\) and \(4, 20\)",
    ),
    ({"x": np.stack([X] * 3)}, r"x must have shape .* got \(3, 20, 5\) and \(20,\)"),
    ({"y": np.full(20, np.nan)}, "y must hold finite numbers only; 20 of 20 are NaN or infinite"),
    ({"y": np.zeros((20, 2))}, r"y must have the model's output shape, \(20, 1\); got \(20, 2\)"),
    ({"test": (np.ones((4, 5)), np.ones(3))}, r"test\[0\] must have shape"),
    (
        {"test": (np.ones((4, 5)), np.ones((4, 3)))},
        r"test\[1\] must have the model's output shape, \(4, 1\); got \(4, 3\)",
    ),
    ({"test": (np.ones((4, 3)), np.ones(4))}, r"test\[0\] must be inputs that the model takes; got \(4, 3\): "),
    ({"test": (np.ones((4, 5)),)}, r"test must be a pair \(inputs, targets\); got 1 entries"),
    ({"test": np.ones((2, 5))}, r"test must be a pair \(inputs, targets\); got ndarray"),
    ({"x": np.ones((20, 4))}, r"x must be inputs that the model takes; got \(20, 4\): "),
    ({"x": np.ones((20, 5)) * 1j}, "x must hold real numbers; got dtype complex128"),
    ({"step_size": 10**400}, r"step_size must be a number > 0; got a whole number above 10\^100"),
    ({"layers": 2}, "layers must be a whole number >= -2 and <= 1; got 2"),
    ({"optimiser": torch.optim.SGD, "step_size": 0.1}, "step_size must be left out if optimiser is a function"),
    ({"models": [nn.Sequential(nn.Tanh())]}, "model must be a torch.nn.Module with parameters; got Sequential without"),
    ({"models": [m.requires_grad_(False) for m in ensemble(2)]}, "model must have a parameter to train"),
    ({"models": [m.half() for m in ensemble(2)]}, "model must have parameters of .*; got torch.float16"),
    ({"models": half_frozen()}, "models must agree in .* which are trained; got .* in model 0 and .* in model 1"),
]


@pytest.mark.parametrize("change, message", BAD, ids=[m for _, m in BAD])
def test_bad_input_before_any_work(change, message):
    models = change.get("models", ensemble(3))
    start = [parameters(m) for m in models]
    with pytest.raises(ValueError, match=message):
        train_ensemble(**({"models": models, "x": X, "y": Y, "n_steps": 5} | change))
    for model, p in zip(models, start, strict=True):
        for k, v in parameters(model).items():
            np.testing.assert_array_equal(v, p[k])


@pytest.mark.parametrize("n_steps", [np.int8(127), np.uint8(255)], ids=repr)
def test_small_integer_types_take_all_their_steps(n_steps):
    history = train_ensemble(ensemble(2), X, Y, n_steps=n_steps)
    assert history.finished and len(history.steps) == int(n_steps) + 1


def test_views_with_negative_strides():
    views = train_ensemble(ensemble(2), X[::-1, ::-1], Y[::-1], n_steps=2, test=(X[::-2], Y[::-2]))
    copies = train_ensemble(ensemble(2), X[::-1, ::-1].copy(), Y[::-1].copy(), n_steps=2)
    np.testing.assert_allclose(views.series["loss"], copies.series["loss"], rtol=1e-12)


@pytest.mark.parametrize("own", ["data", "test"])
def test_data_of_each_copy_and_shared_data_go_together(own):
    """Training data of each copy with test data for all, and the other way round; the stacks are 0, 2 and 1."""
    each = [data.sine_sum(20, seed) for seed in range(3)]
    stacked = tuple(np.stack(part) for part in zip(*each, strict=True))
    models = ensemble(3, activations=("tanh", "relu"))
    twins = copy.deepcopy(models)
    train_on, test = (stacked, (X[:7], Y[:7])) if own == "data" else ((X, Y), stacked)
    history = train_ensemble(models, *train_on, n_steps=4, test=test)
    pairs = [(d, test) if own == "data" else (train_on, d) for d in each]
    assert_same(history, [train(m, *d, n_steps=4, test=t) for m, (d, t) in zip(twins, pairs, strict=True)], 1e-10)


def test_models_that_print_alike_and_differ_are_refused():
    class Scaled(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.layer, self.scale = nn.Linear(5, 1), scale
            networks.initialise_gaussian(self, 0.5, 0)

        def forward(self, x):
            return self.scale * self.layer(x.float())

    with pytest.raises(ValueError, match="models that print alike must compute the same function"):
        train_ensemble([Scaled(1.0), Scaled(2.0)], X, Y, n_steps=1)
    assert train_ensemble([Scaled(2.0), Scaled(2.0)], X, Y, n_steps=1).finished
