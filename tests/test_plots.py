"""The book's look: moving pictures, heat maps, colours; and that nothing but notebooks draws."""

import ast
import base64
import io
import re
import sys
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import feature_learning as fl
from feature_learning import plots

SOURCE = Path(fl.__file__).parent


@pytest.fixture(autouse=True)
def quiet_backend():
    """Draw without a screen, and leave matplotlib's settings and figures as they were."""
    old = mpl.get_backend()
    plt.switch_backend("Agg")
    with mpl.rc_context():
        yield
    plt.close("all")
    plt.switch_backend(old)


class Elements(HTMLParser):
    """All start tags with their attributes, and all text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def draw(figure, frame):
    figure.subplots().bar([0], [int(frame) + 1])


def make(frames=(0, 100, 1000), **settings):
    return plots.movie(draw, frames, **({"name": "bars", "alt": "One bar that grows", "unit": "epoch"} | settings)).data


# ------------------------------------------------------------------------------------------------ moving pictures
def test_movie_has_a_described_picture_for_every_frame_and_shows_the_last():
    pictures = Elements(make()).all("img")
    assert [p["alt"] for p in pictures] == [f"One bar that grows (epoch {k})" for k in (0, 100, 1000)]
    assert [p["data-label"] for p in pictures] == ["epoch 0", "epoch 100", "epoch 1000"]
    assert ["hidden" in p for p in pictures] == [True, True, False]


def test_movie_frames_are_webp_pictures_that_differ():
    decoded = []
    for picture in Elements(make(figsize=(3, 2), dpi=100)).all("img"):
        kind, content = picture["src"].split(",", 1)
        assert kind == "data:image/webp;base64"
        image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
        assert image.format == "WEBP" and image.size == (300, 200)
        decoded.append(np.asarray(image.convert("L"), dtype=float))
    assert all(a.std() > 5 for a in decoded)  # not blank
    assert all(np.abs(a - b).mean() > 0.1 for a, b in combinations(decoded, 2))


def test_movie_is_inverted_on_dark_pages_only_if_asked_for():
    for asked in (False, True):
        classes = [picture.get("class") for picture in Elements(make(invert_dark=asked)).all("img")]
        assert classes == ["invert-dark" if asked else None] * 3


def test_movie_slider_and_label():
    page = Elements(make())
    (slider,) = page.all("input")
    assert (slider["type"], slider["min"], slider["max"], slider["value"]) == ("range", "0", "2", "2")
    assert slider["aria-label"] == "epoch"
    (figure,) = page.all("figure")
    assert figure["id"] == "movie-bars" and "getElementById('movie-bars')" in "".join(page.text)
    assert page.text[0] == "epoch 1000"


def test_movie_asks_nothing_of_the_network():
    page = re.sub(r"base64,[A-Za-z0-9+/=]+", "", make())
    assert not re.search(r"https?:|//|\bsrc=\"(?!data:)|import\b|require\b|@import|url\(", page)


def test_movie_is_the_same_to_the_byte_the_second_time():
    assert make() == make()


def test_movie_of_one_frame_and_of_a_generator():
    (only,) = Elements(make([5])).all("img")
    assert "hidden" not in only
    assert make(iter([0, 1])) == make([0, 1])


def test_movie_escapes_what_it_is_given():
    page = Elements(make(alt='a "quoted" <tag> & more', unit="<b>"))
    assert page.all("img")[0]["alt"] == 'a "quoted" <tag> & more (<b> 0)'
    assert not page.all("tag") and not page.all("b")


def test_movie_closes_its_figures():
    before = plt.get_fignums()
    make()
    assert plt.get_fignums() == before


@pytest.mark.parametrize("name", ["a b", "", 'x"', "x'); alert(1); ('", "a.b", 3, None, "a\n"], ids=repr)
def test_movie_with_a_name_that_is_no_id(name):
    with pytest.raises(ValueError, match="name must hold letters, digits, - and _ only, one at least; got"):
        make(name=name)


def test_movie_without_ipython_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython.display", None)  # as if it were not installed
    with pytest.raises(RuntimeError, match="plots.movie needs IPython, .*: pip install ipython"):
        make()


@pytest.mark.parametrize("frames", [[], (), iter([]), np.array([])])
def test_movie_without_frames(frames):
    with pytest.raises(ValueError, match="frames must hold at least one frame; got none"):
        make(frames)


# ------------------------------------------------------------------------------------------------ other pictures
def test_similarity_map_is_fixed_from_minus_one_to_one():
    ax = plt.figure().subplots()
    image = plots.similarity_map(ax, np.array([[1, -1], [-1, 1.0]]), "epoch 3")
    assert image.get_clim() == (-1, 1) and ax.get_title() == "epoch 3"
    red, white, blue = (image.to_rgba(np.array([v]))[0, :3] for v in (-1.0, 0.0, 1.0))
    assert red[0] > red[2] and blue[2] > blue[0] and white.min() > 0.9


def test_style_is_readable():
    fl.style()
    assert plt.rcParams["font.size"] >= 10 and plt.rcParams["axes.labelsize"] >= 10
    assert plt.rcParams["lines.linewidth"] >= 1.5
    width, height = plt.rcParams["figure.figsize"]
    assert width * plt.rcParams["figure.dpi"] >= 600 and height < width
    assert plt.rcParams["image.cmap"] == "viridis"
    cycle = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    assert len(set(cycle)) == len(cycle) >= 5


# ------------------------------------------------------------------------------------------------ colours
#: Machado, Oliveira and Fernandes (2009): full deuteranopia and protanopia, on linear RGB.
SIGHT = {
    "common": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


def lab(colour, sight):
    """CIELAB (D65) of a colour as seen with `sight`."""
    rgb = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(SIGHT[sight]) @ linear, 0, 1)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    t = to_xyz @ linear / [0.95047, 1, 1.08883]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


TOGETHER = [("condensed", "spread"), ("train", "test"), ("relevant", "irrelevant"), ("mfld", "noiseless", "ntk")]


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("names", TOGETHER, ids="-".join)
def test_colours_that_share_a_picture_are_told_apart(names, sight):
    """A difference of 2.3 in CIELAB is just visible side by side; lines and dots want several times that."""
    seen = {name: lab(plots.COLOURS[name], sight) for name in (*names, "theory")}
    for a, b in combinations(seen, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 15, (a, b)


@pytest.mark.parametrize("name", plots.COLOURS)
def test_colours_stand_out_from_white(name):
    assert lab(plots.COLOURS[name], "common")[0] < 80  # lightness; white has 100


# ------------------------------------------------------------------------------------------------ who may draw
def imported_names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sorted(SOURCE.glob("*.py")), ids=lambda p: p.name)
def test_modules_never_import_plots(path):
    names = list(imported_names(ast.parse(path.read_text(encoding="utf-8"))))
    draws = [n for n in names if re.search(r"(^|\.)(plots|matplotlib|IPython)($|\.)", n)]
    if path.name == "__init__.py":
        assert all("plots" in n for n in draws)
    elif path.name != "plots.py":
        assert not draws
