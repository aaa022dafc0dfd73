"""One plain record of a run, the same for networks and for particles, and what every loop needs to make it."""

import json
import signal
import threading
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ._checks import number


@dataclass
class History:
    """What a run leaves behind: arrays, and the settings that made them.

    Attributes
    ----------
    steps : ndarray, shape (T,)
        The steps at which `series` holds a value.
    series : dict of str to ndarray, shape (T, ...)
        What was measured at every one of `steps`: "loss", "test_loss", "gradient_norm", ...
    snapshot_steps : ndarray, shape (S,)
        The steps at which `snapshots` holds a value.
    snapshots : dict of str to ndarray, shape (S, ...)
        Parameters as they were: "particles", or one entry for each of a network's parameters.
    settings : dict
        Numbers, strings and booleans that describe the run.
    finished : bool
        False if the run was interrupted; the arrays then hold what was recorded until then.
    """

    steps: np.ndarray
    series: dict
    snapshot_steps: np.ndarray
    snapshots: dict
    settings: dict = field(default_factory=dict)
    finished: bool = True

    def _arrays(self):
        """All arrays by the names that they have in a file, if each is as long as its steps, else ValueError."""
        series = {"steps": self.steps} | {f"series/{k}": v for k, v in self.series.items()}
        snapshots = {"snapshot_steps": self.snapshot_steps} | {f"snapshots/{k}": v for k, v in self.snapshots.items()}
        for of, arrays in (("steps", series), ("snapshot_steps", snapshots)):
            for name, v in arrays.items():
                arrays[name] = v = np.asarray(v)
                if v.shape[:1] != (np.size(arrays[of]),) or v.dtype.kind not in "biufc":
                    raise ValueError(f"{name} must hold numbers, as many as {of}; got shape {v.shape}, dtype {v.dtype}")
        return series | snapshots

    def save(self, path):
        """Write the record in NumPy's .npz format; nothing in it needs pickle.

        Parameters
        ----------
        path : str or path-like
            Taken as it is, no ending is added. A file that is there already is replaced once the new one is complete:
            if anything fails or Ctrl-C comes, it stays as it was.

        Raises
        ------
        ValueError
            If the arrays do not hold numbers or are not as long as their steps, or `path` is no ordinary file.
        """
        path, arrays = Path(path).resolve(), self._arrays()
        if path.exists() and not path.is_file():
            raise ValueError(f"path must name an ordinary file, or none yet; got {path}")
        meta = {"settings": self.settings, "finished": self.finished}
        arrays["meta"] = np.array(json.dumps(meta, default=np.generic.item))  # NumPy's numbers become plain ones
        beside = path.with_name(f".{uuid.uuid4().hex}.part")
        try:
            with open(beside, "xb") as file:
                np.savez_compressed(file, **arrays)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path):
        """Read a record that `save` wrote.

        Parameters
        ----------
        path : str or path-like
            As it was given to `save`.

        Raises
        ------
        ValueError
            If the file is not such a record, is damaged, or holds objects that would need pickle.
        OSError
            If there is no such file, or it may not be read.
        """
        with open(path, "rb") as raw:
            try:
                arrays = dict(np.lib.npyio.NpzFile(raw, allow_pickle=False))
                meta = json.loads(str(arrays.pop("meta")))
                history = cls(arrays.pop("steps"), {}, arrays.pop("snapshot_steps"), {}, dict(meta["settings"]))
                history.finished = bool(meta["finished"])
                for name, array in arrays.items():
                    part, key = name.split("/", 1)
                    {"series": history.series, "snapshots": history.snapshots}[part][key] = array
                history._arrays()
            except Exception as why:  # zipfile, zlib, json and NumPy have a dozen kinds of error for a damaged file
                raise ValueError(f"path must name a saved History; {path} is none: {why!r}") from why
        return history

    def run(self, k):
        """One run of a record of several, whose arrays have an axis for the runs after that of the steps.

        Parameters
        ----------
        k : int
            The run's number, from 0 on.

        Returns
        -------
        History
            Series of shape (T, ...) and snapshots of shape (S, ...), views of this record's. A series without a second
            axis belongs to all runs. The settings are the same but for "copies".

        Raises
        ------
        ValueError
            If the losses have no axis for runs, or there is no run k.
        """
        shape = np.shape(self.series["loss"]) if self.series else (0, k + 1)  # interrupted before the first record
        if len(shape) != 2:
            raise ValueError(f"run needs a record of several runs, losses of shape (T, R); got shape {shape}")
        k = number("k", k, 0, shape[1] - 1, integer=True)
        own = {"settings": {name: v for name, v in self.settings.items() if name != "copies"}}
        for part in ("series", "snapshots"):
            own[part] = {name: v[:, k] if v.ndim > 1 else v for name, v in getattr(self, part).items()}
        return replace(self, **own)


