"""Checks of arguments: each says which argument, what came and what is allowed, before any work is done."""

import math
import numbers

import numpy as np


def number(name, value, low=None, high=None, *, integer=False, open_low=False):
    """Return `value` as a plain float (or int) if it is finite and within its bounds, else raise ValueError."""
    kind, plain = (numbers.Integral, int) if integer else (numbers.Real, float)
    what = "a whole number" if integer else "a number"
    bounds = [f"{'>' if open_low else '>='} {low}"] if low is not None else []
    bounds += [f"<= {high}"] if high is not None else []
    try:
        good = isinstance(value, kind) and not isinstance(value, (bool, np.bool_)) and math.isfinite(value)
    except OverflowError:  # a whole number too large for a float
        good = False
    good = good and (low is None or (value > low if open_low else value >= low))
    if not (good and (high is None or value <= high)):
        shown = repr(value) if not isinstance(value, int) or abs(value) < 10**100 else "a whole number above 10^100"
        raise ValueError(f"{name} must be {' '.join([what, ' and '.join(bounds)]).strip()}; got {shown}")
    return plain(value)


def choice(name, value, allowed):
    """Return `value` if it is one of `allowed`, else raise ValueError that lists them."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(sorted(allowed))}; got {value!r}")
    return value


def generator(name, value):
    """Return `value`, or a Generator made from it (None, a whole number >= 0), else raise ValueError."""
    if value is None or isinstance(value, np.random.Generator):
        return np.random.default_rng(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise ValueError(f"{name} must be a numpy.random.Generator, a whole number >= 0 or None; got {value!r}")
    return np.random.default_rng(value)


def finite(name, array):
    """Return `array` if it is not empty and holds no NaN or infinity, else raise ValueError."""
    if 0 in array.shape:
        raise ValueError(f"{name} must not be empty; got shape {tuple(array.shape)}")
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise ValueError(f"{name} must hold finite numbers only; {bad} of {array.size} are NaN or infinite")
    return array


def real(name, values):
    """Return `values` as float64, whatever holds them, if all are finite real numbers, else raise ValueError."""
    if hasattr(values, "detach"):  # a torch tensor, maybe of a type that NumPy lacks
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values
    if np.ma.is_masked(values):
        raise ValueError(f"{name} must have no masked entries; got {np.ma.count_masked(values)}: fill or drop them")
    try:
        array = np.asarray(values)
    except ValueError as why:
        raise ValueError(f"{name} must be an array of numbers; got rows of unequal length ({why})") from why
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers; got dtype {array.dtype}")
    with np.errstate(over="ignore"):  # of a longer float: infinite here, and refused
        return finite(name, array.astype(float))


def unmasked(name, values, kinds="mMUS"):
    """Return `values`, but refuse what would become numbers without a word: masked entries, dates, texts."""
    masked = np.ma.is_masked(values) or (isinstance(values, list) and any(map(np.ma.is_masked, values)))
    try:
        array = np.asarray(values)
    except ValueError:  # rows of unequal length, which the next one to look at them will report
        return values
    odd = (str, bytes, np.datetime64, np.timedelta64) if kinds and array.dtype == object else ()
    if masked or array.dtype.kind in kinds or (odd and any(isinstance(v, odd) for v in array.flat)):
        real(name, np.ma.array(values) if masked else values)
    return values
