"""The pages as readers meet them: light, found, shared, searched, printed, and usable with the keyboard alone."""

import gzip
import json
import re
from xml.etree import ElementTree

import chapters
import nbformat
import pytest
from PIL import Image
from test_book import CHAPTERS, PAGES, ROOT, SITE, SLUG, dead_links, file_of, soup

BASE = "https://{}.github.io/{}/".format(*SLUG.split("/"))
OWN = [page for page in PAGES if page not in {"404.html", "index.html", "genindex.html", "search.html"}]
FIRST_VISIT, LATER_PAGE = 600_000, 350_000  # bytes as they travel: with everything, and of a page as it opens
PACKED = {".css", ".js", ".svg", ".html", ".json"}  # what a server compresses


# ------------------------------------------------------------------ weight


def weight(path):
    """How many bytes of a file travel."""
    data = path.read_bytes()
    return len(gzip.compress(data, 6)) if path.suffix in PACKED else len(data)


def parts(page):
    """The files of a page that load as it opens, those that wait until they are near, and what all pages share."""
    document, here = soup(page), (SITE / page).parent
    pictures = [image for image in document.find_all("img", src=True) if not image.has_attr("hidden")]
    shared = [s["src"] for s in document.find_all("script", src=True)]
    shared += [s["href"] for s in document.find_all("link", rel=["stylesheet", "icon"])]

    def files(links):
        return {(here / file_of(link)).resolve() for link in links if not link.startswith("data:")}

    once = files(i["src"] for i in pictures if i.get("loading") != "lazy")
    later = files(i["src"] for i in pictures if i.get("loading") == "lazy")
    logo = {path for path in once if "_static" in path.parts}
    return {(SITE / page).resolve()} | once - logo, later, files(shared) | logo


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_light(page):
    once, later, shared = (sum(map(weight, files)) for files in parts(page))
    assert once <= LATER_PAGE and once + later + shared <= FIRST_VISIT, (once, later, shared)


def test_no_page_but_the_search_loads_the_index_and_none_an_icon_font():
    for page in PAGES:
        loads = " ".join(tag.get("src", "") for tag in soup(page).find_all("script"))
        assert ("search-data.js" in loads) == (page == "search.html") and "searchindex" not in loads, page
    assert not [path for path in SITE.rglob("*") if path.suffix in {".woff", ".woff2", ".ttf", ".map"}]
    assert "@font-face" not in (SITE / "_static/book.css").read_text(encoding="utf8")


def test_every_icon_has_an_outline():
    sheet = (SITE / "_static/book.css").read_text(encoding="utf8")
    icons = {c for page in PAGES for i in soup(page).find_all("i") for c in i.get("class", []) if c.startswith("fa-")}
    icons -= {"fa-solid", "fa-brands", "fa-regular", "fa-lg"}
    assert len(icons) > 8 and [name for name in icons if f".{name}{{--icon:url(" not in sheet] == []


@pytest.mark.parametrize("page", CHAPTERS)
def test_pictures_say_their_size_and_load_when_they_are_near(page):
    pictures = [image for image in soup(page).select("article img") if "_images" in image["src"]]
    for image in pictures:
        with Image.open((SITE / page).parent / image["src"]) as stored:
            ratio = stored.size[0] / stored.size[1]
        assert abs(int(image["width"]) / int(image["height"]) - ratio) < 0.02 * ratio
        assert image.get("loading") == ("lazy" if image is not pictures[0] else None) or image.find_parent(
            "figure", class_="fl-movie"
        )
    assert "data:image/webp" not in (SITE / page).read_text(encoding="utf8")


# ------------------------------------------------------------------ found and shared


@pytest.mark.parametrize("page", OWN)
def test_a_page_says_what_it_is(page):
    document = soup(page)
    said = {m.get("property") or m.get("name"): m["content"] for m in document.find_all("meta", content=True)}
    assert 40 <= len(said["description"]) <= 210 and said["og:description"] == said["description"]
    assert document.title.get_text().count("Feature Learning You Can Run") == 1 and said["og:title"]
    place = BASE + ("" if page == "book/intro.html" else page)
    assert [link["href"] for link in document.find_all("link", rel="canonical")] == [place] == [said["og:url"]]
    assert said["og:image"].startswith(BASE) and (SITE / said["og:image"].removeprefix(BASE)).suffix == ".png"
    assert (SITE / said["og:image"].removeprefix(BASE)).is_file()
    assert len(document.find_all("meta", attrs={"name": "viewport"})) == 1


