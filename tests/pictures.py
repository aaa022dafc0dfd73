"""Compare the pictures a notebook stores with those it draws when it is run again.

nbval compares text to the byte but not pictures: another processor may shade a pixel differently. Here two pictures
agree if they have the same shape and the root of the mean squared difference of their pixels, each scaled to 0..1,
stays below `BOUND` over the whole picture (one grey level everywhere is 0.004) and below `SQUARE_BOUND` in every square
of 16 x 16 pixels. In the worst square, five code paths of five chapters gave at most 0.042 by rounding; one dot three
points wide elsewhere gives 0.12, in light grey 0.053; a letter, a legend's entry, a piece of line 0.16 and more.
"""

import base64
import io
import re

import numpy as np
from PIL import Image

BOUND, SIDE, SQUARE_BOUND = 0.02, 16, 0.05
FRAME = re.compile(r"data:image/webp;base64,([A-Za-z0-9+/=]+)")


def pixels(data):
    """A base64 picture as an array of height x width x 4 between 0 and 1; fine figures with half their dots."""
    if isinstance(data, str):
        data = base64.b64decode(data)
    with Image.open(io.BytesIO(data)) as picture:
        colours = picture.convert("RGBA")
        if picture.format == "PNG" and picture.width >= 400:
            colours = colours.reduce(2)
        return np.asarray(colours, dtype=float) / 255


def gaps(a, b):
    """For every pixel of `a`, the squared difference from the most similar pixel of `b` that is at most one away."""
    height, width = a.shape[:2]
    around = np.pad(b, ((1, 1), (1, 1), (0, 0)), mode="edge")
    moved = (around[i : i + height, k : k + width] for i in range(3) for k in range(3))
    return np.minimum.reduce([((a - shifted) ** 2).mean(2) for shifted in moved])


def worst_square(squares):
    """Largest mean over a square of SIDE x SIDE pixels anywhere in the picture, or over all of a smaller one."""
    sums = np.pad(squares, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    down, right = (min(SIDE, size) for size in squares.shape)
    inside = sums[down:, right:] - sums[:-down, right:] - sums[down:, :-right] + sums[:-down, :-right]
    return float(inside.max()) / (down * right)


def difference(stored, new):
    """Why two base64 pictures differ; '' if they agree."""
    if stored == new:
        return ""
    a, b = pixels(stored), pixels(new)
    if a.shape != b.shape:
        return f"shape {a.shape[:2]} stored, {b.shape[:2]} now"
    squares = ((a - b) ** 2).mean(2)
    rms, worst = float(squares.mean()) ** 0.5, worst_square(squares) ** 0.5
    if rms > BOUND:
        return f"pixels differ by {rms:.4f} (RMS), at most {BOUND} is allowed"
    if worst > SQUARE_BOUND:  # looked at again: a dot may have been set one pixel further
        worst = worst_square(np.maximum(gaps(a, b), gaps(b, a))) ** 0.5
    if worst > SQUARE_BOUND:
        return f"pixels of one square of {SIDE} differ by {worst:.4f} (RMS), at most {SQUARE_BOUND} is allowed"
    return ""


def pictures_of(outputs):
    """All pictures in a cell's outputs, in order, as (kind, base64)."""
    found = []
    for output in outputs:
        data = output.get("data", {})
        for kind in ("image/png", "image/jpeg"):
            if kind in data:
                found.append((kind, "".join(data[kind])))
        found += [("frame", frame) for frame in FRAME.findall("".join(data.get("text/html", "")))]
    return found


def compare(stored, new):
    """Everything in which the pictures of two runs of one cell differ, a line each."""
    old, now = pictures_of(stored), pictures_of(new)
    if [kind for kind, _ in old] != [kind for kind, _ in now]:
        return [f"pictures stored: {[kind for kind, _ in old]}, now: {[kind for kind, _ in now]}"]
    lines = ((k, kind, difference(a, b)) for k, ((kind, a), (_, b)) in enumerate(zip(old, now), 1))
    return [f"picture {k} ({kind}): {why}" for k, kind, why in lines if why]
