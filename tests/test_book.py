"""The built site: nothing from elsewhere, every link leads somewhere, every formula is set, every page can be read.

The site is built by `make book`; these tests read _build/html and, where there is a Chromium, open every page in it.
"""

import inspect
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from browser import COLOUR_RULES, ONE_OF_EACH_COLOUR, SCREENS, THEME, WIDE, axe_findings
from bs4 import BeautifulSoup

import feature_learning as fl

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
PAGES = sorted(p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html") if "_static" not in p.parts)
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))
SLUG = CONFIG["repository"]["url"].removeprefix("https://github.com/")
CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]
LOADING_LINKS = {"stylesheet", "icon", "shortcut", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch"}


@cache
def soup(page):
    """A page of the site, parsed."""
    return BeautifulSoup((SITE / page).read_text(encoding="utf8"), "html.parser")


def test_the_site_is_built():
    assert PAGES, "there is no site: make book"
    listed = re.findall(r"(?:file|root): (\S+)", (ROOT / "book/_toc.yml").read_text(encoding="utf8"))
    assert {f"{name}.html" for name in listed} <= set(PAGES)


# ------------------------------------------------------------------ nothing is loaded from elsewhere


def is_remote(address):
    """True for an address that leaves the site."""
    return bool(re.match(r"(?:[a-z][a-z0-9+.-]*:)?//", address.strip(), re.IGNORECASE))


def loaded(document):
    """Every address that a browser loads by itself when it shows the page."""
    for tag in document.find_all(True):
        for name in ("src", "poster", "data", "background"):
            if isinstance(tag.get(name), str) and not (name == "data" and tag.name != "object"):
                yield tag[name]
        for part in (tag.get("srcset") or "").split(","):
            if part.strip():
                yield part.split()[0]
        if tag.name == "link" and LOADING_LINKS & {word.lower() for word in tag.get("rel", [])}:
            yield tag.get("href", "")
        if tag.name in {"use", "image"}:
            yield tag.get("href", "") or tag.get("xlink:href", "")
        if tag.name == "style" or tag.get("style"):
            yield from addresses_in_css(tag.get("style") or tag.get_text())


def addresses_in_css(text):
    """What a style sheet loads."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    yield from (m[1] for m in re.finditer(r"url\(\s*['\"]?([^'\")]+)", text))
    yield from (m[1] for m in re.finditer(r"@import\s+['\"]([^'\"]+)", text))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_nothing_from_elsewhere(page):
    assert [address for address in loaded(soup(page)) if is_remote(address)] == []


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_loads_is_there(page):
    here = (SITE / page).parent
    missing = [a for a in loaded(soup(page)) if not re.match(r"data:|#|$", a) and not (here / file_of(a)).exists()]
    assert missing == []


def test_the_style_sheets_load_nothing_from_elsewhere():
    used = {
        (SITE / page).parent / file_of(link["href"])
        for page in PAGES
        for link in soup(page).find_all("link", rel="stylesheet")
    }
    assert used
    for sheet in used:
        addresses = list(addresses_in_css(sheet.read_text(encoding="utf8")))
        assert [a for a in addresses if is_remote(a)] == [], sheet.name
        local = [a for a in addresses if not a.startswith(("data:", "#"))]
        assert [a for a in local if not (sheet.parent / file_of(a)).exists()] == [], sheet.name


def test_a_remote_address_would_be_found():
    bad = """<img src="https://a.b/c.png"><script src="//a.b/c.js"></script>
             <link rel="preload" href="HTTP://a.b/c.woff2"><img srcset="x.png 1x, https://a.b/y.png 2x">
             <style>@import "https://a.b/c.css";</style>
             <div style="background: url('https://a.b/d.png')"></div><object data="https://a.b/e"></object>"""
    good = '<a href="https://a.b">link</a><link rel="canonical" href="https://a.b"><img src="c.png"><use href="#g1"/>'
    assert len([a for a in loaded(BeautifulSoup(bad, "html.parser")) if is_remote(a)]) == 7
    assert [a for a in loaded(BeautifulSoup(good, "html.parser")) if is_remote(a)] == []


# ------------------------------------------------------------------ links


def file_of(address):
    """The path in a relative address, without query and anchor."""
    return unquote(urlsplit(address).path)


@cache
def anchors(page):
    """Everything in a page that a link can point at."""
    document = soup(page)
    return {tag["id"] for tag in document.find_all(id=True)} | {
        tag["name"] for tag in document.find_all("a", attrs={"name": True})
    }


def dead_links(page, links):
    """The links of a page that lead to no file of the site or to no anchor in it."""
    for link in links:
        if re.match(r"[a-z][a-z0-9+.-]*:|//", link, re.IGNORECASE) or link in {"#", "#top"}:
            continue
        target = (SITE / page).parent / file_of(link) if file_of(link) else SITE / page
        if not target.is_file():
            yield link
        elif urlsplit(link).fragment and target.suffix == ".html":
            name = target.resolve().relative_to(SITE.resolve()).as_posix()
            if unquote(urlsplit(link).fragment) not in anchors(name):
                yield link


@pytest.mark.parametrize("page", PAGES)
def test_every_link_inside_the_book_leads_somewhere(page):
    assert list(dead_links(page, [a["href"] for a in soup(page).find_all("a", href=True)])) == []


def test_a_dead_link_would_be_found():
    assert len(list(dead_links("book/intro.html", ["nowhere.html", "#nowhere", "../index.html", "intro.html"]))) == 2


@pytest.mark.parametrize("page", CHAPTERS)
def test_buttons_of_a_chapter_point_at_its_notebook(page):
    name = page.replace(".html", ".ipynb")
    links = {a["href"] for a in soup(page).find_all("a", href=True)}
    colab = {link for link in links if "colab.research.google.com" in link and "#" not in link}
    assert f"https://colab.research.google.com/github/{SLUG}/blob/main/{name}" in colab
    assert (ROOT / name).is_file()
    up = "../" * name.count("/")
    assert f"{up}_sources/{name}" in links and (SITE / "_sources" / name).read_bytes() == (ROOT / name).read_bytes()


# ------------------------------------------------------------------ mathematics


def source(page):
    """The text of a page as its author wrote it: Markdown, or the Markdown cells of a notebook."""
    path = ROOT / page.replace(".html", ".md")
    if path.exists():
        return path.read_text(encoding="utf8")
    import nbformat

    path = path.with_suffix(".ipynb")
    cells = nbformat.read(path, as_version=4).cells if path.exists() else []
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def formulas_in(text):
    """How many dollar formulas a source holds, code left out."""
    text = re.sub(r"```(?!\{math\}).*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return len(re.findall(r"\$\$.+?\$\$|(?<![\\$])\$(?![\s$])[^$]+?(?<![\s\\])\$(?!\d)", text, re.DOTALL))


def unset_formulas(document):
    """Formulas on a page that are not set: no outline drawn, an outline that is missing, an error box, or raw TeX."""
    outlines = {path["id"] for path in document.select("svg.fl-glyphs path[id]") if path.get("d")}
    for formula in document.select(".fl-math"):
        used = [use["href"][1:] for use in formula.find_all("use")]
        if not used or set(used) - outlines or formula.select('[data-mjx-error], [data-mml-node="merror"]'):
            yield str(formula)[:200]
    article = document.find("article")
    if article:
        for hidden in article.find_all(["pre", "code", "script", "style"]):
            hidden.extract()
        yield from re.findall(
            r"\\\(.*?\\\)|\\\[.*?\\\]|\$\\?\w[^$\n]*\$|\\(?:frac|sum|mathbb|lambda|eta)\b", article.get_text()
        )


@pytest.mark.parametrize("page", PAGES)
def test_every_formula_is_set(page):
    document = BeautifulSoup((SITE / page).read_text(encoding="utf8"), "html.parser")
    assert len(document.select("article .fl-math > svg, article .fl-scroll > svg")) >= formulas_in(source(page))
    assert list(unset_formulas(document)) == []


def test_the_book_holds_formulas():
    assert sum(formulas_in(source(page)) for page in PAGES) >= 10


def test_a_formula_that_is_not_set_would_be_found():
    glyphs = '<svg class="fl-glyphs"><path id="g1" d="M0 0Z"/></svg>'
    good = f'{glyphs}<article><span class="fl-math"><svg><use href="#g1"/></svg></span> text <code>$x$</code></article>'
    bad = [
        good.replace("#g1", "#g2"),
        good.replace('<use href="#g1"/>', ""),
        good.replace(glyphs, ""),
        good.replace("text", r"\(x\)"),
        good.replace("text", r"$\lambda$"),
        good.replace("<svg><use", '<svg><g data-mml-node="merror"></g><use'),
    ]
    assert list(unset_formulas(BeautifulSoup(good, "html.parser"))) == []
    for page in bad:
        assert list(unset_formulas(BeautifulSoup(page, "html.parser"))), page
    assert formulas_in("a $x_1$ and $$y\n= 2$$ but not `$z$`, nor 3 $ or 4 $ in all") == 2


def test_a_mistake_in_a_formula_would_stop_the_build():
    from offline_math import Typesetter

    typesetter = Typesetter()
    assert typesetter(r"\frac{1}{2}", True)[1] == ""
    for wrong in (r"\frac{1}{", r"\nosuchcommand x", "x_1_2"):
        assert typesetter(wrong, False)[1], wrong


# ------------------------------------------------------------------ the page of the package


def public_names():
    """Every function and class that a reader may call, with the module it is written in."""
    for name in fl.__all__:
        thing = getattr(fl, name)
        if not inspect.ismodule(thing):
            yield f"{'feature_learning' if thing is fl.History else thing.__module__}.{name}"
            continue
        for inner in getattr(thing, "__all__", vars(thing)):
            part = getattr(thing, inner)
            if not inner.startswith("_") and callable(part) and getattr(part, "__module__", None) == thing.__name__:
                yield f"{thing.__name__}.{inner}"


def test_the_page_of_the_package_holds_every_public_name():
    assert set(public_names()) - anchors("book/api.html") == set()


def test_what_is_special_in_a_docstring_is_shown_as_it_is():
    from api_docstrings import plain

    text = ['|x| * a * particles_, x_1, "loss", *word* and `|x|_`', "a_ : ndarray", ">>> a * b_", "*x | 2", "", "*args"]
    shown = [r'\|x\| * a * particles\_, x_1, ``"loss"``, *word* and `|x|_`', *text[1:5], r"\*args"]
    assert list(plain(text)) == shown


# ------------------------------------------------------------------ the mended theme


def test_no_page_loads_what_the_book_does_not_use():
    for page in PAGES:
        scripts = {tag.get("src", "") + tag.get_text() for tag in soup(page).find_all("script")}
        assert not [script for script in scripts if "thebe" in script.lower() or "fontawesome" in script], page


def test_a_new_theme_that_cannot_be_mended_would_stop_the_build(monkeypatch):
    import offline_site

    complaints = []
    monkeypatch.setattr(offline_site.logger, "warning", lambda text, *names: complaints.append(text % names))
    theme = '<script defer src="x/scripts/fontawesome.js?digest=1"></script><div id="pst-primary-sidebar" class="a">'
    theme += '<summary><span class="toctree-toggle">'
    assert offline_site.mend(theme, "a.html") == (
        '<div id="pst-primary-sidebar" role="region" aria-label="Book" class="a">'
        '<summary aria-label="Pages of this part"><span class="toctree-toggle">'
    )
    assert complaints == []
    offline_site.mend("<div>", "a.html")
    assert len(complaints) == 2


# ------------------------------------------------------------------ in a browser


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_in_a_browser(visit, page, screen):
    """No error, no request that leaves, the right colours, all formulas, nothing wider than the screen, axe-clean."""
    view, wrong = visit((SITE / page).as_uri(), screen)
    first = SCREENS[screen][0]
    second = {"light": "dark", "dark": "light"}[first]
    themed = soup(page).find("article") is not None
    assert wrong == []
    if themed:
        assert view.evaluate(THEME) == first
    boxes = view.evaluate(
        "() => [...document.querySelectorAll('article .fl-math svg')].map(s => s.getBoundingClientRect().width)"
    )
    assert len(boxes) >= formulas_in(source(page))
    assert view.evaluate(WIDE) <= 0
    if themed:
        view.evaluate(ONE_OF_EACH_COLOUR)
    assert axe_findings(view) == []
    view.emulate_media(color_scheme=second)
    if themed:
        view.wait_for_function(f"{THEME[6:]} === '{second}'")
    assert axe_findings(view, COLOUR_RULES) == []
    assert view.evaluate(WIDE) <= 0 and wrong == []


def test_the_browser_tests_can_fail(visit, tmp_path):
    """One page with everything wrong: an error, a request that leaves, a box wider than the screen, no alt text."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<title>x</title><img src="http://127.0.0.1:9/x.png"><div style="width: 2000px">x</div>'
        "<script>throw new Error('oh')</script>",
        encoding="utf8",
    )
    view, wrong = visit(bad.as_uri(), "phone")
    assert any("oh" in line for line in wrong) and any(line.startswith("leaves: ") for line in wrong)
    assert view.evaluate(WIDE) > 0
    assert any(line.startswith("image-alt") for line in axe_findings(view))


def test_one_pale_word_among_many_would_be_found(visit, tmp_path):
    """Words of equal looks are measured once; one that looks different is not among them."""
    page = tmp_path / "words.html"
    words = '<span class="n">word</span> ' * 50
    head = "<!DOCTYPE html><html lang=en><title>x</title><main><h1>x</h1>"
    good = f"{head}<div class=highlight><pre>{words}</pre></div>"
    for text, found in ((good, []), (good.replace("</pre>", '<span style="color: #ddd">pale</span></pre>'), ["color"])):
        page.write_text(text, encoding="utf8")
        view, _ = visit(page.as_uri())
        view.evaluate(ONE_OF_EACH_COLOUR)
        assert view.evaluate("() => document.querySelectorAll('span').length") == 1 + len(found)
        assert [finding[:5] for finding in axe_findings(view, COLOUR_RULES)] == found
