"""Make the written pages light, findable and easy to share; everything stays offline.

Once the pages are written: one style sheet holds the rules that some page needs; the ten icons are outlines in it, not
three fonts; pictures get their size, load when they are needed and are WebP where that is smaller; a slider's frames
are files beside the page; scripts that no page needs are gone. Search finds sections, from one file that only the
search page loads. Each page names its claim and its picture to those who link to it, at the address in _config.yml.
"""

import base64
import hashlib
import html
import io
import json
import re
import shutil
from pathlib import Path
from urllib.parse import quote

import tinycss2
from docutils import nodes
from PIL import Image, ImageChops, ImageStat

SHEET = re.compile(r'\s*<link (?:rel="stylesheet" [^>]*)?href="(?:\.\./)*_static/([^"?]+\.css)[^>]*>')
UNUSED = re.compile(
    r'\s*<script(?: data-sd-tabs[^>]*)? src="[^"]*(?:design-tabs|togglebutton|searchtools|language_data|searchindex)'
    r'\.js[^"]*"></script>|\s*<script>(?:let toggle|var togglebutton)[^<]*</script>|\s*<meta name="docsearch:[^>]*>'
)
VIEWPORT = re.compile(r'\s*<meta name="viewport"[^>]*>')
IMAGE = re.compile(r'<img ([^>]*?)src="((?:\.\./)*_images/[^"]+\.png)"([^>]*?) ?/?>')
FRAME = re.compile(r'src="data:image/webp;base64,([A-Za-z0-9+/=]+)"')
DROPPED = (
    "togglebutton.* sphinx-design.* design-tabs.js searchtools.js language_data.js "
    "mystnb.*.css basic.css copybutton.css pygments.css fl.css"
).split()
# A formula in a line, with what must not begin the next one.
TOGETHER = re.compile(
    r'(<span class="fl-math notranslate">(?:(?!</math>).)*</math></span></span>[.,;:!?)”’]+)', re.DOTALL
)
JUST_VISIBLE = 1.5  # of 255, root mean square
HEAVY = 150_000  # bytes
WORD = re.compile(r"[\w-]+")
SHARP = 2  # dots of a picture for each of a page


# ------------------------------------------------------------------ addresses, descriptions, sections


def address(app, config):
    """The site's address follows from the repository's."""
    match = re.match(r"https://github\.com/([^/]+)/([^/]+)", config.html_theme_options.get("repository_url", ""))
    if match and not config.html_baseurl:
        config.html_baseurl = f"https://{match[1]}.github.io/{match[2]}/"


def words(node):
    """The prose of a node as one line; formulas as they would be read, links and names as words."""
    copy = nodes.container("", node.deepcopy())
    for other in list(copy.findall(lambda n: isinstance(n, (nodes.raw, nodes.literal_block)))):
        other.parent.remove(other)
    for formula in list(copy.findall(lambda n: isinstance(n, (nodes.math, nodes.math_block)))):
        plain = re.sub(r"\\(?:mathrm|mathbb|operatorname|text|bar|tilde|hat)\s*", "", formula.astext())
        plain = re.sub(r"[{}$]|\\[,;! ]|\\(?=\w)", "", plain)
        formula.parent.replace(formula, nodes.Text(plain))
    return " ".join(copy.astext().split())


def sections_of(doctree):
    """Every section of a page: its anchor, its title, and its own text without that of sections in it."""
    for section in doctree.findall(nodes.section):
        title = section.next_node(nodes.title)
        own = [words(c) for c in section.children if not isinstance(c, (nodes.section, nodes.title, nodes.raw))]
        yield section["ids"][0], words(title), " ".join(filter(None, own))


def remember(app, doctree, docname):
    """Keep for the end what a page is about: its claim, and its sections for the search."""
    app.fl_claims[docname] = next(filter(None, map(words, doctree.findall(nodes.paragraph))), "")
    app.fl_sections[docname] = list(sections_of(doctree))


def shortened(text, most=200):
    """The beginning of a text, cut where a word ends."""
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " …"


# ------------------------------------------------------------------ style sheets and icons


def used_words(pages, scripts):
    """Every word that may be a class: those of the pages' attributes, and whatever the scripts hold."""
    found = set()
    for page in pages:
        for names in set(re.findall(r'(?:class|id|data-[\w-]+)="([^"]*)"', page)):
            found.update(names.split())
    for script in scripts:
        found.update(WORD.findall(script))
    return found


