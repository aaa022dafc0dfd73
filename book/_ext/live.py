"""Put the experiments of book/_live into the pages that ask for them, once everything else has been written.

A code cell of a chapter asks by a tag, `live-langevin`; any other page by a container of class `fl-live-here`, which
gets the Langevin particles. Notebooks stay plain: without scripts, on paper and in Colab there is the stored picture.
Scripts and style are files beside the pages, shortened, and work from a folder of files too.
"""

import html
import re
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "_live"
# What an experiment is called, and its scripts in the order in which they must load.
EXPERIMENTS = {
    "langevin": ("Experiment: noisy particles learn a parity", "random ui langevin langevin_page"),
    "orientations": ("Experiment: directions of a hundred neurons", "random ui hands orientations orientations_page"),
    "lazy": ("Experiment: lazy or rich", "random ui hands lazy lazy_page"),
}
# Names of properties that are ours alone, in no string and in no address: in the written files they are short, too.
OURS = """flLive particles settings residuals residual inputs kappa ratio fraction errors pulls relative largest
velocity tangent forward strength directions descent epoch langevin answers parity cloud moved series random uniform
normal panels params presets choices question variance numbers column hands lower title pairs xlabel status
label whole change answer noise margin right start seen""".split()
SCRIPT = re.compile(r'//[^\n]*|/\*.*?\*/|("[^"\n]*"|\'[^\'\n]*\')|\s+|[^"\'/\s]+|/', re.DOTALL)
HERE = re.compile(r'<div class="fl-live-here docutils container">')
TAGGED = re.compile(r'<div class="cell [^"]*\btag_live-(\w+)\b[^"]*"')


def short_script(text):
    """A script without comments, blanks that mean nothing and long names.

    It has no templates, no regular expressions and no `{name}` for `{name: name}`.
    """
    kept = ""
    for match in SCRIPT.finditer(text):
        piece = match[0]
        kept += " " if piece.isspace() or piece.startswith(("//", "/*")) else "\0" if match[1] else piece
    strings = iter([match[1] for match in SCRIPT.finditer(text) if match[1]])
    kept = re.sub(r" +", " ", kept.strip())
    # A blank stays between two words, and between two signs that would become one.
    kept = re.sub(r"(?<![\w$]) (?![+-])|(?<![+-]) (?![\w$])|(?<=[\w$]) (?=[+-])|(?<=[+-]) (?=[\w$])", "", kept)
    return re.sub("\0", lambda _: next(strings), with_short_names(kept)) + "\n"


def declared(text):
    """The names that a script gives: functions, their arguments, variables."""
    names = set(re.findall(r"\bfunction (\w+)|\bcatch\((\w+)\)", text))
    names = {name for pair in names for name in pair if name}
    for arguments in re.findall(r"\bfunction ?\w*\(([^)]*)\)", text):
        names |= set(arguments.split(","))
    for arguments, argument in re.findall(r"\(([^()]*)\)=>|\b([\w$]+)=>", text):
        names |= set(re.findall(r"[\w$]+", arguments or argument))
    for match in re.finditer(r"\bvar[ [{]", text):
        depth, begins = 0, True
        for word in re.finditer(r"[\w$]+|[^\w$]", text[match.end() :]):
            depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(word[0], 0)
            if depth < 0 or (depth == 0 and word[0] in {";", "of", "in"}):
                break
            if begins:
                names.add(word[0])
            begins = depth == 0 and word[0] == ","
    return names - {""}


def with_short_names(text):
    """Its own names as one or two letters each: one name everywhere, so no scope matters; names of properties stay."""
    words = re.findall(r"[\w$]+", text)
    fixed = set(re.findall(r"\.([\w$]+)", text)) | set(re.findall(r"[{,]([\w$]+):", text))
    own = sorted(declared(text) - fixed - set(OURS), key=words.count, reverse=True)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    taken = set(words) - set(own) | {"as", "do", "if", "in", "of"}
    free = (n for n in [*letters, *(a + b for a in letters for b in letters)] if n not in taken)
    short = {name: f"${number}" for number, name in enumerate(OURS)} | dict(zip(own, free, strict=False))
    return re.sub(r"[\w$]+", lambda m: short.get(m[0], m[0]), text)


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
    scripts = []
    for name, start in sorted(spots.items(), key=lambda spot: -spot[1]):
        title, wanted = EXPERIMENTS[name]
        scripts += [script for script in wanted.split() if script not in scripts]
        section = f'<section class="fl-live" id="live-{name}" aria-label="{html.escape(title)}" hidden></section>'
        end = end_of_div(page, start)
        page = page[:end] + section + page[end:]
    order = sorted(
        scripts, key=lambda s: ("random", "ui").index(s) if s in ("random", "ui") else 2 + s.endswith("_page")
    )
    head = f'<link rel="stylesheet" href="{root}_static/live/live.css" />\n'
    head += "".join(f'<script defer src="{root}_static/live/{script}.js"></script>\n' for script in order)
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
        write_files(out / "_static" / "live")


def write_files(folder):
    """The scripts and the style, shortened."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in SOURCE.iterdir():
        if path.suffix in {".js", ".css"}:
            short = short_script if path.suffix == ".js" else short_style
            (folder / path.name).write_text(short(path.read_text(encoding="utf8")), encoding="utf8")


def setup(app):
    """Connect to Sphinx, after everything that mends pages."""
    app.connect("build-finished", finish, priority=950)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
