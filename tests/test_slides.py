"""The decks: made of the chapters' own cells, offline, and nothing on a slide is cut off."""

import re
from pathlib import Path

import nbformat
import pytest
import slides
from browser import axe_findings
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHORTEST, LONGEST = 12, 20


def on(cell, kind, **more):
    """The cell with a place on a slide."""
    cell.metadata["slideshow"] = {"slide_type": kind, **more}
    return cell


def small():
    """A chapter of four slides' worth of cells."""
    question = (
        "## Which?\n\nText.\n\n**Predict.** One or two?\n\n<details><summary>A. One.</summary>\n\nNo.\n\n</details>\n\n"
        "<details><summary>B. Two.</summary>\n\nYes, $1 + 1$.\n\n</details>"
    )
    exercise = "**1.** ★ (10 minutes) Do [it](x.ipynb#y).\n\n<details><summary>Hint</summary>\n\nSo.\n\n</details>"
    printed = new_output("stream", name="stdout", text="2\n")
    language = {"name": "python", "pygments_lexer": "ipython3"}
    return new_notebook(metadata={"language_info": language}, cells=[
        on(new_markdown_cell("# A claim\n\nIt holds."), "slide"),
        new_markdown_cell("## Not shown\n\nLong."),
        on(new_code_cell("print(1 + 1)", outputs=[printed]), "slide", title="Two"),
        on(new_markdown_cell("Say this."), "notes"),
        on(new_markdown_cell(question), "slide", blocks=[3]),
        on(new_code_cell("f()", metadata={"tags": ["hide-input"]}, outputs=[printed]), "fragment"),
        on(new_markdown_cell(exercise), "slide"),
    ])  # fmt: skip


# ------------------------------------------------------------------ how a deck is made


def test_a_deck_is_made_of_the_marked_cells():
    made = slides.deck(small()).cells
    texts = [cell.source for cell in made if cell.cell_type == "markdown"]
    assert [t.lstrip("# ") for t in texts if t.startswith("#")] == ["A claim", "Two", "Which?", "Which?"]
    whole = "\n".join(texts)
    assert "It holds." in whole and "Long." not in whole
    assert "{container} notes\nSay this." in whole
    assert [c.metadata.tags for c in made if c.cell_type == "code"] == [["slide"], ["fragment", "remove-input"]]


def test_answers_are_a_list_and_what_is_right_about_them_is_for_the_lecturer():
    whole = "\n".join(cell.source for cell in slides.deck(small()).cells)
    assert "**Predict.** One or two?\n\n* A. One.\n\n* B. Two.\n" in whole
    notes = re.findall(r"\{container\} notes\n(.*?)\n::::::", whole, re.DOTALL)
    assert notes[1:] == ["Text.\n\n**A. One.** No.\n\n**B. Two.** Yes, $1 + 1$.", "**Hint** So."]
    assert "Do it." in whole and "x.ipynb" not in whole


def test_blocks_hold_formulas_code_and_answers_together():
    formula, code, answer = "$$\na\n\nb\n$$", "```\nx\n\ny\n```", "<details><summary>S</summary>\n\nd\n\n</details>"
    text = f"# T\nOne\ntwo.\n\n{formula}\n\n{code}\n\n* i\n* j\n\n{answer}"
    assert slides.blocks(text) == ["# T", "One\ntwo.", formula, code, "* i\n* j", answer]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda nb: on(nb.cells[0], "fragment"), "a slide first"),
        (lambda nb: on(nb.cells[0], "subslide"), "slide_type must be one of"),
        (lambda nb: on(nb.cells[4], "slide", blocks=[9]), "blocks must lie in 1 to"),
        (lambda nb: nb.cells[5].update(outputs=[]), "without output"),
    ],
)
def test_a_deck_that_cannot_be_made_says_why(change, says):
    chapter = small()
    change(chapter)
    with pytest.raises(ValueError, match=says):
        slides.deck(chapter)


# ------------------------------------------------------------------ the real ones


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_chapter_has_a_deck_of_an_hour(path):
    kinds = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in nbformat.read(path, as_version=4).cells]
    assert SHORTEST <= kinds.count("slide") <= LONGEST


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    """All decks and one that is too full."""
    full = small()
    full.cells[2].source = "x = 1\n" * 40
    made = [(path.stem, slides.deck(nbformat.read(path, as_version=4), path.stem)) for path in CHAPTERS]
    return slides.write([*made, ("99_full", slides.deck(full))], tmp_path_factory.mktemp("slides"))


