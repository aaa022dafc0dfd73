"""The record of a run: saving, loading, and the steps at which to record."""

import json
import signal
import threading

import numpy as np
import pytest

from feature_learning import History, data, mfld, networks, training
from feature_learning.history import Recorder, recording_steps


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
        with pytest.raises(ValueError, match=f"path must name a saved History; .*{name} is none"):
            History.load(tmp_path / name)
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(ValueError, match="path must name a saved History; .*text.npz is none"):
        History.load(tmp_path / "text.npz")
    with pytest.raises(FileNotFoundError):
        History.load(tmp_path / "absent.npz")


def test_a_name_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("foo", "run.npz", "run.v2"):
        example().save(name)
        assert History.load(name).finished is False
    assert sorted(p.name for p in tmp_path.iterdir()) == ["foo", "run.npz", "run.v2"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_save_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, error):
    """A full disk and Ctrl-C, both after half of the bytes."""
    path = tmp_path / "run.npz"
    example().save(path)
    before = path.read_bytes()

    def half(file, **arrays):
        file.write(before[: len(before) // 2])
        raise error

    monkeypatch.setattr(np, "savez_compressed", half)
    with pytest.raises(type(error)):
        History(np.arange(2), {}, np.arange(0), {}).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_save_replaces_the_file_behind_a_link_and_nothing_but_files(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far" / "run.npz")
    example().save(tmp_path / "near")
    assert (tmp_path / "near").is_symlink() and not (tmp_path / "far" / "run.npz").is_symlink()
    for path in (tmp_path / "far", "/dev/null"):
        with pytest.raises(ValueError, match="path must name an ordinary file, or none yet; got"):
            example().save(path)


@pytest.mark.parametrize(
    "series, message",
    [
        ({"loss": np.zeros(2)}, r"series/loss must hold numbers, as many as steps; got shape \(2,\), dtype float64"),
        ({"loss": np.array([None] * 3)}, r"series/loss must hold numbers, .* dtype object"),
        ({"loss": np.array("abc")}, r"series/loss must hold numbers, .* got shape \(\)"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path, series, message):
    with pytest.raises(ValueError, match=message):
        History(np.arange(3), series, np.arange(0), {}).save(tmp_path / "run.npz")
    assert not list(tmp_path.iterdir())


def test_series_of_unequal_length_are_no_record(tmp_path):
    arrays = {"steps": np.arange(3), "series/loss": np.arange(2), "snapshot_steps": np.arange(2)}
    np.savez(tmp_path / "bad.npz", meta=np.array('{"settings": {}, "finished": true}'), **arrays)
    with pytest.raises(ValueError, match=r"path must name a saved History; .*bad.npz is none: .*series/loss"):
        History.load(tmp_path / "bad.npz")


@pytest.mark.parametrize("meta", ["[]", "null", "{", '{"finished": true}', '{"settings": 3, "finished": true}', "7"])
def test_a_foreign_meta_entry_is_no_record(tmp_path, meta):
    np.savez(tmp_path / "bad.npz", steps=np.arange(3), snapshot_steps=np.arange(2), meta=np.array(meta))
    with pytest.raises(ValueError, match="path must name a saved History; .*bad.npz is none"):
        History.load(tmp_path / "bad.npz")


def test_truncated_and_damaged_files_are_value_errors_that_name_the_path(tmp_path):
    """Every tenth length, and three bytes changed two hundred times: BadZipFile, EOFError, zlib.error and others."""
    path, rng = tmp_path / "run.npz", np.random.default_rng(0)
    example().save(path)
    whole, refused = path.read_bytes(), 0
    damaged = [whole[:length] for length in range(0, len(whole), 10)]
    for places in rng.integers(len(whole), size=(200, 3)):
        changed = bytearray(whole)
        for place in places:
            changed[place] ^= rng.integers(1, 256)
        damaged.append(bytes(changed))
    for content in damaged:
        path.write_bytes(content)
        try:
            History.load(path)  # a change in what nobody reads, such as a date, does no harm
        except ValueError as error:
            assert f"path must name a saved History; {path} is none" in str(error)
            assert "allow_pickle=`" not in str(error)  # no advice to load it unsafely
            refused += 1
    assert refused > len(damaged) - 40


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
        (10**400, 7, [0, 7]),
        (np.int8(100), 255, [0, 100, 200, 255]),
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
    [
        0,
        -1,
        True,
        False,
        2.0,
        "3",
        [],
        [1.0],
        [True],
        [-1, 2],
        [8],
        [[1, 2]],
        [1, None],
        np.array(3),
        {"1": 2},
        {1, 2},
        [[1], [1, 2]],
        (k for k in [1]),
        [10**30],
    ],
    ids=lambda every: f"{every!r:.30}",
)
def test_recording_steps_that_make_no_sense(every):
    with pytest.raises(ValueError, match="record_every must be None, a whole number >= 1, or steps from 0 to 7; got"):
        recording_steps("record_every", every, 7)


# ------------------------------------------------------------------------------------------------ the recorder
def several():
    """The record of three runs: losses and parameters of their own, a temperature for all."""
    recorder = Recorder(4, 2, [0, 4])
    with recorder:
        for step in range(5):
            if recorder.records(step):
                recorder.record(step, loss=np.arange(3) + step, temperature=1 / (1 + step))
            if recorder.copies(step):
                recorder.copy(step, w=np.full((3, 2), [[step], [step + 1], [step + 2]]))
    return recorder.history({"step_size": 0.1, "copies": 3})


def test_recorder_keeps_what_was_asked_for():
    history = several()
    assert history.steps.tolist() == [0, 2, 4] and history.snapshot_steps.tolist() == [0, 4]
    assert history.series["loss"].tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    assert history.series["temperature"].tolist() == [1, 1 / 3, 1 / 5] and history.snapshots["w"].shape == (2, 3, 2)
    assert history.finished is True and history.settings == {"step_size": 0.1, "copies": 3}


def test_recorder_takes_copies_and_any_name():
    recorder, w = Recorder(1, 1, 1), np.zeros(2)
    with recorder:
        for step in range(2):
            recorder.record(step, w=w)
            recorder.copy(step, step=w, self=w, **{"0.weight": w[::-1]})
            w += 1
    history = recorder.history({})
    for values in (history.series["w"], *history.snapshots.values()):
        assert values.tolist() == [[0, 0], [1, 1]]
    assert list(history.snapshots) == ["step", "self", "0.weight"]


def test_one_run_of_several():
    history = several()
    for k in range(3):
        one = history.run(k)
        assert one.series["loss"].tolist() == [k, 2 + k, 4 + k] and one.snapshots["w"].tolist() == [
            [k] * 2,
            [4 + k] * 2,
        ]
        assert one.series["temperature"].tolist() == [1, 1 / 3, 1 / 5] and one.finished is True
        assert one.steps.tolist() == [0, 2, 4] and one.settings == {"step_size": 0.1}
    with pytest.raises(ValueError, match="k must be a whole number >= 0 and <= 2; got 3"):
        history.run(3)
    with pytest.raises(ValueError, match=r"losses of shape \(T, R\); got shape \(3,\)"):
        example().run(0)
    empty = Recorder(4)
    with empty:
        raise KeyboardInterrupt
    assert empty.history({}).run(2).series == {} and empty.history({}).run(2).finished is False


@pytest.mark.parametrize("moment", ["before", "after"])
def test_ctrl_c_waits_for_the_end_of_the_step(moment):
    """A real signal in step 3, before or after its row: the step is done in full, and the old handler is back."""
    recorder, done = Recorder(9), []
    with recorder:
        for step in range(10):
            recorded = recorder.records(step)
            if step == 3 and moment == "before":
                signal.raise_signal(signal.SIGINT)
            if recorded:
                recorder.record(step, loss=0.0)
            if step == 3 and moment == "after":
                signal.raise_signal(signal.SIGINT)
            done.append(step)
    history = recorder.history({})
    assert done == history.steps.tolist() == [0, 1, 2, 3] and history.finished is False
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_comes_out_as_an_error():
    """In the middle of a step: what is half done must not be taken for a state of the run."""
    recorder, done = Recorder(9), []
    with pytest.raises(KeyboardInterrupt), recorder:
        for step in range(10):
            if recorder.records(step):
                recorder.record(step, loss=0.0)
            signal.raise_signal(signal.SIGINT)
            done.append(step)
            signal.raise_signal(signal.SIGINT)
            done.append(step)
    assert done == [0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_the_rows_are_stacked_loses_no_finished_run(monkeypatch):
    def interrupted(*arguments, **settings):
        signal.raise_signal(signal.SIGINT)
        return array(*arguments, **settings)

    recorder, array = Recorder(3), np.array
    with recorder:
        for step in range(4):
            if recorder.records(step):
                recorder.record(step, loss=step)
        monkeypatch.setattr(np, "array", interrupted)
    monkeypatch.undo()
    history = recorder.history({})
    assert history.finished is True and history.series["loss"].tolist() == [0, 1, 2, 3]


def test_ctrl_c_in_another_thread_or_under_a_foreign_handler_changes_no_handler():
    def loop():
        with Recorder(3) as recorder:
            handlers.append(signal.getsignal(signal.SIGINT))
            recorder.records(0)

    handlers, mine = [], lambda *_: None
    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    old = signal.signal(signal.SIGINT, mine)
    try:
        loop()
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, old)
    assert handlers == [signal.default_int_handler, mine]


def test_other_errors_come_out_and_the_handler_is_back():
    with pytest.raises(ZeroDivisionError), Recorder(3):
        1 / 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_divergence_is_judged_against_the_first_losses():
    one = Recorder(3, bound=lambda first: 10 * first)
    assert not one.diverged(2.0) and one.last == 2
    assert not one.diverged(20.0) and one.last == 20
    for loss in (20.5, np.inf, np.nan):
        assert one.diverged(loss) and one.last == 20
    many = Recorder(3, bound=lambda first: 10 * np.maximum(first, 1))
    assert many.diverged(np.array([0.5, 2])).tolist() == [False, False]
    assert many.diverged(np.array([11, 19])).tolist() == [True, False] and many.last.tolist() == [0.5, 2]
    assert Recorder(3).diverged([1, np.nan, 1e300]).tolist() == [False, True, False]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"n_steps": -1}, "n_steps must be a whole number >= 0; got -1"),
        ({"record_every": 0}, "record_every must be None, a whole number >= 1, or steps from 0 to 5; got 0"),
        ({"snapshot_every": [6]}, r"snapshot_every must be .* steps from 0 to 5; got \[6\]"),
    ],
)
def test_recorder_checks_its_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        Recorder(**({"n_steps": 5} | settings))


def test_small_integer_types_count_in_full():
    for n_steps in (np.int8(127), np.uint8(255), np.int16(32767)):
        recorder = Recorder(n_steps, np.int8(100))
        assert recorder.records(int(n_steps)) and recorder.copies(0)
