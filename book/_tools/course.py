"""Make the student's copies of the exercises: worksheets out of the solutions, and two archives.

usage: course.py                 writes _build/course/worksheets/*.ipynb, students.zip and teachers.zip

A solutions notebook (notebooks/solutions/) marks its cells by tags. `exercise`: the question, as in the chapter.
`check`: assertions, each with a sentence, on names that the solution defines. `given`: what a student is handed.
Before the first exercise everything is given; after it, what has no tag is the solution and stays behind.
"""

import ast
import builtins
import copy
import sys
import zipfile
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).resolve().parents[2]
SOLUTIONS = ROOT / "notebooks" / "solutions"


def tags(cell):
    """The tags of a cell."""
    return set(cell.metadata.get("tags", []))


def names(source, context):
    """The names that a cell's code loads (ast.Load) or binds (ast.Store), magics left out."""
    lines = ("" if line.lstrip().startswith("%") else line for line in source.splitlines())
    tree = ast.parse("\n".join(lines) or "pass")
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, context)}
    if context is ast.Store:
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found


def parts(notebook):
    """What comes before the first exercise, and for each exercise its cells."""
    opening, exercises = [], []
    for cell in notebook.cells:
        if "exercise" in tags(cell):
            exercises.append([])
        (exercises[-1] if exercises else opening).append(cell)
    if not exercises:
        raise ValueError("no cell is tagged `exercise`")
    return opening, exercises


def wanted(cells):
    """The names that the checks of an exercise read and its solution defines, in the order of the alphabet."""
    check = "\n".join(cell.source for cell in cells if "check" in tags(cell))
    for node in ast.walk(ast.parse(check)):
        if isinstance(node, ast.Assert) and node.msg is None:
            raise ValueError(f"an assertion of a check has no sentence: {ast.unparse(node)}")
    own = [cell for cell in cells if cell.cell_type == "code" and not tags(cell) & {"check", "given"}]
    found = names(check, ast.Load) & set().union(*(names(cell.source, ast.Store) for cell in own))
    found -= set(dir(builtins))
    if not found:
        raise ValueError("a check must read a name that the solution defines")
    return sorted(found)


def guarded(check, number, needed):
    """The check's code, after a line that says what is missing."""
    listed = "".join(f'"{name}", ' for name in needed)
    return (
        f"missing = [name for name in ({listed}) if name not in globals()]\n"
        f'assert not missing, "Exercise {number}: first define " + ", ".join(missing) + "."\n{check}'
    )


def worksheet(solutions, *, filled=False):
    """The notebook that a student gets, or with the solution's cells in place.

    Raises
    ------
    ValueError
        If a check reads nothing of the solution, reads a name of another exercise, or an assertion says nothing.
    """
    sheet = copy.deepcopy(solutions)
    opening, exercises = parts(sheet)
    cells, seen = opening, set()
    for number, exercise in enumerate(exercises, 1):
        needed = wanted(exercise)
        if seen & set(needed):
            raise ValueError(f"exercise {number} checks names of another one: {', '.join(seen & set(needed))}")
        seen |= set(needed)
        ask = f"# Your code. It defines {', '.join(needed)}."
        cells.append(exercise[0])
        room = False
        for cell in exercise[1:]:
            if "check" in tags(cell):
                cell.source = guarded(cell.source, number, [n for n in needed if n in names(cell.source, ast.Load)])
            elif "given" not in tags(cell) and not filled:
                if not room and cell.cell_type == "code":
                    room = True
                    cells.append(new_code_cell(ask, id=f"yours-{number}"))
                continue
            cells.append(cell)
    for cell in cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    cells[0].source = cells[0].source.replace("# Solutions", "# Worksheet", 1)
    sheet.cells = cells
    return sheet


def archive(path, files):
    """A zip of (name, bytes) whose bytes depend on nothing else."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in sorted(files):
            target.writestr(zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)


def main():
    """Write everything; the exit status says whether all notebooks could be used."""
    folder, failed = ROOT / "_build" / "course", False
    (folder / "worksheets").mkdir(parents=True, exist_ok=True)
    student, teacher = [], []
    for path in sorted(SOLUTIONS.glob("*.ipynb")):
        try:
            sheet = nbformat.writes(worksheet(nbformat.read(path, as_version=4))).encode()
        except ValueError as why:
            print(f"{path.name}: {why}", file=sys.stderr)
            failed = True
            continue
        (folder / "worksheets" / path.name).write_bytes(sheet)
        chapter = ROOT / "notebooks" / path.name
        student += [(f"worksheets/{path.name}", sheet), (f"chapters/{path.name}", chapter.read_bytes())]
        teacher.append((f"solutions/{path.name}", path.read_bytes()))
    archive(folder / "students.zip", student)
    archive(folder / "teachers.zip", student + teacher)
    print(f"{len(teacher)} worksheets, students.zip and teachers.zip are in {folder}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
