"""The project as a whole: one address, complete pins, targets that exist, style."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import set_repo
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import feature_learning

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]


def read(name):
    """A file of the project as text."""
    return (ROOT / name).read_text(encoding="utf8")


# ------------------------------------------------------------------ the repository's address


@pytest.fixture
def copy(tmp_path):
    """A copy of every file that names the repository."""
    for path in set_repo.texts(ROOT):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path


def test_every_place_names_the_same_repository():
    assert set_repo.disagreements(ROOT) == []


def test_a_new_address_reaches_every_place_and_can_be_taken_back(copy):
    before = {path: path.read_bytes() for path in set_repo.texts(copy)}
    old, old_name = set_repo.slug_of(copy), set_repo.slug_of(copy).split("/")[1]
    changed = set_repo.rewrite(copy, "https://github.com/someone/another-book")
    names = {path.relative_to(copy).as_posix() for path in changed}
    assert {"_config.yml", "README.md", "CITATION.cff", "pyproject.toml"} <= names
    assert all(path in changed for path in copy.glob("notebooks/*.ipynb"))
    assert set_repo.slug_of(copy) == "someone/another-book" and set_repo.disagreements(copy) == []
    assert not any(re.search(rf"{old}(?![\w-])", text) for text in set_repo.texts(copy).values())
    assert not re.search(rf"^cd {old_name}$", (copy / "README.md").read_text(encoding="utf8"), re.MULTILINE)
    set_repo.rewrite(copy, f"https://github.com/{old}")
    assert {path: path.read_bytes() for path in set_repo.texts(copy)} == before


@pytest.mark.parametrize(
    "name", ["_config.yml", "README.md", "CITATION.cff", "pyproject.toml", "notebooks/11_condensation.ipynb"]
)
def test_one_place_that_disagrees_is_found(copy, name):
    path, slug = copy / name, set_repo.slug_of(copy)
    path.write_text(path.read_text(encoding="utf8").replace(slug, "stranger/" + slug.split("/")[1]), encoding="utf8")
    assert set_repo.disagreements(copy)


@pytest.mark.parametrize("slug", ["someone/book", "fl/fl", "some-one/b2", "a/src", "a/b.c", "A1/.github"])
def test_short_names_work_and_can_be_taken_back(copy, slug):
    """They occur in paths and, by chance, inside pictures; only addresses count."""
    old, page = set_repo.slug_of(copy), copy / "book/short.md"
    picture = f"![](data:image/png;base64,iVBORw0K/{old}/x+{slug}+github/{old})"
    page.write_bytes(
        f"{picture}\r\nhttps://github.com/{old}.git, https://colab.research.google.com/github/{old}/x".encode()
    )
    before = {path: path.read_bytes() for path in set_repo.texts(copy)}
    set_repo.rewrite(copy, f"https://github.com/{slug}")
    assert set_repo.slug_of(copy) == slug and set_repo.disagreements(copy) == []
    assert page.read_bytes().decode().split("\r\n") == [
        picture,
        f"https://github.com/{slug}.git, https://colab.research.google.com/github/{slug}/x",
    ]
    set_repo.rewrite(copy, f"https://github.com/{old}")
    assert {path: path.read_bytes() for path in set_repo.texts(copy)} == before


WRONG = ["", "github.com/a/b", "https://example.com/a/b", "https://github.com/a", "https://github.com/a/b/c"]
WRONG += [
    f"https://github.com/{slug}" for slug in ("../..", "./x", "a/..", "a/.", "a/.git", "a.b/c", "-a/b", "a/b c", "ä/b")
]
WRONG += ["https://github.com/a/b; touch x", "https://github.com/a/b\n"]


@pytest.mark.parametrize("url", WRONG)
def test_a_wrong_address_is_refused(url):
    with pytest.raises(ValueError, match="URL must look like"):
        set_repo.rewrite(ROOT / "nowhere", url)  # refused before anything is read


def test_an_address_that_cannot_be_told_from_another_changes_nothing(copy):
    (copy / "book/links.md").write_text("[theirs](https://github.com/them/popular-name)", encoding="utf8")
    before = {path: path.read_bytes() for path in copy.rglob("*.*") if path.is_file()}
    with pytest.raises(
        ValueError, match="nothing was changed:\nbook/links.md: them/popular-name, but _config.yml has me/"
    ):
        set_repo.rewrite(copy, "https://github.com/me/popular-name")
    assert {path: path.read_bytes() for path in copy.rglob("*.*") if path.is_file()} == before


def test_a_disk_that_is_full_changes_nothing(copy, monkeypatch):
    before = {path: path.read_bytes() for path in copy.rglob("*.*") if path.is_file()}
    write, written = Path.write_bytes, []

    def full(path, content):
        if len(written) == 3:
            raise OSError("No space left on device")
        written.append(path)
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        set_repo.rewrite(copy, "https://github.com/someone/another-book")
    assert {path: path.read_bytes() for path in copy.rglob("*.*") if path.is_file()} == before


# ------------------------------------------------------------------ make


@pytest.fixture
def make(tmp_path):
    """Run make on a copy of the Makefile, with a Python that only prints its arguments."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "<%s>" "$@"\n', encoding="utf8")
    python.chmod(0o755)
    for name in (
        "requirements.txt",
        "pyproject.toml",
        "notebooks/1_a.ipynb",
        "notebooks/2_b.ipynb",
        ".venv/.ready",
        "notebooks/solutions/1_a.ipynb",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def run(*arguments, **environment):
        command = ["make", "-s", "-o", "requirements.txt", "-o", "pyproject.toml", *arguments]
        clean = {key: value for key, value in os.environ.items() if key not in ("NB", "URL", "MAKEFLAGS")}
        done = subprocess.run(
            command, cwd=tmp_path, env=clean | environment, capture_output=True, text=True, check=True
        )
        assert not (tmp_path / "touched").exists()
        return done.stdout

    return run


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(
    "text",
    ["a/b; touch touched", "$(shell touch touched)", "`touch touched`", '"; touch touched; "', "'; touch touched; '"]
    + ["$$(touch touched)", "a & touch touched", "a\ntouch touched"],
)
def test_what_make_is_given_is_text_and_no_command(make, text):
    assert make("repo", f"URL={text}") == make("repo", URL=text) == f"<book/_tools/set_repo.py><{text}>"
    words = "".join(f"<{word}>" for word in text.split())
    assert make("execute", f"NB={text}") == make("execute", NB=text) == f"<book/_tools/execute.py>{words}"


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_what_make_does_without_being_told(make):
    chapters = "<book/_tools/execute.py><notebooks/1_a.ipynb><notebooks/2_b.ipynb>"
    assert make("execute", "NB=notebooks/*.ipynb") == chapters
    assert make("execute") == chapters + "<notebooks/solutions/1_a.ipynb>"
    assert make("repo") == "<book/_tools/set_repo.py>"


# ------------------------------------------------------------------ requirements

LINES = [line for line in read("requirements.txt").splitlines() if line and not line.startswith("#")]
PINS = {}
for line in LINES[:-1]:
    requirement = Requirement(line)
    PINS.setdefault(canonicalize_name(requirement.name), []).append(requirement)


def test_requirements_are_pinned_exactly_and_end_with_the_package():
    assert LINES[-1] == "-e ."
    for pins in PINS.values():
        for pin in pins:
            assert [spec.operator for spec in pin.specifier] == ["=="] and "*" not in str(pin.specifier), str(pin)


def test_everything_the_package_asks_for_is_pinned_within_its_range():
    extras = [entry for group in PROJECT["optional-dependencies"].values() for entry in group]
    for entry in map(Requirement, PROJECT["dependencies"] + extras):
        for pin in PINS[canonicalize_name(entry.name)]:
            assert next(iter(pin.specifier)).version in entry.specifier, f"{pin} is outside {entry}"


def test_nothing_that_is_pinned_here_asks_for_something_unpinned():
    """What a pinned package needs on this machine is pinned too; PyTorch brings its CUDA wheels itself."""
    from importlib.metadata import PackageNotFoundError, requires

    environment = {"extra": ""}
    for name in PINS:
        try:
            needs = requires(name) or []
        except PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            other = canonicalize_name(need.name)
            if (need.marker is None or need.marker.evaluate(environment)) and not re.match(
                r"nvidia-|cuda-|triton", other
            ):
                assert other in PINS, f"{name} needs {need}"


def test_a_package_without_a_wheel_for_macos_is_not_asked_for_there():
    assert [pin.marker.evaluate({"sys_platform": "darwin"}) for pin in PINS["cupy-cuda12x"]] == [False]


# ------------------------------------------------------------------ the house


def test_the_targets_that_the_readme_and_the_workflows_name_exist():
    targets = set(re.findall(r"^([\w-]+):(?!=)", read("Makefile"), re.MULTILINE))
    callers = [read("README.md"), read(".ci/run"), *(path.read_text() for path in ROOT.glob(".github/workflows/*.yml"))]
    for text in callers:
        named = set(re.findall(r"^\s*(?:- run: |run: )?make ([a-z-]+)|`make ([a-z-]+)", text, re.MULTILINE))
        assert {a or b for a, b in named} <= targets
    for target in set(re.findall(r"^\s*make ([a-z-]+)", read(".ci/run"), re.MULTILINE)):
        assert f"make {target}" in read("README.md"), f".ci/run calls make {target}, which the README does not name"


def test_workflows_and_citation_can_be_read():
    for path in [*ROOT.glob(".github/workflows/*.yml"), ROOT / "CITATION.cff"]:
        assert yaml.safe_load(path.read_text(encoding="utf8"))


def test_every_place_names_the_same_edition():
    """One number: the package's. The citation, the newest entry of the changes and each notebook's set-up agree."""
    edition = feature_learning.__version__
    assert PROJECT["dynamic"] == ["version"] and yaml.safe_load(read("CITATION.cff"))["version"] == edition
    assert re.search(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)[1] == edition
    for path in ROOT.glob("notebooks/**/[0-9]*.ipynb"):
        tags = re.findall(r"pip install -q git\+https://github\.com/[\w.-]+/[\w.-]+?@v([\d.]+)", path.read_text("utf8"))
        assert tags == [edition], f"{path.name}: {tags}"


def test_the_record_for_a_doi_can_be_read():
    record, citation = json.loads(read(".zenodo.json")), yaml.safe_load(read("CITATION.cff"))
    assert record["title"] == citation["title"] and record["keywords"] == citation["keywords"]
    assert [c["name"] for c in record["creators"]] == [a["name"] for a in citation["authors"]]


def test_python_files_are_clean():
    command = [sys.executable, "-m", "ruff", "check", "src", "tests", "book"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