def needed(selector, used):
    """False for a selector with a class that no page and no script knows."""
    plain = re.sub(r":(?:not|is|where|has)\((?:[^()]|\([^()]*\))*\)|\[[^\]]*\]", "", selector)
    return all(name.replace("\\", "") in used for name in re.findall(r"\.((?:\\.|[\w-])+)", plain))


def split(selectors):
    """A list of selectors, cut at commas outside of brackets."""
    parts, depth = [""], 0
    for sign in selectors:
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def purged(rules, used):
    """The rules that some page needs, as text without comments."""
    for rule in rules:
        if rule.type == "qualified-rule":
            keep = [s for s in split(tinycss2.serialize(rule.prelude)) if needed(s, used)]
            if keep:
                yield f"{','.join(keep)}{{{' '.join(tinycss2.serialize(rule.content).split())}}}"
        elif rule.type == "at-rule" and rule.content is not None and rule.lower_at_keyword in {"media", "supports"}:
            inner = "".join(purged(tinycss2.parse_rule_list(rule.content, skip_comments=True), used))
            if inner:
                yield f"@{rule.at_keyword} {tinycss2.serialize(rule.prelude).strip()}{{{inner}}}"
        elif rule.type == "at-rule" and rule.lower_at_keyword not in {"font-face", "import", "charset"}:
            body = "" if rule.content is None else f"{{{' '.join(tinycss2.serialize(rule.content).split())}}}"
            yield f"@{rule.at_keyword} {tinycss2.serialize(rule.prelude).strip()}{body or ';'}"


def icon_rules(names, library):
    """Each icon that is used, as an outline that takes the colour of the text."""
    rules = [
        ".fa-solid,.fa-brands,.fa-regular,.fas,.fab,.far{display:inline-block;width:1em;height:1em;background:currentColor;"
        "mask:var(--icon) center/contain no-repeat;vertical-align:-0.125em}"
        ".fa-solid::before,.fa-brands::before,.fas::before,.fab::before,.far::before{content:none!important}.fa-lg{font-size:1.25em}"
    ]
    for name in sorted(names):
        found = re.search(rf'(?<![\w-])"?{name}"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+","([^"]+)"', library)
        if found:
            box = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {found[1]} {found[2]}">'
            outline = f'{box}<path d="{found[3]}"/></svg>'
            rules.append(f".fa-{name}{{--icon:url('data:image/svg+xml,{quote(outline, safe=' =:/,.-')}')}}")
    return "".join(rules)


def parsed(path):
    """The rules of a style sheet."""
    return tinycss2.parse_stylesheet(path.read_text(encoding="utf8"), skip_comments=True, skip_whitespace=True)


def one_sheet(out, pages, icons):
    """Write the one style sheet; every page links it in place of the others."""
    order = []
    for page in pages:
        order += [name for name in SHEET.findall(page) if name not in order]
    order = [name for name in order if not re.match(r"togglebutton|sphinx-design", name)]
    scripts = [p.read_text(encoding="utf8") for p in (out / "_static").rglob("*.js") if p.name != "fontawesome.js"]
    used = used_words(
        pages, [*scripts, *(s for page in pages for s in re.findall(r"<script>.*?</script>", page, re.DOTALL))]
    )
    texts = []
    for name in order:
        sheet = out / "_static" / name
        imported = re.findall(r'@import (?:url\()?"([^"]+)"\)?;', sheet.read_text(encoding="utf8"))
        for path in [*(sheet.parent / inner for inner in imported), sheet]:
            texts.append("\n".join(purged(parsed(path), used)))
    (out / "_static" / "book.css").write_text("\n".join([*texts, icons]) + "\n", encoding="utf8")


# ------------------------------------------------------------------ pictures


def light(image, target):
    """Write the picture as lightly as nobody can see: with 256 colours or, if they are too few, with losses."""
    few = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB")
    change = ImageStat.Stat(ImageChops.difference(image, few))
    exact = max(change.rms) < JUST_VISIBLE
    (few if exact else image).save(target, lossless=True, method=4)
    if not exact and target.stat().st_size > HEAVY:
        image.save(target, quality=90, method=4)


