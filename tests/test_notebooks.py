"""Chapters and solutions as files: a clean run, plain Markdown, described figures. nbval looks at outputs."""

import base64
import copy
import io
import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import captions
import nbformat
import numpy as np
import pictures
import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("**/[0-9]*.ipynb"))
LONGEST, MEDIAN, LARGEST = 25, 6, 2 * 2**20  # figures have 200 dots an inch
MYST = re.compile(r"^(```|:::)\{|\{[a-z:-]+\}`|^\s*\(\S+\)=\s*$", re.MULTILINE)


def name(path):
    """A notebook as the table of contents calls it."""
    return path.relative_to(ROOT).with_suffix("").as_posix()


# ------------------------------------------------------------------ rules for one notebook


def code_cells(notebook):
    """The code cells that hold code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def tags(cell):
    """A cell's tags."""
    return set(cell.metadata.get("tags", []))


def size(cell):
    """Lines of code, blank ones not counted."""
    return sum(bool(line.strip()) for line in cell.source.splitlines())


def one_clean_run(notebook):
    """The code cells were run once, in order, from a fresh kernel, and none complained."""
    count = 0
    for k, cell in enumerate(code_cells(notebook), 1):
        if "nbval-skip" not in tags(cell):
            count += 1
            if cell.execution_count != count:
                yield f"code cell {k} has execution count {cell.execution_count}, expected {count}"
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                yield f"code cell {k} stores a warning or progress bar from stderr"
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                yield f"code cell {k} stores an error"


def small_cells(notebook):
    """Cells are short enough to be read."""
    sizes = [size(cell) for cell in code_cells(notebook)]
    for k, lines in enumerate(sizes, 1):
        if lines > LONGEST:
            yield f"code cell {k} has {lines} lines, at most {LONGEST}"
    if sizes and statistics.median(sizes) > MEDIAN:
        yield f"the median code cell has {statistics.median(sizes):g} lines, at most {MEDIAN}"


def described_figures(notebook):
    """Every figure has a caption and a description for those who do not see it; every moving picture a description."""
    for k, cell in enumerate(code_cells(notebook), 1):
        kinds = {kind for kind, _ in pictures.pictures_of(cell.outputs)}
        said = cell.metadata.get("mystnb", {})
        html = "".join("".join(out.get("data", {}).get("text/html", "")) for out in cell.outputs)
        if 'class="fl-movie"' in html and not said.get("figure", {}).get("caption", "").strip():
            yield f"code cell {k}: moving picture without caption"
        if kinds & {"image/png", "image/jpeg"}:
            if not said.get("image", {}).get("alt", "").strip():
                yield f"code cell {k}: figure without alt text"
            if not said.get("figure", {}).get("caption", "").strip():
                yield f"code cell {k}: figure without caption"
        if re.search(r"<img(?![^>]*\balt=\"[^\"]+\")", html):
            yield f"code cell {k}: <img> in an output without alt text"


def plain_markdown(notebook):
    """Text that reads the same in Colab, on GitHub, in an editor and in the book."""
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    if notebook.cells[0].cell_type != "markdown" or not notebook.cells[0].source.startswith("# "):
        yield "the first cell is not a title"
    if sum(len(re.findall(r"^# ", text, re.MULTILINE)) for text in prose) != 1:
        yield "there must be one title"
    for k, text in enumerate(prose, 1):
        if MYST.search(text):
            yield f"text cell {k}: {MYST.search(text).group().strip()!r} is shown raw outside the book"


def quiet_metadata(notebook):
    """Metadata that says what runs the notebook and nothing of the machine it ran on."""
    if set(notebook.metadata) != {"kernelspec", "language_info"}:
        yield f"metadata holds {sorted(notebook.metadata)}: run make execute"
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not named python3"
    for k, cell in enumerate(notebook.cells, 1):
        if extra := set(cell.metadata) - {"tags", "mystnb", "slideshow", "jupyter"}:
            yield f"cell {k}: metadata {sorted(extra)}"
        folded = {"source_hidden": True} if "hide-input" in tags(cell) else {}
        if cell.metadata.get("jupyter", {}) != folded:
            yield f"cell {k}: jupyter metadata {dict(cell.metadata.get('jupyter', {}))}, expected {folded}"


