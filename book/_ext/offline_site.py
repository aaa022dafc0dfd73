"""Make the theme's pages light, quiet and easy to read for everyone.

The theme links scripts that this book does not use (thebe, twice, and an icon library whose icons the fonts already
carry), and a few of its buttons have a spoken name that differs from the written one. Each page is mended once, after
it was written, by plain replacements; one that no longer finds its place is a warning, so that a new version of the
theme cannot undo it silently.
"""

import re
from pathlib import Path

from sphinx.util import logging

logger = logging.getLogger(__name__)

# what is it, pattern, replacement, and a page on which it must be found (None: on every one)
MENDS = [
    ("icon script", r'\s*<script defer src="[^"]*scripts/fontawesome\.js[^"]*"></script>', "", None),
    ("sidebar as a landmark", r'(<div id="pst-primary-sidebar" )', r'\1role="region" aria-label="Book" ', None),
    (
        "button of a part",
        r'<summary>(?=<span class="toctree-toggle")',
        '<summary aria-label="Pages of this part">',
        "11_condensation.html",
    ),
    ("deprecated role", r' role="doc-biblioentry"', "", "references.html"),
    ("list with other children", r' role="list"(?= class="citation-list")', "", "references.html"),
    # A signature that is set on several lines is a list of definitions without a term.
    ("parameters", r'<dl>(?=\s*<dd><em class="sig-param)', '<div class="fl-parameters">', "api.html"),
    ("parameter", r'<dd>(<em class="sig-param.*?</em>,?)</dd>', r"<div>\1</div>", "api.html"),
    ("end of parameters", r'</dl>(?=\s*<span class="sig-paren">\)</span>)', "</div>", "api.html"),
]


def drop_thebe(app, pagename, templatename, context, doctree):
    """Leave out the scripts and styles of a live-code service that this book does not use."""

    def is_thebe(asset):
        inline = getattr(asset, "attributes", {}).get("body") or ""
        return "thebe" in str(getattr(asset, "filename", asset)) or "THEBE" in inline

    for key in ("script_files", "css_files"):
        context[key] = [asset for asset in context.get(key, []) if not is_thebe(asset)]


def mend(page, name):
    """The mended page; complains if a place to be mended is gone."""
    for what, pattern, replacement, place in MENDS:
        page, count = re.subn(pattern, replacement, page)
        if not count and place in {None, name}:
            logger.warning("%s: nothing to mend for: %s", name, what)
    return page


def mend_all(app, exception):
    """Go once over the written pages and drop what none of them loads."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    for path in out.rglob("*.html"):
        page = path.read_text(encoding="utf8")
        if 'data-content_root="' in page and "</body>" in page:
            path.write_text(mend(page, path.name), encoding="utf8")
    for pattern in ("scripts/fontawesome.*", "**/*.map", "sphinx-thebe.*"):
        for path in (out / "_static").glob(pattern):
            path.unlink()


def setup(app):
    """Connect to Sphinx."""
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", mend_all)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
