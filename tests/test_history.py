"""The record of a run: saving, loading, and the steps at which to record."""

import json

import numpy as np
import pytest

from feature_learning import History, data, mfld, networks, training
from feature_learning.history import recording_steps, stack


def example():
    return History(
        steps=np.array([0, 5, 10]),
        series={"loss": np.array([3.0, 2.0, 1.0]), "activations": np.arange(12.0).reshape(3, 2, 2)},
        snapshot_steps=np.array([0, 10]),
        snapshots={"0.weight": np.ones((2, 3, 4), dtype=np.float32), "a/b": np.zeros((2, 0))},
        settings={"step_size": 0.1, "optimiser": "adam", "n_steps": np.int64(10), "ok": np.bool_(True), "none": None},
        finished=False,
    )


def test_round_trip(tmp_path):
    one = example()
    one.save(tmp_path / "run.npz")
    two = History.load(tmp_path / "run.npz")
    assert two.finished is False
    assert two.settings == {"step_size": 0.1, "optimiser": "adam", "n_steps": 10, "ok": True, "none": None}
    for part in ("series", "snapshots"):
        a, b = getattr(one, part), getattr(two, part)
        assert list(a) == list(b)
        for key in a:
            assert a[key].dtype == b[key].dtype
            np.testing.assert_array_equal(a[key], b[key])
    np.testing.assert_array_equal(one.steps, two.steps)
    np.testing.assert_array_equal(one.snapshot_steps, two.snapshot_steps)


def test_defaults():
    record = History(np.array([0]), {}, np.array([0]), {})
    assert record.finished is True and record.settings == {}
    assert record.settings is not History(np.array([0]), {}, np.array([0]), {}).settings


def test_real_runs_can_be_saved_whatever_type_their_numbers_have(tmp_path):
    x, y = data.sine_sum(10, 0)
    model = networks.initialise_gaussian(networks.fully_connected([5, 4, 1]), 1, 0)
    training.train(model, x, y, n_steps=np.int64(3), step_size=np.float32(0.25)).save(tmp_path / "a.npz")
    assert History.load(tmp_path / "a.npz").settings == {
        "n_steps": 3,
        "step_size": 0.25,
        "optimiser": "adam",
        "n": 10,
        "max_gradient_norm": None,
    }
    classifier = mfld.MeanFieldLangevinClassifier(np.int64(5), 3, step_size=np.float32(0.25), random_state=0)
    classifier.fit(x, y > 0).history_.save(tmp_path / "b.npz")
    settings = History.load(tmp_path / "b.npz").settings
    assert settings["n_particles"] == 5 and settings["step_size"] == 0.25 and settings["n"] == 10


@pytest.mark.parametrize("key", ["series/loss", "snapshots/w", "steps", "meta"])
def test_objects_that_need_pickle_are_refused(tmp_path, key):
    arrays = {"steps": np.arange(2), "snapshot_steps": np.arange(2), "meta": np.array(json.dumps({"settings": {}}))}
    arrays[key] = np.array([{"any": "object"}, None], dtype=object)
    np.savez(tmp_path / "bad.npz", allow_pickle=True, **arrays)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        History.load(tmp_path / "bad.npz")


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", steps=np.arange(3))
    np.save(tmp_path / "array.npy", np.arange(3))
    for name in ("other.npz", "array.npy"):
        with pytest.raises(ValueError, match=f"path must name a saved History; .*{name} has no 'meta' entry"):
            History.load(tmp_path / name)
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(ValueError):
        History.load(tmp_path / "text.npz")
    with pytest.raises(FileNotFoundError):
        History.load(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    "every, n_steps, expected",
    [
        (None, 7, [0, 7]),
        (None, 0, [0]),
        (1, 3, [0, 1, 2, 3]),
        (3, 7, [0, 3, 6, 7]),
        (3, 6, [0, 3, 6]),
        (np.int64(2), 4, [0, 2, 4]),
        (100, 7, [0, 7]),
        (5, 0, [0]),
        ([4, 1, 4], 7, [1, 4]),
        ((0,), 7, [0]),
        (range(0, 8, 7), 7, [0, 7]),
        (np.array([2, 3], dtype=np.uint8), 7, [2, 3]),
    ],
)
def test_recording_steps(every, n_steps, expected):
    assert recording_steps("record_every", every, n_steps).tolist() == expected


@pytest.mark.parametrize(
    "every",
    [0, -1, True, False, 2.0, "3", [], [1.0], [True], [-1, 2], [8], [[1, 2]], [1, None], np.array(3), {"1": 2}],
    ids=repr,
)
def test_recording_steps_that_make_no_sense(every):
    with pytest.raises(ValueError, match="record_every must be None, a whole number >= 1, or steps from 0 to 7; got"):
        recording_steps("record_every", every, 7)


def test_stack():
    rows = [{"steps": 0, "w": np.zeros((2, 3))}, {"steps": 5, "w": np.ones((2, 3))}]
    stacked = stack(rows)
    assert stacked["steps"].tolist() == [0, 5] and stacked["w"].shape == (2, 2, 3)
    assert list(stack([])) == ["steps"] and len(stack([])["steps"]) == 0
