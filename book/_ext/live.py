"""Put the experiments of book/_live into the pages that ask for them, once everything else has been written.

A code cell of a chapter asks by a tag, `live-langevin`; any other page by a container of class `fl-live-here`, which
gets the Langevin particles. Notebooks stay plain: without scripts, on paper and in Colab there is the stored picture.
Each experiment is one shortened script beside the pages, which works from a folder of files too.
"""

import html
import re
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "_live"
# What an experiment is called, and the parts of its script in their order.
EXPERIMENTS = {
    "langevin": ("Experiment: noisy particles learn a parity", "random ui langevin langevin_page"),
    "orientations": ("Experiment: directions of a hundred neurons", "random ui hands orientations orientations_page"),
    "lazy": ("Experiment: lazy or rich", "random ui hands lazy lazy_page"),
}
# In a written script every name that ours give is short. These stay: settings, which stand in the address, and names
# that we share with browsers and with the language. Two names that are used often get a short one.
OFTEN = "Math", "Float64Array"
SETTINGS = "heat eta halve scale N n d k seed pace gamma prime m points"
BROWSER = """value hidden width height href hash key data type id style target capture passive x y now log find fill
round floor test start end abs min max exp sqrt slice map keys length join some every filter reduce sort top
cursor font lineWidth ArrowDown ArrowLeft ArrowRight ArrowUp attributeFilter fillStyle strokeStyle innerHTML
textAlign textContent"""
SCRIPT = re.compile(r'//[^\n]*|/\*.*?\*/|("[^"\n]*"|\'[^\'\n]*\')|\s+|[^"\'/\s]+|/', re.DOTALL)
WORD = re.compile(r"(?<![\w$])[A-Za-z_$][\w$]*")
HERE = re.compile(r'<div class="fl-live-here docutils container">')
TAGGED = re.compile(r'<div class="cell [^"]*\btag_live-(\w+)\b[^"]*"')


def short_script(text):
    """A script without comments, blanks that mean nothing and long names.

    It has no templates, no regular expressions and no `{name}` for `{name: name}`.
    """
    pieces = [(m[1], m[0]) for m in SCRIPT.finditer(text)]
    strings = iter([string for string, _ in pieces if string])
    code = "".join("\0" if string else " " if blank(piece) else piece for string, piece in pieces)
    # A blank stays between two words, and between two signs that would become one.
    code = re.sub(r" +", " ", code.strip())
    code = re.sub(r"(?<![\w$]) (?![+-])|(?<![+-]) (?![\w$])|(?<=[\w$]) (?=[+-])|(?<=[+-]) (?=[\w$])", "", code)
    code = re.sub(r"(?<![\w$])\((\w+)\)=>", r"\1=>", re.sub(r"[;,](?=[\]}])", "", code))
    code = re.sub(r"(?<![\w$.])0(?=\.\d)", "", code)
    code = WORD.sub(lambda m: f"its{m[0]}" if m[0] in OFTEN else {"true": "!0", "false": "!1"}.get(m[0], m[0]), code)
    code = "var " + ",".join(f"its{name}={name}" for name in OFTEN) + ";" + code
    words = WORD.findall(code)
    own = given(code) - set(SETTINGS.split()) - set(BROWSER.split())
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    taken = set(words) - own | {"as", "do", "if", "in", "of"}
    free = (n for n in [*letters, *(a + b for a in letters for b in letters)] if n not in taken)
    short = dict(zip(sorted(own, key=lambda name: (-words.count(name), name)), free, strict=False))
    return re.sub("\0", lambda _: next(strings), WORD.sub(lambda m: short.get(m[0], m[0]), code))


def blank(piece):
    """Whether a piece of a script is a comment or white space."""
    return piece.isspace() or piece.startswith(("//", "/*"))