class Pictures:
    """Sizes of the site's pictures; each is WebP if that is smaller."""

    def __init__(self, out):
        self.out, self.known = out, {}

    def __call__(self, name):
        """The file to use for `_images/name`, its width and its height in pixels."""
        if name not in self.known:
            path = self.out / "_images" / name
            with Image.open(path) as image:
                size, target = image.size, path.with_suffix(".webp")
                light(image.convert("RGB"), target)
            if target.stat().st_size >= path.stat().st_size:
                target.unlink()
                target = path
            self.known[name] = target.name, *size
        return self.known[name]

    def tidy(self, cards):
        """Delete what no page shows; a page's card stays a PNG, which every service can read."""
        for name, (used, *_) in self.known.items():
            if used != name and name not in cards:
                (self.out / "_images" / name).unlink()

    def frame(self, data):
        """A frame of a slider as a file."""
        content = base64.b64decode(data)
        name = f"{hashlib.sha1(content).hexdigest()}.webp"
        (self.out / "_images" / name).write_bytes(content)
        with Image.open(io.BytesIO(content)) as image:
            return name, *image.size


def sized(page, pictures, root):
    """The page with pictures that say their size, the first one loading at once, the others when they are near."""
    count = 0

    def image(match):
        nonlocal count
        count += 1
        name, width, height = pictures(match[2].rsplit("/", 1)[1])
        later = 'loading="lazy" decoding="async" ' if count > 1 else 'fetchpriority="high" '
        wide, high = width // SHARP, height // SHARP
        size = f'width="{wide}" height="{high}" style="--wide: {wide}px" '
        before, after = (re.sub(r' ?style="[^"]*"', "", text) for text in (match[1], match[3]))
        return f'<img {before}src="{root}_images/{name}"{after} {size}{later}/>'

    def frame(match):
        name, width, height = pictures.frame(match[1])
        return f'src="{root}_images/{name}" width="{width}" height="{height}" style="--wide: {width}px" loading="lazy"'

    page = re.sub(r'<a class="[^"]*\bimage-reference" href="[^"]*">(<img [^>]*>)\s*</a>', r"\1", page)
    return FRAME.sub(frame, IMAGE.sub(image, page))


# ------------------------------------------------------------------ pages


def card(page):
    """The picture that stands for a page: its first one."""
    found = re.search(r'<article.*?<img [^>]*src="(?:\.\./)*(_images/[^"]+\.png)"', page, re.DOTALL)
    return found[1] if found else "_static/teaser.png"


def head(app, name, page):
    """What a page says of itself to search engines and to those who link to it."""
    docname, base = name.removesuffix(".html"), app.config.html_baseurl
    place = base + ("" if docname == "book/intro" else name)
    claim = html.escape(shortened(app.fl_claims.get(docname, "")))
    title = html.escape(re.sub(r"<[^>]+>", "", re.search(r"<title>(.*?)</title>", page, re.DOTALL)[1]).strip())
    picture = card(page)
    alt = re.search(rf'alt="([^"]*)"[^>]*src="(?:\.\./)*{re.escape(picture)}"', page)
    lines = [f'<meta name="description" content="{claim}">'] if claim else []
    lines += [f'<link rel="canonical" href="{place}">']
    said = {
        "title": title,
        "type": "article",
        "url": place,
        "site_name": app.config.html_title,
        "image": base + picture,
    }
    said |= {"description": claim} if claim else {}
    said |= {"image:alt": alt[1]} if alt else {}
    lines += [f'<meta property="og:{key}" content="{value}">' for key, value in said.items()]
    return "\n".join([*lines, '<meta name="twitter:card" content="summary_large_image">', ""])


def mended(app, name, page, pictures):
    """One page, mended."""
    root = "" if app.builder.name == "singlehtml" else "../" * name.count("/")
    page = VIEWPORT.sub("", UNUSED.sub("", page))
    page = page.replace(
        '<meta charset="utf-8" />',
        '<meta charset="utf-8" />\n<meta name="viewport" content="width=device-width, initial-scale=1" />',
        1,
    )
    first = True

    def sheet(match):
        nonlocal first
        one, first = f'\n<link rel="stylesheet" href="{root}_static/book.css" />' if first else "", False
        return one

    page = SHEET.sub(sheet, page)
    page = TOGETHER.sub(r'<span class="fl-together">\1</span>', page)
    page = re.sub(r"<title>(.+?) (?:&#8212;|—) \1</title>", r"<title>\1</title>", page)
    said = head(app, name, page)
    page = sized(page, pictures, root)
    page = re.sub(r'<link rel="canonical"[^>]*>\s*', "", page)
    return page.replace("</head>", said + "</head>", 1)


