"""Run notebooks from the first cell to the last and store what they print.

usage: execute.py notebooks/11_condensation.ipynb …

A second run of a deterministic notebook writes the same bytes. A notebook that fails is left as it was.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from captions import captioned, chapters, docname_of
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

TIMEOUT = 600
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3"}


def run(path):
    """The notebook at `path`, executed in its own folder, with metadata that says nothing of this machine."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name=KERNEL["name"],
        resources={"metadata": {"path": str(path.parent)}},
        coalesce_streams=True,
        record_timing=False,
    ).execute()
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": LANGUAGE})
    return captioned(notebook, docname_of(path)) if chapters.NAME.match(docname_of(path)) else notebook


def store(notebook, path):
    """Write the notebook in one stroke, and only if it changed; true if it did."""
    new = (nbformat.writes(notebook).rstrip("\n") + "\n").encode()
    if path.read_bytes() == new:
        return False
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".ipynb")
    with os.fdopen(handle, "wb") as file:
        file.write(new)
    os.chmod(name, path.stat().st_mode)
    os.replace(name, path)
    return True


def main(paths):
    """Run every notebook; the exit status says whether all of them could be."""
    failed = []
    if not paths:
        print("no notebook to run", file=sys.stderr)
        return 1
    for path in map(Path, paths):
        start = time.perf_counter()
        try:
            changed = store(run(path), path)
        except (CellExecutionError, CellTimeoutError, DeadKernelError, OSError, nbformat.reader.NotJSONError) as error:
            failed.append(str(path))
            print(f"{path}: not stored, it failed:\n{error}", file=sys.stderr)
        else:
            print(f"{path}: {time.perf_counter() - start:.1f} s, {'stored' if changed else 'the same bytes as before'}")
    if failed:
        print(f"failed and left as they were: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
