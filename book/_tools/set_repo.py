"""The repository's address: where it stands, and one command that changes it everywhere.

usage: set_repo.py https://github.com/NAME/REPOSITORY      (without an argument: check that all places agree)

_config.yml holds it; the README, the notebooks' set-up cells, the citation and the package's metadata must agree.
"""

import re
import shutil
import sys
from pathlib import Path

ADDRESS = re.compile(r"https://github\.com/([a-z0-9][\w-]*)/(?!\.+(?:git)?/?$)([\w.-]+?)(?:\.git)?/?", re.ASCII | re.I)
# What stands before and after OWNER/NAME in an address. Each host holds a dot, so none is found in a base64 picture.
HOST = r"(?:(?<![\w-])github(?:usercontent)?\.com|\.[a-z]+/(?:v2/)?gh|\.[a-z]+/github)/"
END = r"(?![\w-]|\.(?!git\b)\w)"
# Every place that must name the repository: files, and how the address is written there.
PLACES = [
    ("_config.yml", r"^  url: https://github\.com/([\w.-]+/[\w.-]+)$"),
    ("README.md", r"github\.com/([\w.-]+/[\w.-]+)/actions"),
    ("README.md", r"git clone https://github\.com/([\w.-]+/[\w.-]+)$"),
    ("CITATION.cff", r"^repository-code: https://github\.com/([\w.-]+/[\w.-]+)$"),
    ("pyproject.toml", r"^Repository = \"https://github\.com/([\w.-]+/[\w.-]+)\"$"),
    ("notebooks/**/[0-9]*.ipynb", r"git\+https://github\.com/([\w.-]+/[\w.-]+?)(?=[@\"\\' ]|$)"),
]


def texts(root):
    """Every file that may name the repository, and its text."""
    patterns = ["*.md", "*.cff", "*.toml", "_config.yml", "book/*.md", ".github/workflows/*.yml"]
    patterns += ["notebooks/*.ipynb", "notebooks/solutions/*.ipynb"]
    paths = sorted(path for pattern in patterns for path in root.glob(pattern))
    return {path: path.read_bytes().decode("utf8") for path in paths}


def slug_of(root, files=None):
    """`owner/name` as _config.yml has it."""
    return re.search(PLACES[0][1], (files or texts(root))[root / "_config.yml"], re.MULTILINE)[1]


def disagreements(root, files=None):
    """Places that lack the address of _config.yml or name another one, a line each; `files` as `texts` gives them."""
    files = files or texts(root)
    slug, found = slug_of(root, files), set()
    for places, pattern in PLACES:
        for path in root.glob(places):
            named = re.findall(pattern, files[path], re.MULTILINE)
            if not named:
                found.add(f"{path.relative_to(root)}: names no repository where {pattern} should match")
            found |= {f"{path.relative_to(root)}: {it}, but _config.yml has {slug}" for it in named if it != slug}
    owner, name = slug.split("/")
    others = re.compile(
        rf"{HOST}([\w-]+)/{re.escape(name)}{END}|(?<![\w.-])([\w-]+)\.github\.io/{re.escape(name)}{END}"
    )
    for path, text in files.items():
        lines = (line for line in text.splitlines() if f"/{name}" in line)
        for other in {a or b for line in lines for a, b in others.findall(line)} - {owner}:
            found.add(f"{path.relative_to(root)}: {other}/{name}, but _config.yml has {slug}")
    return sorted(found)


def renamed(text, old, new):
    """The text with every address of the repository `old` turned into that of `new`, and nothing else changed."""
    owner, name = old.split("/")
    address = re.compile(rf"({HOST}){re.escape(old)}{END}")
    site = re.compile(rf"(?<![\w.-]){re.escape(f'{owner}.github.io/{name}')}{END}")
    lines = text.splitlines(keepends=True)
    for k, line in enumerate(lines):
        if f"/{name}" in line:
            lines[k] = site.sub(new.replace("/", ".github.io/"), address.sub(lambda m: m[1] + new, line))
        elif line.strip() == f"cd {name}":  # after git clone
            lines[k] = line.replace(name, new.split("/")[1])
    return "".join(lines)


def rewrite(root, url):
    """Write the new address everywhere, or nowhere if anything is wrong; gives the files that changed."""
    match = ADDRESS.fullmatch(url)
    if not match:
        raise ValueError(f"URL must look like https://github.com/NAME/REPOSITORY; got {url!r}")
    before, new = texts(root), "/".join(match.groups())
    after = {path: renamed(text, slug_of(root, before), new) for path, text in before.items()}
    if wrong := disagreements(root, after):
        raise ValueError(f"{new} cannot be written everywhere, so nothing was changed:\n" + "\n".join(wrong))
    changed = {path: path.with_name(f".{path.name}.new") for path in after if after[path] != before[path]}
    try:
        for path, beside in changed.items():
            beside.write_bytes(after[path].encode())
            shutil.copymode(path, beside)
        for path, beside in changed.items():
            beside.replace(path)
    finally:
        for beside in changed.values():
            beside.unlink(missing_ok=True)
    return list(changed)


def main(arguments):
    """Rewrite if asked to, then check."""
    root = Path(__file__).resolve().parents[2]
    try:
        for path in rewrite(root, arguments[0]) if arguments else []:
            print(f"rewrote {path.relative_to(root)}")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    found = disagreements(root)
    print("\n".join(found) or f"every place names {slug_of(root)}", file=sys.stderr if found else sys.stdout)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