# What is cut off on the slide that is shown: code wider than its box, anything beyond the slide, a picture too small.
CUT_OFF = """() => {
  const slide = document.querySelector(".slides > section.present"), room = slide.getBoundingClientRect(), bad = [];
  for (const e of slide.querySelectorAll("*")) {
    if (e.closest("aside.notes, .fl-mathml, .fl-glyphs, [hidden]")) continue;
    const r = e.getBoundingClientRect();
    if (r.width && (r.right > room.right + 1 || r.left < room.left - 1 || r.bottom > room.bottom - 8))
      bad.push(`${e.tagName} ${e.className} to ${Math.round(r.right)}, ${Math.round(r.bottom)}`);
    if (e.tagName === "PRE" && e.scrollWidth > e.clientWidth + 1) bad.push(`code ${e.scrollWidth} wide`);
    if (e.tagName === "IMG" && r.height < 170) bad.push(`picture ${Math.round(r.height)} high`);
  }
  return bad;
}"""


@pytest.mark.parametrize("name", [path.stem for path in CHAPTERS])
def test_a_deck_in_a_browser(visit, decks, name):
    """By keyboard from the first slide to the last: nothing cut off, nothing loaded from elsewhere, axe-clean."""
    view, wrong = visit((decks / f"{name}.html").as_uri())
    view.set_viewport_size({"width": 1280, "height": 720})
    view.wait_for_function("() => Reveal.isReady()")
    total, bad = view.evaluate("Reveal.getTotalSlides()"), []
    for number in range(1, total + 1):
        view.evaluate(f"Reveal.slide({number - 1}, 0, 99)")  # with all that appears step by step
        assert view.evaluate("Reveal.getIndices().h") == number - 1
        bad += [f"slide {number}: {what}" for what in view.evaluate(CUT_OFF)]
    assert bad == [] and wrong == []
    assert view.evaluate("document.querySelectorAll('.fl-math svg use').length") > 0
    assert view.evaluate("document.querySelectorAll('aside.notes').length") >= 3
    assert axe_findings(view) == []
    view.evaluate("Reveal.slide(0)")
    view.keyboard.press("ArrowRight")
    assert view.evaluate("Reveal.getIndices()") != {"h": 0, "v": 0}
    before = view.evaluate("document.documentElement.dataset.theme")
    view.keyboard.press("d")
    assert view.evaluate("document.documentElement.dataset.theme") != before


def test_the_slide_of_an_experiment_links_to_it(decks):
    """To the published book, because a deck travels alone; one that is built into the book finds it there."""
    found = {}
    for path in CHAPTERS:
        page = BeautifulSoup((decks / path.with_suffix(".html").name).read_text(encoding="utf8"), "html.parser")
        found |= {link["href"]: path.stem for link in page.select(".slides > section .live a[href]")}
    marked = re.compile(r'"(live-\w+)"')
    expected = {
        f"{slides.site()}notebooks/{path.stem}.html#{name}": path.stem
        for path in CHAPTERS
        for name in marked.findall(path.read_text(encoding="utf8"))
    }
    assert found == expected and len(found) >= 4


def test_a_deck_in_the_book_finds_the_experiment_there(tmp_path):
    chapter = small()
    chapter.cells[2].metadata["tags"] = ["live-langevin"]
    out = slides.write([("22_x", slides.deck(chapter, "22_x"))], tmp_path, "../")
    assert 'href="../notebooks/22_x.html#live-langevin"' in (out / "22_x.html").read_text(encoding="utf8")
    assert not list(tmp_path.glob(".*"))


def test_a_slide_that_is_too_full_would_be_found(visit, decks):
    view, _ = visit((decks / "99_full.html").as_uri())
    view.set_viewport_size({"width": 1280, "height": 720})
    view.wait_for_function("() => Reveal.isReady()")
    view.evaluate("Reveal.slide(1, 0, 99)")
    assert view.evaluate(CUT_OFF)