def front_door(page):
    """The introduction once more, as the page that an address without a name shows."""

    def moved(match):
        attribute, link = match.groups()
        if re.match(r"[a-z]+:|#|//", link):
            return match[0]
        link = link[3:] if link.startswith("../") else f"book/{link}"
        return f'{attribute}="{link}"'

    page = re.sub(r'\b(href|src|action)="([^"]*)"', moved, page)
    return page.replace('data-content_root="../"', 'data-content_root="./"')


LOST = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Not here: {project}</title><meta name="robots" content="noindex"><link rel="icon" href="data:,">
<style>
body {{ background: #fff; color: #1d1d1f; }} a {{ color: #0b5fa5; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #14181e; color: #e8eaed; }} a {{ color: #7db8f0; }} }}
body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 4rem auto; padding: 0 1rem; }}
</style></head>
<body><main><h1>This page is not here</h1><p>It may have moved with a new edition.</p>
<ul><li><a href="{base}">The book's first page</a></li><li><a href="{base}search.html">Search the book</a></li></ul>
</main></body></html>
"""


def finish(app, exception):
    """Go once over the written site."""
    if exception is not None or app.builder.name not in {"html", "singlehtml"}:
        return
    out, base = Path(app.outdir), app.config.html_baseurl
    files = {p.relative_to(out).as_posix(): p for p in out.rglob("*.html") if "_static" not in p.parts}
    pages = {name: path.read_text(encoding="utf8") for name, path in files.items()}
    pages = {name: page for name, page in pages.items() if 'data-content_root="' in page}
    static = Path(app.outdir) / "_static"
    names = {n for page in pages.values() for n in re.findall(r"\bfa-([a-z-]+)", page)}
    one_sheet(out, list(pages.values()), icon_rules(names, app.fl_icons.read_text(encoding="utf8")))
    pictures = Pictures(out)
    for name, page in pages.items():
        files[name].write_text(mended(app, name, page, pictures), encoding="utf8")
    pictures.tidy({card(page).rsplit("/", 1)[1] for page in pages.values()})
    for pattern in DROPPED:
        for path in [p for p in static.glob(pattern) if p.is_file()]:
            path.unlink()
    for folder in ("locales", "vendor", "styles"):
        shutil.rmtree(static / folder, ignore_errors=True)
    if app.builder.name == "singlehtml":
        return
    for path in (out / "searchindex.js", out / "objects.inv"):
        path.unlink(missing_ok=True)
    titles = {name: next(iter(parts))[1] for name, parts in app.fl_sections.items() if parts}
    data = [[f"{doc}.html", anchor, titles[doc], title, text]
            for doc, parts in sorted(app.fl_sections.items()) for anchor, title, text in parts]  # fmt: skip
    (static / "search-data.js").write_text(
        f"const SECTIONS = {json.dumps(data, ensure_ascii=False)};\n", encoding="utf8"
    )
    (out / "index.html").write_text(
        front_door((out / "book" / "intro.html").read_text(encoding="utf8")), encoding="utf8"
    )
    (out / "404.html").write_text(LOST.format(project=html.escape(app.config.html_title), base=base), encoding="utf8")
    places = [base + ("" if name == "book/intro.html" else name) for name in sorted(pages)
              if name not in {"search.html", "genindex.html", "index.html"}]  # fmt: skip
    entries = "".join(f"<url><loc>{place}</loc></url>\n" for place in places)
    (out / "sitemap.xml").write_text(
        f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{entries}</urlset>\n',
        encoding="utf8",
    )
    (out / "robots.txt").write_text(f"User-agent: *\nAllow: /\nSitemap: {base}sitemap.xml\n", encoding="utf8")


def begin(app):
    """Where the icons' outlines are, and room for what pages are about."""
    import pydata_sphinx_theme

    theme = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static" / "scripts"
    app.fl_icons, app.fl_claims, app.fl_sections = theme / "fontawesome.js", {}, {}


def setup(app):
    """Connect to Sphinx; the other extensions mend the pages first."""
    app.connect("config-inited", address, priority=900)
    app.connect("builder-inited", begin)
    app.connect("doctree-resolved", remember)
    app.connect("build-finished", finish, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}
