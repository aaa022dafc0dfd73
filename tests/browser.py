"""What the tests in a browser share: where it is, how it starts, and what axe finds on a page."""

import os
import shutil
from pathlib import Path

CHROMIUM = (
    os.environ.get("CHROMIUM")
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# The look a page is opened in and the screen's width; the other look is switched to when the page is there.
SCREENS = {"wide": ("light", 1280), "phone": ("dark", 390)}

# A page of code has thousands of coloured words in a dozen colours. One of each stays, so that axe measures a dozen.
ONE_OF_EACH_COLOUR = """() => {
  const page = document.documentElement, theme = page.dataset.theme, keys = new Map(), seen = new Set();
  for (const word of document.querySelectorAll(".highlight span, .sig span"))
    if (!word.children.length && !word.closest("a, button"))
      keys.set(word, word.closest(".highlight, .sig").parentElement.className);
  for (const look of ["light", "dark"]) {
    page.dataset.theme = look;
    for (const [word, key] of keys) {
      const style = getComputedStyle(word);
      keys.set(word, [key, style.color, style.backgroundColor, style.fontSize, style.fontWeight].join());
    }
  }
  page.dataset.theme = theme;
  for (const [word, key] of keys) seen.has(key) ? word.replaceWith(word.textContent) : seen.add(key);
}"""


COLOUR_RULES = ["color-contrast", "link-in-text-block"]  # of those that axe runs by default, the two about colours


def axe_findings(page, rules=None):
    """What axe-core finds on a page, a line each, with all the rules that it runs by default or with these."""
    import axe_playwright_python

    # A colour on its way from one look to the other is neither's: on a slow machine axe would measure it half-way.
    page.add_style_tag(content="*, *::before, *::after { transition: none !important; animation: none !important; }")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    if not page.evaluate("() => 'axe' in window"):
        script = Path(axe_playwright_python.__file__).parent / "axe.min.js"
        page.evaluate(script.read_text(encoding="utf8"))
    options = {"preload": False} | ({"runOnly": rules} if rules else {})
    shorten = "v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 160)]"
    found = page.evaluate(f"async options => (await axe.run(options)).violations.map({shorten})", options)
    return [f"{name} ({count}): {example}" for name, count, example in found]


WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


THEME = "() => document.documentElement.dataset.theme"
