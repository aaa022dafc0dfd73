"""What the book adds to a chapter when it reads its notebook; the notebook itself stays as it is everywhere else.

Figures and moving pictures are numbered together, chapter by chapter: "Fig. 22.3". The line below a figure that says
number and caption to readers of the notebook is left out here, where the figure has both. The set-up cell is folded,
and every folded cell says what it holds.
"""

import html
import json
import re

NAME = re.compile(r"notebooks/(solutions/)?(\d\d)_")
LINE = re.compile(r"\*\*Fig\. S?\d\d\.\d+\.\*\* [^\n]*(?:\n\n|$)")
LETTERING = re.compile(r"(?:font|label)size\s*=\s*(\d+(?:\.\d+)?)")
MOVIE = '<figure class="fl-movie"'


def label(docname, count):
    """The number of a chapter's figure: 22.3, or S22.3 among the solutions."""
    solutions, chapter = NAME.match(docname).groups()
    return f"{'S' if solutions else ''}{chapter}.{count}"


def kind_of(cell):
    """What a code cell shows: "figure", "movie" or ""."""
    shown = [output.get("data", {}) for output in cell.get("outputs", [])]
    if any(MOVIE in "".join(data.get("text/html", "")) for data in shown):
        return "movie"
    return "figure" if any("image/png" in data for data in shown) else ""


def smallest_letters(cell):
    """The size in points of the smallest lettering that a figure's cell asks for; the package's own is 11 and more."""
    return min([11.0, *map(float, LETTERING.findall("".join(cell["source"])))])


def numbered(cells):
    """Each code cell with a figure or a moving picture, and its place among them."""
    return list(enumerate((cell for cell in cells if cell["cell_type"] == "code" and kind_of(cell)), 1))


def prompt(cell, is_first):
    """What a folded cell is called."""
    if is_first:
        return "Set-up: what is imported"
    return {"figure": "Code of this figure", "movie": "Code of this moving picture"}.get(kind_of(cell), "Code")


def prepare(notebook, docname):
    """Change the notebook as it is read; gives the numbers of its figures by their names."""
    cells, numbers = notebook["cells"], {}
    for count, cell in numbered(cells):
        number, letters = label(docname, count), f"letters-{smallest_letters(cell):.0f}"
        if kind_of(cell) == "figure":
            said = cell["metadata"].setdefault("mystnb", {})
            figure, image = said.setdefault("figure", {}), said.setdefault("image", {})
            image["classes"] = f"{image.get('classes', '')} {letters}".strip()
            numbers[figure.setdefault("name", f"fig-{number.replace('.', '-').lower()}")] = number
            continue
        caption = cell["metadata"].get("mystnb", {}).pop("figure", {}).get("caption", "")
        said = f"<figcaption><em>Fig. {number}</em> {html.escape(caption)}</figcaption></figure>"
        for output in cell["outputs"]:
            data = output.get("data", {})
            if MOVIE in "".join(data.get("text/html", "")):
                text = "".join(data["text/html"]).replace("</figure>", said)
                data["text/html"] = text.replace(MOVIE, f'{MOVIE[:-1]} {letters}"')
    first = True
    for cell in cells:
        metadata = cell["metadata"]
        if cell["cell_type"] == "code":
            tags = metadata.setdefault("tags", [])
            if first and "hide-input" not in tags:
                tags.append("hide-input")
            if "hide-input" in tags:
                metadata.setdefault("mystnb", {})["code_prompt_show"] = prompt(cell, first)
                metadata["mystnb"]["code_prompt_hide"] = prompt(cell, first)
            first = False
        elif cell["cell_type"] == "markdown":
            cell["source"] = LINE.sub("", "".join(cell["source"]), count=1)
    notebook["cells"] = [c for c in cells if c["cell_type"] != "markdown" or "".join(c["source"]).strip()]
    return numbers


def read(app, docname, source):
    """Sphinx gives the text of a page before it is parsed."""
    if NAME.match(docname):
        notebook = json.loads(source[0])
        numbers = prepare(notebook, docname)
        source[0] = json.dumps(notebook)
        app.env.fl_numbers = getattr(app.env, "fl_numbers", {}) | {docname: numbers}


def renumber(app, env):
    """Put the chapter's numbers in place of those that run through the book."""
    for docname, numbers in getattr(env, "fl_numbers", {}).items():
        figures = env.toc_fignumbers.get(docname, {}).get("figure", {})
        for name in figures:
            if name in numbers:
                figures[name] = (numbers[name],)


def setup(app):
    """Connect to Sphinx."""
    app.connect("source-read", read)
    app.connect("env-check-consistency", renumber)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
