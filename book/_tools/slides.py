"""Make an offline slide deck of each chapter, out of the chapter's own cells.

usage: slides.py                 writes _build/slides/index.html and a page for each chapter
       slides.py --with-book     writes them into the built book, whose experiments they link to there

Cells are chosen by `slideshow` in their metadata, which JupyterLab shows and edits: `slide` begins a slide, `fragment`
goes on with it at the next key press, `notes` speaks to the lecturer alone; a cell without it is on no slide. Beside
`slide_type` may stand `title`, `blocks` (which blocks of a Markdown cell to show, counted from 1; the others become
notes) and `show` ("code" or "output"). Reveal.js comes from the package `sphinx-revealjs`, used as a folder of files.
"""

import copy
import importlib.util
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
import yaml
from bs4 import BeautifulSoup
from nbformat.v4 import new_markdown_cell

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "book" / "_ext"))

import chapters  # noqa: E402

DETAILS = re.compile(r"<details><summary>(.*?)</summary>(.*?)</details>", re.DOTALL)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:)([^)#]*)[^)]*\)")
WIDEST = 80  # ex; a formula that is wider is set smaller
KINDS = {"slide", "fragment", "notes"}
EXTENSIONS = ["myst_nb", "offline_math"]
MYST = ["amsmath", "colon_fence", "dollarmath"]
FILES = ["dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js"]


def blocks(text):
    """The blocks of a Markdown text: what blank lines separate; code, formulas and <details> hold together."""
    text = re.sub(r"^(#+ .*)\n(?!\n)", r"\1\n\n", text, flags=re.MULTILINE)
    pattern = r"<details>.*?</details>|```.*?```|\$\$.*?\$\$|[^\n]+"
    found, end = [], None
    for match in re.finditer(pattern, text, re.DOTALL):
        if end is not None and "\n\n" not in text[end : match.start()] and found:
            found[-1] += text[end : match.start()] + match[0]
        else:
            found.append(match[0])
        end = match.end()
    return found


def spoken(block):
    """What a block says that is not shown: an answer with what is right about it, a hint, or the text itself."""
    return DETAILS.sub(lambda m: f"**{m[1].strip()}** {m[2].strip()}", block)


def shown_and_spoken(cell, rules):
    """A Markdown cell's last heading before what is shown, what is shown of it, and what goes to the notes."""
    parts = blocks(chapters.LINE.sub("", cell.source, count=1))
    chosen = rules.get("blocks", range(1, len(parts) + 1))
    if not set(chosen) <= set(range(1, len(parts) + 1)):
        raise ValueError(f"blocks must lie in 1 to {len(parts)}; got {list(chosen)}")
    heading, show, say, visible = None, [], [], False
    for k, part in enumerate(parts, 1):
        if part.startswith("#"):
            heading = heading if show else part.lstrip("# ").strip()
        elif part.startswith("<details>"):
            say.append(spoken(part))
            if visible and "<summary>Hint" not in part:
                show.append(f"* {DETAILS.match(part)[1].strip()}")
        else:
            visible = k in chosen
            (show if visible else say).append(part)
    return heading, "\n\n".join(show), "\n\n".join(say)


def local(text):
    """Text whose links within the book are words only, because a deck travels alone."""
    return LINK.sub(r"\1", text)


def boxed(kind, text):
    """Markdown in a box of its own."""
    return f"::::::{{container}} {kind}\n{local(text)}\n::::::"


def site():
    """The address of the published book."""
    url = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))["repository"]["url"]
    owner, name = url.split("/")[-2:]
    return f"https://{owner}.github.io/{name}/"


def experiment(cell, name):
    """A link to the experiment that stands beside a cell's picture in the book, as a list of one, or none."""
    live = [tag for tag in cell.metadata.get("tags", []) if tag.startswith("live-")]
    address = f"{site()}notebooks/{name}.html#{live[0]}" if live else ""
    return [new_markdown_cell(f"::::::{{container}} live\n[Run it in the book]({address})\n::::::")] if live else []