def test_chapters_are_shared_with_their_own_picture_and_claim():
    cards = [soup(page).find("meta", property="og:image")["content"] for page in CHAPTERS if "solutions" not in page]
    claims = [soup(page).find("meta", attrs={"name": "description"})["content"] for page in CHAPTERS]
    assert len(set(cards)) == len(cards) and not [card for card in cards if "teaser" in card]
    assert len(set(claims)) == len(claims)


def test_the_map_of_the_site_names_every_page():
    tree = ElementTree.parse(SITE / "sitemap.xml")
    places = {entry.text for entry in tree.iter("{http://www.sitemaps.org/schemas/sitemap/0.9}loc")}
    assert places == {BASE + ("" if page == "book/intro.html" else page) for page in OWN}
    assert f"Sitemap: {BASE}sitemap.xml" in (SITE / "robots.txt").read_text(encoding="utf8")


def test_the_front_door_is_the_introduction():
    door, page = soup("index.html"), soup("book/intro.html")
    assert door.find("article").get_text() == page.find("article").get_text()
    assert list(dead_links("index.html", [a["href"] for a in door.find_all("a", href=True)])) == []
    assert "http-equiv" not in str(door.head)


def test_a_lost_reader_finds_the_way_back():
    links = {a["href"] for a in soup("404.html").find_all("a")}
    assert links == {BASE, f"{BASE}search.html"} and "noindex" in str(soup("404.html"))


def test_chapters_carry_their_number_everywhere():
    for page in CHAPTERS:
        number = re.search(r"/(\d\d)_", page)[1]
        heading, title = soup(page).find("h1").get_text(), soup(page).title.get_text()
        for text in (heading, title):
            assert number in text[:24], page
    sidebar = [a.get_text(strip=True) for a in soup("book/intro.html").select(".bd-sidebar-primary li.toctree-l1 > a")]
    assert sum(bool(re.match(r"\d\d · ", text)) for text in sidebar) >= 16


@pytest.mark.parametrize("page", CHAPTERS)
def test_figures_are_numbered_by_chapter(page):
    number = re.search(r"/(\d\d)_", page)[1]
    prefix = ("S" if "solutions" in page else "") + number
    captions = [c.get_text(" ", strip=True) for c in soup(page).select("article .cell_output figcaption")]
    found = [re.match(r"Fig\. (S?\d\d)\.(\d+)\b", text) for text in captions]
    assert [m and m[1] for m in found] == [prefix] * len(found)
    assert [int(m[2]) for m in found] == list(range(1, len(found) + 1))
    assert len(captions) == len(soup(page).select("article .cell_output figure"))


def test_a_folded_cell_says_what_it_holds():
    for page in CHAPTERS:
        for summary in soup(page).select("article details.hide > summary"):
            assert re.match(
                r"(Set-up: what is imported|Code( of this (moving picture|figure))?)( |$)",
                summary.get_text(" ", strip=True),
            )


# ------------------------------------------------------------------ search


def test_the_search_knows_every_section_and_every_link_of_it_leads_there():
    text = (SITE / "_static/search-data.js").read_text(encoding="utf8")
    sections = json.loads(text.removeprefix("const SECTIONS = ").rstrip().removesuffix(";"))
    assert len(sections) > 200 and len(text) < 1_200_000
    for page in {section[0] for section in sections}:
        assert list(dead_links("search.html", [f"{p}#{anchor}" for p, anchor, *_ in sections if p == page])) == []
    snippets = " ".join(section[4] for section in sections)
    assert not re.search(r"<(?:svg|path|div|img)|base64|\\frac", snippets)


def test_a_reader_who_searches_lands_on_the_place(visit):
    view, wrong = visit((SITE / "search.html").as_uri() + "?q=margin%20theorem")
    view.wait_for_selector("#fl-hits li")
    assert "section" in view.inner_text("#fl-found")
    assert view.evaluate("document.querySelectorAll('#fl-hits mark').length") > 3
    view.fill("#fl-search input", "mean-field langevin xor")
    view.wait_for_function("() => document.querySelector('#fl-hits a').textContent.includes('XOR')")
    view.keyboard.press("Tab")
    view.keyboard.press("Enter")
    view.wait_for_selector("span.highlighted")
    assert "#" in view.url and wrong == []
    box = view.evaluate("document.querySelector(':target').getBoundingClientRect().top")
    assert -50 <= box <= 400


