"""One table of what the benchmarks measured, a column for each process that ran them.

usage: table.py column.json …
"""

import datetime
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def processor():
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    if sys.platform == "darwin":
        return subprocess.check_output(["sysctl", "-n", "machdep.cpu.brand_string"], text=True).strip()
    return platform.processor() or platform.machine()


def machine():
    """Where and with what the figures were measured, a line each."""
    import torch

    names = [processor()] + ([torch.cuda.get_device_name()] if torch.cuda.is_available() else [])
    versions = [f"Python {platform.python_version()}"]
    for name in ("numpy", "torch", "jax", "cupy-cuda12x"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            pass
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return [
        f"{'; '.join(names)}; {os.cpu_count()} cores, load {load:.1f} at the end, {datetime.date.today()}",
        ", ".join(versions),
    ]


def level():
    """Whether NumPy, in this process, uses AVX-512."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    wide = [name for name in __cpu_dispatch__ if name == "X86_V4" or name.startswith("AVX512")]
    return "AVX-512" if any(__cpu_features__[name] for name in wide) else "no AVX-512"


def cell(row, judge):
    """A measured value, its ratio to the goal, and a mark if the goal was missed."""
    if row is None:
        return f"{'':18s}"
    ratio = row["measured"] / row["goal"]
    met = ratio >= 1 if row.get("at_least") else ratio <= 1
    return f"{row['measured']:10.3f} {ratio:6.2f}{' ' if met or not judge else '!'}"


def lines(columns):
    """The table, line by line; a column is what conftest.py writes for one process."""
    short = any(column["short"] for column in columns)
    yield from columns[0]["machine"]
    yield "goals marked >= are to be exceeded; the second number is measured / goal" + (
        "; short form: nothing is judged" if short else "; ! marks a goal that was missed"
    )
    yield f"{'what':58s}" + "".join(f"{column['level']:>18s}" for column in columns) + "      goal  unit"
    names = list(dict.fromkeys(name for column in columns for name in column["rows"]))
    for name in names:
        rows = [column["rows"].get(name) for column in columns]
        first = next(row for row in rows if row)
        sign = ">=" if first.get("at_least") else "<="
        values = "".join(cell(row, not short) for row in rows)
        yield f"{name:58s}{values} {sign}{first['goal']:7g}  {first['unit']}"
        for column, row in zip(columns, rows, strict=True):
            notes = [f"{k}: {v}" for k, v in (row or {}).items() if k not in {"goal", "measured", "unit", "at_least"}]
            if notes:
                yield f"    {column['level']}: " + "; ".join(notes)
    for name, why in sorted({tuple(pair) for column in columns for pair in column["left_out"]}):
        yield f"left out: {name}: {why}"


if __name__ == "__main__":
    print(*lines([json.loads(Path(name).read_text(encoding="utf8")) for name in sys.argv[1:]]), sep="\n")