def deck(chapter, name=""):
    """The notebook of a chapter's slides: a section for each, with fragments and notes in boxes of their own.

    `name` is that of the chapter's page, for links to its experiments.

    Raises
    ------
    ValueError
        If a kind of slide is unknown, a deck does not begin with a slide, or a cell shows nothing.
    """
    cells, heading, started = [], "", False
    for cell in chapter.cells:
        rules = cell.metadata.get("slideshow", {})
        kind = rules.get("slide_type")
        headings = re.findall(r"^## (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        if kind in {None, "", "-", "skip"}:
            heading = [heading, *headings][-1]
            continue
        if kind not in KINDS or (kind != "slide" and not started):
            raise ValueError(f"slide_type must be one of {sorted(KINDS)}, a slide first; got {kind!r}")
        show = say = ""
        if cell.cell_type == "markdown":
            found, show, say = shown_and_spoken(cell, rules)
            heading = found or heading
            if kind == "notes":
                show, say = "", "\n\n".join(map(spoken, blocks(cell.source)))
        if kind == "slide":
            title = rules.get("title", heading)
            cells.append(new_markdown_cell(f"## {title}" if started else f"# {title}"))
            started = True
        if show:
            cells.append(new_markdown_cell(boxed("fragment" if kind == "fragment" else "shown", show)))
        if cell.cell_type == "code":
            cells += [shown_code(cell, rules, kind), *experiment(cell, name)]
        if say:
            cells.append(new_markdown_cell(boxed("notes", say)))
        heading = [heading, *headings][-1]
    notebook = copy.deepcopy(chapter)
    notebook.cells = cells
    return notebook


def shown_code(cell, rules, kind):
    """A code cell with the tags that say what of it is shown."""
    cell = copy.deepcopy(cell)
    show = rules.get("show") or ("output" if "hide-input" in cell.metadata.get("tags", []) else "both")
    if show == "output" and not cell.outputs:
        raise ValueError(f"a cell without output shows nothing:\n{cell.source}")
    cell.metadata.tags = [kind] + {"output": ["remove-input"], "code": ["remove-output"]}.get(show, [])
    return cell


def reveal_folder():
    """Where the pinned package keeps reveal.js."""
    spec = importlib.util.find_spec("sphinx_revealjs")
    if spec is None:
        raise ModuleNotFoundError("sphinx-revealjs is not installed: pip install -r requirements.txt")
    return Path(spec.submodule_search_locations[0]) / "_static" / "revealjs"


def arrange(page):
    """The page as reveal.js wants it: one flat list of sections, fragments and notes marked."""
    soup = BeautifulSoup(page, "html.parser")
    outer = soup.select_one(".slides > section")
    first = soup.new_tag("section", attrs={"class": "title"})
    for child in list(outer.children):
        if getattr(child, "name", None) != "section":
            first.append(child.extract())
    outer.insert(0, first)
    outer.unwrap()
    for cell in soup.select(".tag_fragment"):
        cell["class"].append("fragment")
    for section in soup.select(".slides > section"):
        notes = section.select(".notes")
        if notes:
            aside = soup.new_tag("aside", attrs={"class": "notes"})
            for note in notes:
                aside.append(note.extract())
                note.unwrap()
            section.append(aside)
    for formula in soup.select("div.fl-math"):
        width = float(formula.svg["width"].removesuffix("ex"))
        if width > WIDEST:
            formula["style"] = f"font-size: {WIDEST / width:.0%}"
    for link in soup.select("a.headerlink"):
        link.decompose()
    return str(soup)


def build(source, out, decks):
    """Let Sphinx write the pages: the same code colours, formulas and figures as the book's."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    names = "\n".join(name for name, _ in decks)
    (source / "index.md").write_text(f"# Slides\n\n```{{toctree}}\n{names}\n```\n", encoding="utf8")
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))
    titles = [(name, notebook.cells[0].source.lstrip("# ")) for name, notebook in decks]
    with docutils_namespace():  # what Sphinx registers in the process is forgotten: a second build does not warn
        app = Sphinx(
            source, None, out, source / ".doctrees", "html", status=None, warningiserror=True, keep_going=True,
            confoverrides={
                "extensions": EXTENSIONS, "myst_enable_extensions": MYST, "html_theme": "deck",
                "html_theme_path": [str(ROOT / "book" / "_slides")], "html_math_renderer": "svg",
                "html_copy_source": False, "html_use_index": False, "html_context": {"decks": titles},
                "project": settings["title"], "author": settings["author"], "language": "en",
                "nb_execution_mode": "off", "suppress_warnings": ["myst.header", "mystnb.unknown_mime_type"],
            },
        )  # fmt: skip
        app.build(force_all=True)
    if app.statuscode:
        raise ValueError("the pages have faults, named above")


def write(decks, folder, book=None):
    """Write decks, pairs of a name and a notebook, below `folder`; return where they are.

    The book's address is that of the published one, or `book` if given.

    Raises
    ------
    ValueError
        If a page has a fault, such as a formula that cannot be set.
    """
    out = folder / "slides"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as place:
        for name, notebook in decks:
            nbformat.write(notebook, Path(place) / f"{name}.ipynb")
        build(Path(place), out, decks)
    for name, _ in decks:
        page = out / f"{name}.html"
        text = arrange(page.read_text(encoding="utf8")).replace(site(), book or site())
        page.write_text(text, encoding="utf8")
    (out / "reveal").mkdir()
    for name in FILES:
        shutil.copy(reveal_folder() / name, out / "reveal")
    for name in ("search.html", "searchindex.js", "objects.inv", ".buildinfo"):
        (out / name).unlink(missing_ok=True)
    for file in (out / "_static").iterdir():
        if file.name not in {"deck.css", "deck.js", "pygments.css"}:
            file.unlink()
    return out


def main(with_book=False):
    """Write all decks; the exit status says whether every chapter could be read."""
    folder, book = (ROOT / "_build" / "html", "../") if with_book else (ROOT / "_build", None)
    decks, failed = [], False
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        try:
            notebook = deck(nbformat.read(path, as_version=4), path.stem)
        except ValueError as why:
            print(f"{path.name}: {why}", file=sys.stderr)
            failed = True
        else:
            decks += [(path.stem, notebook)] if notebook.cells else []
    try:
        out = write(decks, folder, book)
    except ValueError as why:
        print(why, file=sys.stderr)
        return True
    print(f"{len(decks)} decks are in {out}: open {out / 'index.html'}")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] == ["--with-book"]))