def captions_below(notebook):
    """The title says the chapter's number; below each figure stands its caption, for those who read the notebook."""
    title = re.match(r"# (Solutions )?(\d\d) · ", notebook.cells[0].source)
    if not title:
        yield "the title does not begin with the chapter's number, as in '# 11 · One direction'"
        return
    docname = f"notebooks/{'solutions/' if title[1] else ''}{title[2]}_"
    wanted = captions.captioned(copy.deepcopy(notebook), docname)
    if [cell.source for cell in wanted.cells] != [cell.source for cell in notebook.cells]:
        yield "captions below figures are missing or old: book/_tools/captions.py writes them"


def checked_claims(notebook):
    """A chapter asserts what it says."""
    if not any(re.search(r"^\s*assert\b", cell.source, re.MULTILINE) for cell in code_cells(notebook)):
        yield "asserts nothing"


def set_up_cell(notebook):
    """The first code cell installs the package on Colab and does nothing elsewhere."""
    first = code_cells(notebook)[0].source
    if "google.colab" not in first or "git+https://github.com/" not in first:
        yield "the first code cell does not install the package on Colab"


RULES = [
    one_clean_run,
    small_cells,
    described_figures,
    plain_markdown,
    quiet_metadata,
    captions_below,
    checked_claims,
    set_up_cell,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_chapter(path, rule):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert list(rule(notebook)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_chapter_is_small_to_download(path):
    assert path.stat().st_size <= LARGEST


def test_the_chapters_are_those_of_the_table_of_contents():
    toc = yaml.safe_load((ROOT / "book/_toc.yml").read_text(encoding="utf8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    listed = {page["file"] for chapter in chapters for page in [chapter, *chapter.get("sections", [])]}
    assert set(map(name, NOTEBOOKS)) == {f for f in listed if f.startswith("notebooks/")} != set()


# ------------------------------------------------------------------ the rules can fail


def png(grey=255, width=20, mark=None):
    """A small grey picture, base64; `mark` paints a block black."""
    picture = Image.new("L", (width, 20), grey)
    if mark:
        picture.paste(0, mark)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def plot(dot=(0.3, 0.6), entries=2, bump=0.0, shift=0.0, label="step $t$"):
    """An output that holds a chart of sixty dots and a curve, of which one thing can be changed."""
    figure = Figure(figsize=(6, 4), dpi=100)
    axes = figure.subplots()
    x, t = np.random.default_rng(0).random((60, 2)) * (1 + shift), np.linspace(0, 1, 200)
    x[0] = dot
    axes.plot(*x.T, "o", ms=3, label="neuron")
    axes.plot(t, 0.5 + 0.3 * np.sin(6 * t) + bump * np.exp(-(((t - 0.5) / 0.03) ** 2)), label="theory")
    axes.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), xlabel=label)
    axes.legend(*(part[:entries] for part in axes.get_legend_handles_labels()), loc="upper right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return [nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(buffer.getvalue()).decode()})]


def webp(grey):
    """A grey frame of a moving picture."""
    buffer = io.BytesIO()
    Image.new("L", (20, 20), grey).convert("RGB").save(buffer, "WEBP", lossless=True)
    return base64.b64encode(buffer.getvalue()).decode()


def movie_frame(grey):
    """A frame as HTML, as `SOURCE` below shows it."""
    return f'<img src="data:image/webp;base64,{webp(grey)}">'


def movie(*greys):
    """An output like those of fl.plots.movie."""
    frames = "".join(f'<img alt="grey" src="data:image/webp;base64,{webp(grey)}">' for grey in greys)
    return [nbformat.v4.new_output("display_data", {"text/html": f"<figure>{frames}</figure>"})]


def picture(*arguments, **options):
    """An output that holds one figure."""
    return [nbformat.v4.new_output("display_data", {"image/png": png(*arguments, **options)})]


@pytest.fixture
def good():
    """A small chapter that keeps every rule."""
    v4 = nbformat.v4
    setup = (
        "try:\n    import google.colab\nexcept ImportError:\n    pass\nelse:\n    !pip install git+https://github.com/a"
    )
    described = {"mystnb": {"figure": {"caption": "A square."}, "image": {"alt": "a grey square"}}}
    notebook = v4.new_notebook(
        cells=[
            v4.new_markdown_cell("# 11 · Title\n\nText with $x_1$."),
            v4.new_code_cell(setup, execution_count=1),
            v4.new_code_cell(
                "assert True", execution_count=2, outputs=[v4.new_output("stream", name="stdout", text="ok")]
            ),
            v4.new_code_cell("draw()", execution_count=3, outputs=picture(), metadata=described),
            v4.new_markdown_cell("**Fig. 11.1.** A square.\n\nMore."),
        ]
    )
    notebook.metadata = nbformat.from_dict({"kernelspec": {"name": "python3"}, "language_info": {"name": "python"}})
    return notebook


def test_a_good_chapter_passes_every_rule(good):
    assert [finding for rule in RULES for finding in rule(good)] == []


BREAKS = {
    "count": (one_clean_run, lambda nb: nb.cells[2].update(execution_count=7)),
    "never run": (one_clean_run, lambda nb: nb.cells[2].update(execution_count=None)),
    "stderr": (one_clean_run, lambda nb: nb.cells[2].outputs[0].update(name="stderr")),
    "error": (
        one_clean_run,
        lambda nb: nb.cells[2].outputs.append(nbformat.v4.new_output("error", ename="E", evalue="")),
    ),
    "long": (small_cells, lambda nb: nb.cells[2].update(source="x\n" * 26)),
    "median": (small_cells, lambda nb: [cell.update(source="x\n" * 7) for cell in nb.cells[1:]]),
    "no alt": (described_figures, lambda nb: nb.cells[3].metadata["mystnb"].pop("image")),
    "no caption": (described_figures, lambda nb: nb.cells[3].metadata["mystnb"].pop("figure")),
    "movie without alt": (
        described_figures,
        lambda nb: nb.cells[2].outputs.append(nbformat.v4.new_output("display_data", {"text/html": '<img src="x">'})),
    ),
    "no title": (plain_markdown, lambda nb: nb.cells.pop(0)),
    "two titles": (plain_markdown, lambda nb: nb.cells[0].update(source="# A\n\n# B")),
    "role": (plain_markdown, lambda nb: nb.cells[0].update(source="# A\n\n{cite}`x`")),
    "directive": (plain_markdown, lambda nb: nb.cells[0].update(source="# A\n\n```{note}\n```")),
    "metadata": (quiet_metadata, lambda nb: nb.metadata.update(widgets={})),
    "cell metadata": (quiet_metadata, lambda nb: nb.cells[3].metadata.update(execution={})),
    "folded on the page alone": (quiet_metadata, lambda nb: nb.cells[3].metadata.update(tags=["hide-input"])),
    "caption not below": (captions_below, lambda nb: nb.cells[4].update(source="More.")),
    "caption of old": (captions_below, lambda nb: nb.cells[4].update(source="**Fig. 11.1.** A circle.\n\nMore.")),
    "no number": (captions_below, lambda nb: nb.cells[0].update(source="# Title")),
    "no assert": (checked_claims, lambda nb: nb.cells[2].update(source="print()")),
    "no set-up": (set_up_cell, lambda nb: nb.cells[1].update(source="import numpy")),
}


@pytest.mark.parametrize("case", BREAKS)
def test_each_rule_can_fail(good, case):
    rule, spoil = BREAKS[case]
    bad = copy.deepcopy(good)
    spoil(bad)
    assert list(rule(bad))


# ------------------------------------------------------------------ the picture check can fail, and is in force


def test_pictures_one_grey_level_apart_agree():
    assert pictures.compare(picture(200), picture(201)) == []
    assert pictures.compare(movie(200, 90), movie(201, 91)) == []


@pytest.mark.parametrize(
    "new", [picture(200, mark=(2, 2, 8, 8)), picture(230), picture(200, width=21), [], picture(200) * 2]
)
def test_a_changed_or_missing_picture_is_found(new):
    assert pictures.compare(picture(200), new)


SMALL = {
    "a dot moved": {"dot": (0.5, 0.95)},
    "a dot moved by three of its widths": {"dot": (0.33, 0.6)},
    "a legend's entry missing": {"entries": 1},
    "a letter changed": {"label": "step $s$"},
    "a curve moved in one place": {"bump": 0.02},
}


@pytest.mark.parametrize("case", SMALL)
def test_a_small_change_in_one_place_is_found(case):
    (why,) = pictures.compare(plot(), plot(**SMALL[case]))
    assert "pixels" in why
    if "dot" in SMALL[case]:
        assert "of one square" in why  # the picture as a whole hardly changes


@pytest.mark.parametrize("shift", [1e-7, 1e-5, 1e-4])
def test_what_rounding_changes_passes_also_where_it_sets_a_dot_one_pixel_further(shift):
    assert pictures.compare(plot(), plot(shift=shift)) == []


@pytest.mark.parametrize("new", [movie(200, 60), movie(200), movie(200, 90, 90), []])
def test_a_changed_or_missing_frame_is_found(new):
    assert pictures.compare(movie(200, 90), new)


FIRST = "import base64, io"
SOURCE = """from IPython.display import HTML, Image, display
from PIL import Image as P
def save(grey, kind, **options):
    b = io.BytesIO(); P.new("RGB", (20, 20), (grey,) * 3).save(b, kind, **options); return b.getvalue()
display(Image(save(200, "PNG")))
frame = base64.b64encode(save(90, "WEBP", lossless=True)).decode()
display(HTML(f'<img src="data:image/webp;base64,{frame}">'))"""


def test_the_check_is_in_force_when_notebooks_are_run(tmp_path):
    """Six notebooks through the real plugin, on two workers: as drawn, a shade off, not compared; three must fail.

    The first cell imports what the second needs, so they also fail if a notebook's cells do not stay together.
    """
    (tmp_path / "tests").mkdir()
    (tmp_path / "notebooks").mkdir()
    for name in ("conftest.py", "browser.py", "pictures.py", "nbval_sanitize.cfg"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")

    def outputs(grey, frame):
        shown = [("Image", {"image/png": png(grey)}), ("HTML", {"text/html": movie_frame(frame)})]
        return [
            nbformat.v4.new_output("display_data", data | {"text/plain": f"<IPython.core.display.{kind} object>"})
            for kind, data in shown
        ]

    cases = {
        "same": (200, 90, 1),
        "shade": (201, 91, 1),
        "png": (120, 90, 1),
        "frame": (200, 30, 1),
        "unrun": (200, 90, None),
        "ignored": (120, 30, 1),
    }
    for name, (grey, frame, count) in cases.items():
        cell = nbformat.v4.new_code_cell(SOURCE, execution_count=count, outputs=outputs(grey, frame) if count else [])
        cell.metadata["tags"] = ["nbval-ignore-output"] if name == "ignored" else []
        cells = [nbformat.v4.new_code_cell(FIRST, execution_count=1), cell]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / f"{name}.ipynb")
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n2",
            "--dist=loadscope",
            "--nbval",
            "--nbval-current-env",
            "--nbval-sanitize-with=tests/nbval_sanitize.cfg",
            "-p",
            "no:cacheprovider",
            "-rA",
            "--color=no",
            "tests",
            "notebooks",
        ],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    cells = re.findall(r"^(PASSED|FAILED) notebooks/(\w+)\.ipynb::", run.stdout, re.MULTILINE)
    verdicts = dict(sorted((name, verdict) for verdict, name in cells)[::-1])  # of a notebook's two, FAILED wins
    good = ("same", "shade", "ignored")
    expected = {name: "PASSED" if name in good else "FAILED" for name in cases}
    assert verdicts == expected and len(cells) == 12, run.stdout[-3000:]


# ------------------------------------------------------------------ make execute


def execute(*paths):
    """Run the execute tool."""
    command = [sys.executable, ROOT / "book/_tools/execute.py", *paths]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_execute_twice_gives_the_same_bytes_and_keeps_what_authors_wrote(tmp_path):
    path = tmp_path / "a.ipynb"
    cell = nbformat.v4.new_code_cell(
        "print('a')\nprint(1)",
        metadata={"tags": ["hide-input"], "mystnb": {"figure": {"caption": "c"}}, "jupyter": {"source_hidden": True}},
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# T"), cell], metadata={"widgets": {}})
    nbformat.write(notebook, path)
    assert execute(path).returncode == 0
    first = path.read_bytes()
    stored = nbformat.read(path, as_version=4)
    assert stored.cells[1].outputs[0].text == "a\n1\n" and stored.cells[1].execution_count == 1
    assert stored.cells[1].metadata == cell.metadata and [c.id for c in stored.cells] == [c.id for c in notebook.cells]
    assert list(quiet_metadata(stored)) == []
    assert "the same bytes" in execute(path).stdout and path.read_bytes() == first


def test_execute_leaves_a_failing_notebook_as_it_was(tmp_path):
    path = tmp_path / "a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("spam = 1 / 0")]), path)
    before = path.read_bytes()
    run = execute(path)
    assert run.returncode == 1 and "spam = 1 / 0" in run.stderr and "ZeroDivisionError" in run.stderr
    assert path.read_bytes() == before and json.loads(before)["cells"][0]["outputs"] == []
    assert [p.name for p in tmp_path.iterdir()] == ["a.ipynb"]
