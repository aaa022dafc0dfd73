"""Docstrings are plain text, written to be read in a terminal: a bar, a star or a last underscore is just that.

reStructuredText would take |x| for a substitution, particles_ for a link and *shape for emphasis that never ends; so
these are escaped before napoleon reads the NumPy sections, and names in quotes become code, whose quotes stay straight.
`Names in backticks`, *stressed words*, parameters' headings and examples are left as they are.
"""

import re

FIELD = re.compile(r"\s*[\w*, ]+ : ")  # a parameter and its type, which napoleon escapes by itself
LEFT = re.compile(r"(``.+?``|:\w+:`.+?`|`[^`]+`|(?<!\w)\*\w[^*]*\w\*(?!\w))")
SPECIAL = re.compile(r"[|\\]|\*(?=\S)|(?<=\w)_(?!\w)")


def escaped(line):
    """One line of prose with what is special to reStructuredText made plain."""
    line = re.sub(r'(?<!`)"[\w.-]+"(?!`)', r"``\g<0>``", line)
    return "".join(part if k % 2 else SPECIAL.sub(r"\\\g<0>", part) for k, part in enumerate(LEFT.split(line)))


def plain(lines):
    """The lines of a docstring, prose escaped and examples left as they are."""
    example = False
    for line in lines:
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        yield line if example or FIELD.match(line) else escaped(line)


def make_plain(app, what, name, thing, options, lines):
    """Change a docstring in place, as autodoc asks for."""
    lines[:] = list(plain(lines))
    if what in {"data", "attribute"}:
        lines[:0] = ["..", ""]  # or napoleon takes what stands before a colon in the first line for a type


def setup(app):
    """Connect before napoleon, whose priority is 500."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", make_plain, priority=400)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
