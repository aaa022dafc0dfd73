"""Write the caption of each figure below it, for readers of the notebook: the pages show captions, notebooks do not.

usage: captions.py notebooks/11_condensation.ipynb …

The caption stands once, in the metadata of the cell that draws the figure. Of it a line "**Fig. 11.2.** …" is made at
the beginning of the text below; book/_ext/chapters.py, which also counts the figures, leaves it out on the pages.
`make execute` does this by itself.
"""

import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_markdown_cell

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "book" / "_ext"))

import chapters  # noqa: E402


def captioned(notebook, docname):
    """Put every caption below its figure and take away what an earlier run had put there."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = chapters.LINE.sub("", cell.source, count=1)
    cells = [cell for cell in notebook.cells if cell.cell_type != "markdown" or cell.source.strip()]
    counts = {id(cell): count for count, cell in chapters.numbered(cells)}
    notebook.cells, line = [], ""
    for cell in [*cells, None]:
        if line and cell is not None and cell.cell_type == "markdown" and not cell.metadata.get("tags"):
            cell.source = f"{line}\n\n{cell.source}"
        elif line:
            notebook.cells.append(new_markdown_cell(line, id=f"below-{notebook.cells[-1].id}"[:64]))
        line = ""
        if cell is None:
            break
        notebook.cells.append(cell)
        caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "")
        if id(cell) in counts and caption.strip():
            line = f"**Fig. {chapters.label(docname, counts[id(cell)])}.** {' '.join(caption.split())}"
    return notebook


def docname_of(path):
    """A notebook as Sphinx calls it."""
    path = path.resolve()
    return path.relative_to(ROOT).with_suffix("").as_posix() if path.is_relative_to(ROOT) else path.stem


def main(paths):
    """Rewrite the notebooks that need it."""
    for path in map(Path, paths):
        notebook = nbformat.read(path, as_version=4)
        before = nbformat.writes(notebook)
        after = nbformat.writes(captioned(notebook, docname_of(path)))
        if after != before:
            path.write_text(after.rstrip("\n") + "\n", encoding="utf8")
            print(f"{path}: captions written")


if __name__ == "__main__":
    main(sys.argv[1:])
