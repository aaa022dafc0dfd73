"""The course: every exercise has a solution that ran, and a worksheet whose checks tell a student what is missing."""

import ast
import re
import zipfile
from pathlib import Path

import course
import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
HEAD = re.compile(r"^\*\*(\d+)\.\*\* (★{1,3}) \((\d+) minutes?[^)]*\) ", re.MULTILINE)


def read(path):
    """A notebook."""
    return nbformat.read(path, as_version=4)


def questions(text):
    """The exercises of a text, without hints, one line each."""
    text = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    starts = [m.start() for m in HEAD.finditer(text)]
    cut = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    return [" ".join(re.split(r"\n## |\n+[^\n]*\]\(solutions/", q)[0].split()) for q in cut]


def asked(chapter):
    """The exercises of a chapter."""
    tail = "\n\n".join(c.source for c in chapter.cells if c.cell_type == "markdown")
    return questions(tail[tail.index("## Try it") :])


def answered(solutions):
    """The exercises that a solutions notebook repeats."""
    return questions("\n\n".join(c.source for c in solutions.cells if "exercise" in course.tags(c)))


# ------------------------------------------------------------------------------------------------ the real ones
@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.stem)
def test_solutions_answer_the_chapter(path):
    """Every exercise in the chapter's words, with an idea, a check and what it means; both link to each other."""
    chapter, solutions = read(ROOT / "notebooks" / path.name), read(path)
    assert answered(solutions) == asked(chapter) and len(asked(chapter)) >= 4
    _, exercises = course.parts(solutions)
    for number, cells in enumerate(exercises, 1):
        text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
        assert "**Idea.**" in text and "**What it means.**" in text, f"exercise {number}"
        assert any("check" in course.tags(c) for c in cells), f"exercise {number}"
    links = "\n".join(c.source for c in solutions.cells if c.cell_type == "markdown")
    assert f"](../{path.name})" in links
    links = "\n".join(c.source for c in chapter.cells if c.cell_type == "markdown")
    assert f"](solutions/{path.name})" in links


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.stem)
def test_a_worksheet_as_handed_out_says_what_is_missing(path):
    """It runs, but for the checks: each of them fails with a sentence that names the exercise and the names."""
    sheet = course.worksheet(read(path))
    for cell in sheet.cells:
        if "check" in course.tags(cell):
            cell.metadata.tags.append("raises-exception")
    NotebookClient(sheet, timeout=120, kernel_name="python3").execute()
    checks = [c for c in sheet.cells if "check" in course.tags(c)]
    for cell in checks:
        errors = [o for o in cell.outputs if o.output_type == "error"]
        assert errors and errors[0].ename == "AssertionError", cell.source
        assert re.match(r"Exercise \d+: first define \w+", errors[0].evalue)


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.stem)
def test_a_worksheet_with_the_solution_in_it_is_the_solution(path):
    """Cell by cell the code that nbval runs, so that its checks pass; only the line about missing names is new."""
    theirs = [c for c in read(path).cells if c.cell_type == "code"]
    ours = [c for c in course.worksheet(read(path), filled=True).cells if c.cell_type == "code"]
    for one, other in zip(ours, theirs, strict=True):
        guard = len(one.source) - len(other.source) if "check" in course.tags(one) else 0
        assert one.source[guard:] == other.source


# ------------------------------------------------------------------------------------------------ a small one
def small(check="assert double == 4, 'twice two'", solution="double = factor * 2"):
    """Solutions of one exercise."""
    return new_notebook(
        cells=[
            new_markdown_cell("# Solutions: chapter 99\n\nTo [chapter 99](../99_none.ipynb)."),
            new_code_cell("factor = 2"),
            new_markdown_cell("**1.** ★ (5 minutes) What is twice two?", metadata={"tags": ["exercise"]}),
            new_markdown_cell("**Idea.** Multiply."),
            new_code_cell(solution),
            new_code_cell(check, metadata={"tags": ["check"]}),
            new_markdown_cell("**What it means.** Four."),
        ]
    )


def run(sheet):
    """Execute; the first error, or None."""
    NotebookClient(sheet, timeout=60, kernel_name="python3", allow_errors=True).execute()
    errors = [o for c in sheet.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"]
    return f"{errors[0].ename}: {errors[0].evalue}" if errors else None


def test_a_worksheet_in_its_three_states():
    """As handed out, with a wrong answer, with the right one."""
    sheet = course.worksheet(small())
    assert [c.source for c in sheet.cells][0].startswith("# Worksheet")
    assert run(sheet) == "AssertionError: Exercise 1: first define double."
    own = next(c for c in sheet.cells if c.source.startswith("# Your code"))
    own.source = "double = 5"
    assert run(sheet) == "AssertionError: twice two"
    assert run(course.worksheet(small(), filled=True)) is None


def test_the_solution_stays_behind():
    text = nbformat.writes(course.worksheet(small()))
    assert "factor * 2" not in text and "Multiply" not in text and "Four" not in text


@pytest.mark.parametrize(
    "change, message",
    [
        ({"check": "assert double == 4"}, "has no sentence"),
        ({"check": "assert factor == 2, 'no'"}, "must read a name"),
        ({"solution": "factor"}, "must read a name"),
    ],
)
def test_a_check_that_checks_nothing_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        course.worksheet(small(**change))


def test_two_exercises_may_not_check_one_name():
    twice = small()
    twice.cells += [c.copy() for c in twice.cells[2:]]
    with pytest.raises(ValueError, match="another one: double"):
        course.worksheet(twice)


def test_the_archives(monkeypatch, tmp_path, capsys):
    """Students get no solution, teachers all; the same bytes from the same files; a bad notebook is named."""
    (tmp_path / "notebooks" / "solutions").mkdir(parents=True)
    for folder in ("notebooks", "notebooks/solutions"):
        nbformat.write(small(), tmp_path / folder / "99_none.ipynb")
    monkeypatch.setattr(course, "ROOT", tmp_path)
    monkeypatch.setattr(course, "SOLUTIONS", tmp_path / "notebooks" / "solutions")
    assert not course.main()
    out = tmp_path / "_build" / "course"
    first = [(out / name).read_bytes() for name in ("students.zip", "teachers.zip")]
    assert not course.main()
    assert first == [(out / name).read_bytes() for name in ("students.zip", "teachers.zip")]
    with zipfile.ZipFile(out / "students.zip") as students, zipfile.ZipFile(out / "teachers.zip") as teachers:
        assert students.namelist() == ["chapters/99_none.ipynb", "worksheets/99_none.ipynb"]
        assert set(teachers.namelist()) - set(students.namelist()) == {"solutions/99_none.ipynb"}
    nbformat.write(small(check="assert double"), tmp_path / "notebooks" / "solutions" / "98_bad.ipynb")
    assert course.main() and "98_bad.ipynb: an assertion" in capsys.readouterr().err


def test_names_are_found():
    code = "%pip install x\nimport numpy as np\nfrom a import b\ndef f(): return c\nd = e"
    assert course.names(code, ast.Store) == {"np", "b", "f", "d"} and {"c", "e"} <= course.names(code, ast.Load)