class Recorder:
    """What every loop over steps needs to become a `History`: when to record and to copy, Ctrl-C, divergence.

    The loop runs inside `with recorder:`. Ctrl-C ends it quietly before the next step, so that no step, row or copy is
    left half done; the record then says that it is not finished. A second Ctrl-C comes out at once, as an error, in the
    middle of the step.

    Parameters
    ----------
    n_steps : int
        The loop goes through 0, 1, ..., n_steps; step 0 is before training.
    record_every, snapshot_every : None, int or sequence of int
        When to record a row of the series, when to copy arrays: see `recording_steps`.
    bound : callable, optional
        Takes the first losses that `diverged` sees; returns the largest that it lets pass later on.

    Attributes
    ----------
    last : ndarray or None
        The last losses that had not diverged.

    Raises
    ------
    ValueError
        If n_steps, record_every or snapshot_every is out of its range.

    Examples
    --------
    >>> recorder = Recorder(4, record_every=2)
    >>> with recorder:
    ...     for step in range(5):
    ...         if recorder.records(step):
    ...             recorder.record(step, loss=1 / (1 + step))
    >>> recorder.history({"step_size": 0.1}).steps
    array([0, 2, 4])
    """

    def __init__(self, n_steps, record_every=1, snapshot_every=None, *, bound=None):
        n_steps = number("n_steps", n_steps, 0, integer=True)
        self._record_at = frozenset(recording_steps("record_every", record_every, n_steps).tolist())
        self._copy_at = frozenset(recording_steps("snapshot_every", snapshot_every, n_steps).tolist())
        self._rows, self._copies, self._asked, self._leaving, self._torn = [], [], False, False, False
        self._bound, self._limit, self.last = bound, None, None

    def __enter__(self):
        # signals reach the main thread only, and whoever has a handler of his own keeps it
        main = threading.current_thread() is threading.main_thread()
        held = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._handler = signal.signal(signal.SIGINT, self._ask) if held else None
        return self

    def _ask(self, *_):
        if self._asked and not self._leaving:
            self._torn = True  # somewhere in a step: what it leaves is no state of the run
            raise KeyboardInterrupt
        self._asked = True

    def __exit__(self, kind, *_):
        self._leaving = True  # nothing disturbs the stacking
        try:
            if kind in (None, KeyboardInterrupt):
                self._history = History(*_stack(self._rows), *_stack(self._copies), finished=kind is None)
            return kind is KeyboardInterrupt and not self._torn
        finally:
            if self._handler:
                signal.signal(signal.SIGINT, self._handler)

    def records(self, step):
        """Whether to record this step; the loop asks once a step, and ends here if Ctrl-C was pressed."""
        if self._asked:
            raise KeyboardInterrupt
        return step in self._record_at

    def copies(self, step):
        """Whether to copy arrays at this step."""
        return step in self._copy_at

    def record(self, step, /, **values):
        """Append a row to the series: numbers, or arrays of one shape for all steps. Copies are taken."""
        self._rows.append((step, {name: np.array(value) for name, value in values.items()}))

    def copy(self, step, /, **arrays):
        """Append copies of arrays to the snapshots."""
        self._copies.append((step, {name: np.array(value) for name, value in arrays.items()}))

    def diverged(self, loss):
        """Which losses are not finite or above the bound that the first ones set: booleans of the shape of `loss`."""
        loss = np.array(loss, dtype=float)
        if self._limit is None:
            self._limit = np.fmin(self._bound(loss) if self._bound else np.inf, np.finfo(float).max)
        bad = ~(loss <= self._limit)
        if not bad.any():
            self.last = loss
        return bad

    def history(self, settings):
        """What was recorded, once the loop is left."""
        return replace(self._history, settings=settings)


def recording_steps(name, every, n_steps):
    """Turn `every` (None, an int, or the steps themselves) into a sorted array of steps in 0..n_steps.

    None gives the first and the last step; an int k gives 0, k, 2k, ... and the last one.
    """
    if every is None:
        return np.unique([0, n_steps])
    if isinstance(every, (int, np.integer)) and not isinstance(every, bool) and every >= 1:
        return np.array([*range(0, n_steps, int(every)), n_steps])
    try:
        steps = {number(name, step, 0, n_steps, integer=True) for step in np.asarray(every)}
    except (TypeError, ValueError):  # no sequence, rows of unequal length, no steps
        steps = set()
    if not steps:
        raise ValueError(f"{name} must be None, a whole number >= 1, or steps from 0 to {n_steps}; got {every!r:.80}")
    return np.array(sorted(steps))


def _stack(rows):
    """Turn a list of (step, dict) with equal keys into the steps and one dict of arrays."""
    steps = np.array([step for step, _ in rows], dtype=int)
    return steps, {name: np.array([values[name] for _, values in rows]) for name in (rows[0][1] if rows else ())}
