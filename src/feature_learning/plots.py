"""The book's one look: colours that keep their meaning, heat maps of cosines, moving pictures without a server."""

import base64
import html
import io
import re
import sys

import matplotlib.pyplot as plt
import numpy as np

from .condensation import eigen_order

#: What a colour means, everywhere in the book (Okabe and Ito's palette, told apart by colour-blind readers).
COLOURS = {
    "condensed": "#0072B2", "spread": "#E69F00", "train": "#0072B2", "test": "#D55E00",
    "relevant": "#D55E00", "irrelevant": "#7F7F7F", "theory": "#222222",
    "mfld": "#009E73", "noiseless": "#CC79A7", "ntk": "#56B4E9",
}  # fmt: skip


def style():
    """Set matplotlib's defaults for the book, sharp figures among them; call it once in a notebook's first cell."""
    plt.rcParams.update({
        "figure.figsize": (6.4, 3.6), "figure.dpi": 100, "figure.constrained_layout.use": True,
        "font.size": 12, "axes.labelsize": 12, "legend.frameon": False, "lines.linewidth": 2, "image.cmap": "viridis",
        "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
        "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.6,
        "axes.prop_cycle": plt.cycler(color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]),
    })  # fmt: skip
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")


def similarity_map(ax, similarity, title=""):
    """Draw a matrix of cosines from -1 (red) over 0 (white) to 1 (blue).

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    similarity : ndarray, shape (m, m)
    title : str, optional
        A short label above a panel of a strip, such as "epoch 100".

    Returns
    -------
    matplotlib.image.AxesImage
        For a colour bar.
    """
    image = ax.imshow(similarity, cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=11)
    return image


def report(report):
    """Draw what `condensation.report` returns: the cosines of each layer, ordered by the leading eigenvector.

    Parameters
    ----------
    report : condensation.Report

    Returns
    -------
    matplotlib.figure.Figure
        One panel for each layer with two alive neurons or more, three in a row.

    Raises
    ------
    ValueError
        If no layer has two alive neurons.
    """
    rows = [row for row in report.rows if row.alive > 1]
    if not rows:
        raise ValueError(f"report must have a layer with two alive neurons; got {[row.alive for row in report.rows]}")
    across = min(3, len(rows))
    down = -(-len(rows) // across)
    figure, axes = plt.subplots(down, across, figsize=(1.1 + 2.1 * across, 2.6 * down), squeeze=False)
    for ax in axes.flat[len(rows) :]:
        ax.axis("off")
    for ax, row in zip(axes.flat, rows, strict=False):
        order = eigen_order(row.similarity)
        image = similarity_map(ax, row.similarity[np.ix_(order, order)], row.layer)
        ax.set_xlabel(f"ratio {row.ratio:.2f}", fontsize=11)
    figure.colorbar(image, ax=axes, shrink=0.8, label="cosine")
    return figure


def movie(draw, frames, *, name, alt, unit="frame", figsize=(4.6, 4.2), dpi=100, invert_dark=False):
    """A moving picture that needs no server and no library: images and a slider.

    Works offline, with the keyboard, in the book, in JupyterLab and in Colab; without scripts the last frame is shown.

    Parameters
    ----------
    draw : callable
        `draw(figure, frame)` draws one frame on an empty figure.
    frames : sequence
        What `draw` is called with; `str(frame)` labels the slider.
    name : str
        Of letters, digits, - and _, unique in the chapter: the element's id.
    alt : str
        What is to be seen, for those who do not see it.
    unit : str
        Label of the slider, such as "epoch".
    figsize, dpi
        Of each frame, in inches and dots an inch.
    invert_dark : bool
        Whether the frames may be inverted on a dark page: yes for points and lines, no for heat maps.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    ValueError
        If there is no frame, or the name holds other characters.
    RuntimeError
        If IPython, which shows the picture in a notebook, is not installed.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"name must hold letters, digits, - and _ only, one at least; got {name!r}")
    try:
        from IPython.display import HTML
    except ImportError as why:
        raise RuntimeError("plots.movie needs IPython, which comes with Jupyter: pip install ipython") from why

    if not (frames := list(frames)):
        raise ValueError("frames must hold at least one frame; got none")
    pictures, last = [], len(frames) - 1
    for k, frame in enumerate(frames):
        figure, buffer = plt.figure(figsize=figsize, dpi=dpi), io.BytesIO()
        draw(figure, frame)
        figure.savefig(buffer, format="webp", pil_kwargs={"quality": 80, "method": 6})
        plt.close(figure)
        label = html.escape(f"{unit} {frame}")
        marks = (' class="invert-dark"' if invert_dark else "") + ("" if k == last else " hidden")
        pictures.append(
            f'<img src="data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}" '
            f'alt="{html.escape(alt)} ({label})" data-label="{label}"{marks}>'
        )
    script = (
        f"(() => {{ const f = document.getElementById('movie-{name}'), p = f.querySelectorAll('img');"
        "f.querySelector('input').addEventListener('input', e => { p.forEach((i, k) => {"
        " i.hidden = k != e.target.value; });"
        " f.querySelector('output').textContent = p[e.target.value].dataset.label; }); })();"
    )
    return HTML(
        f'<figure class="fl-movie" id="movie-{name}">{"".join(pictures)}'
        f"<label><output>{html.escape(f'{unit} {frames[-1]}')}</output>"
        f'<input type="range" min="0" max="{last}" value="{last}" aria-label="{html.escape(unit)}"></label>'
        f"<script>{script}</script></figure>"
    )