def given(code):
    """The names that a script gives: functions, arguments, variables, properties."""
    names = set(re.findall(r"[{,]([A-Za-z_$][\w$]*):", code)) | set(re.findall(r"\.([A-Za-z_$][\w$]*)=(?!=)", code))
    names |= {"flLive"} | set(re.findall(r"\bfunction (\w+)", code)) | set(re.findall(r"\bcatch\((\w+)\)", code))
    for arguments in re.findall(r"\bfunction ?\w*(\([^)]*\))|(\([^()]*\))=>|\b([\w$]+)=>", code):
        names |= set(re.findall(r"[A-Za-z_$][\w$]*", "".join(arguments)))
    for match in re.finditer(r"\bvar\b", code):
        depth, begins = 0, True
        for word in re.finditer(r"[\w$]+|[^\w$]", code[match.end() :]):
            depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(word[0], 0)
            if depth < 0 or (depth == 0 and word[0] in {";", "of", "in"}):
                break
            if begins and word[0] != " ":
                names.add(word[0])
                begins = word[0] in "[," and depth < 2
            elif word[0] == "," and depth == 0:
                begins = True
    return {name for name in names if re.fullmatch(r"[A-Za-z_$][\w$]*", name)}


def short_style(text):
    """A style sheet without comments and without blanks that mean nothing."""
    text = re.sub(r"\s+", " ", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL))
    return re.sub(r" ?([{};,>]) ?|(?<=:) ", lambda m: m[1] or "", text).replace(";}", "}").strip() + "\n"


def end_of_div(page, start):
    """Where the element that begins at `start` ends."""
    depth = 0
    for match in re.finditer(r"<(/?)div\b", page[start:]):
        depth += -1 if match[1] else 1
        if depth == 0:
            return start + page.index(">", match.start() + start) + 1 - start
    raise ValueError("a <div> is not closed")


def place(page, root):
    """The page with its experiment, or None if it asks for none; a page has room for one of each."""
    spots = {match[1]: match.start() for match in reversed(list(TAGGED.finditer(page)))}
    if here := HERE.search(page):
        spots.setdefault("langevin", here.start())
    if unknown := spots.keys() - EXPERIMENTS.keys():
        raise ValueError(f"there is no experiment {', '.join(unknown)}; there are {', '.join(EXPERIMENTS)}")
    if not spots:
        return None
    head = f'<link rel="stylesheet" href="{root}_static/live.css" />\n'
    for name, start in sorted(spots.items(), key=lambda spot: -spot[1]):
        title = html.escape(EXPERIMENTS[name][0])
        section = f'<section class="fl-live" id="live-{name}" aria-label="{title}" hidden></section>'
        end = end_of_div(page, start)
        page = page[:end] + section + page[end:]
        head += f'<script defer src="{root}_static/live-{name}.js"></script>\n'
    return page.replace("</head>", head + "</head>", 1)


def finish(app, exception):
    """Go once over the written pages; the light site has been made before."""
    if exception is not None or app.builder.name != "html":
        return
    out, used = Path(app.outdir), False
    for path in out.rglob("*.html"):
        if "_static" in path.parts:
            continue
        page = place(path.read_text(encoding="utf8"), "../" * (len(path.relative_to(out).parts) - 1))
        if page is not None:
            path.write_text(page, encoding="utf8")
            used = True
    if used:
        write_files(out / "_static")


def write_files(folder):
    """One script for each experiment, and the style."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, files) in EXPERIMENTS.items():
        parts = [(SOURCE / f"{file}.js").read_text(encoding="utf8") for file in files.split()]
        script = short_script("\n".join(part.replace('"use strict";', "") for part in parts))
        (folder / f"live-{name}.js").write_text(f'"use strict";(()=>{{{script}}})();\n', encoding="utf8")
    (folder / "live.css").write_text(short_style((SOURCE / "live.css").read_text(encoding="utf8")), encoding="utf8")


def setup(app):
    """Connect to Sphinx, after everything that mends pages."""
    app.connect("build-finished", finish, priority=950)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