def test_a_search_without_its_file_says_so(visit, tmp_path):
    page = (SITE / "search.html").read_text(encoding="utf8")
    script = (SITE / "_static/search.js").read_text(encoding="utf8")
    page = re.sub(r'<script[^>]*src="[^"]*"[^>]*></script>|<link[^>]*>', "", page)
    (tmp_path / "search.html").write_text(page.replace("</body>", f"<script>{script}</script></body>"), encoding="utf8")
    view, _ = visit((tmp_path / "search.html").as_uri())
    assert "missing" in view.inner_text("#fl-found")


# ------------------------------------------------------------------ by hand


def tab_to(view, what, most=400):
    """Press Tab until the element in focus fulfils a condition in JavaScript."""
    for _ in range(most):
        view.keyboard.press("Tab")
        if view.evaluate(f"(() => {{ const e = document.activeElement; return {what}; }})()"):
            return
    raise AssertionError(f"never in focus: {what}")


def test_with_the_keyboard_alone_from_the_front_door_to_a_solution(visit):
    view, wrong = visit((SITE / "index.html").as_uri())
    tab_to(view, "e.textContent.trim() === 'Read'")
    view.keyboard.press("Enter")
    view.wait_for_url("**/11_condensation.html")
    tab_to(view, "e.type === 'range'")
    before = view.evaluate("document.activeElement.previousElementSibling.textContent")
    view.keyboard.press("ArrowLeft")
    assert view.evaluate("document.activeElement.previousElementSibling.textContent") != before
    view.keyboard.press("Control+k")
    view.keyboard.type("solutions chapter 11")
    view.keyboard.press("Enter")
    view.wait_for_url("**/search.html?q=*")
    view.wait_for_selector("#fl-hits a")
    tab_to(view, "e.matches('#fl-hits a')")
    view.keyboard.press("Enter")
    view.wait_for_url("**/solutions/11_condensation.html*")
    assert wrong == []


def lettering(page):
    """For each picture of a chapter, the height in pixels that its cell asks for its smallest letters, at full size."""
    notebook = nbformat.read(ROOT / page.replace(".html", ".ipynb"), as_version=4)
    for _, cell in chapters.numbered(notebook.cells):
        points = min([11.0, *map(float, re.findall(r"(?:font|label)size=([\d.]+)", cell.source))])
        yield points / 72 * int((re.search(r"dpi=(\d+)", cell.source) or [0, 100])[1])


SCALES = """() => [...document.querySelectorAll("article .cell_output figure > img:not([hidden])")]
  .map(i => i.getBoundingClientRect().width / i.getAttribute("width"))"""


@pytest.mark.parametrize("page", CHAPTERS)
def test_on_a_phone_and_on_paper(visit, page):
    """The smallest lettering is nine pixels high on a phone; outputs wrap there; no code is clipped in print."""
    view, wrong = visit((SITE / page).as_uri(), "phone")
    pixels = [size * scale for size, scale in zip(lettering(page), view.evaluate(SCALES), strict=True)]
    assert [size for size in pixels if size < 8.99] == []
    clipped = "[...document.querySelectorAll('{}')].filter(p => p.scrollWidth > p.clientWidth + 1).length"
    assert view.evaluate(clipped.format(".cell_output pre")) == 0
    view.set_viewport_size({"width": 700, "height": 900})
    view.emulate_media(media="print")
    assert view.evaluate(clipped.format("article pre")) == 0 and wrong == []


@pytest.mark.parametrize("width", [768, 1280, 1440])
@pytest.mark.parametrize("page", ["index.html", "notebooks/11_condensation.html", "book/notation.html"])
def test_at_other_widths_nothing_is_wider_than_the_screen_and_no_code_is_clipped_on_a_laptop(visit, page, width):
    view, wrong = visit((SITE / page).as_uri())
    view.set_viewport_size({"width": width, "height": 900})
    assert view.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    if width >= 1280:
        wide = (
            "[...document.querySelectorAll('article .cell_input pre')].filter(p => p.scrollWidth > p.clientWidth + 1)"
        )
        assert view.evaluate(f"{wide}.length") == 0
    assert wrong == []
