"""What the benchmarks share: the short form, and the table of what they measured beside their goals."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
import table  # noqa: E402

LEFT_OUT = []


def pytest_addoption(parser):
    parser.addoption("--short", action="store_true", help="one round of little work: do the benchmarks still run?")
    parser.addoption("--column", metavar="FILE", help="write the results to FILE, for table.py, and print no table")


@pytest.fixture(scope="session")
def short(pytestconfig):
    """Whether the benchmarks only have to run, with as little work as they can do."""
    return pytestconfig.getoption("short")


@pytest.fixture
def benchmark(benchmark, short, monkeypatch):
    """pytest-benchmark's, with a single round in the short form."""
    if short:
        whole = benchmark.pedantic
        monkeypatch.setattr(
            benchmark, "pedantic", lambda *a, **options: whole(*a, **options | {"rounds": 1, "warmup_rounds": 0})
        )
    return benchmark


def pytest_runtest_logreport(report):
    if report.skipped:
        LEFT_OUT.append((report.nodeid.split("::")[-1], report.longrepr[2] if report.longrepr else ""))


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    found = session.benchmarks if session else []
    column = {
        "level": table.level(),
        "machine": table.machine(),
        "short": config.getoption("short"),
        "rows": {row.name: dict(row.extra_info) for row in found if "goal" in row.extra_info},
        "left_out": LEFT_OUT,
    }
    if config.getoption("column"):
        Path(config.getoption("column")).write_text(json.dumps(column, default=float), encoding="utf8")
    else:
        for line in ["", *table.lines([column])]:
            terminalreporter.write_line(line)
