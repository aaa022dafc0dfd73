"""Print what the benchmarks measured beside their goals, in one table."""

import os
import platform

LEFT_OUT = []


def pytest_runtest_logreport(report):
    if report.skipped:
        LEFT_OUT.append((report.nodeid.split("::")[-1], report.longrepr[2] if report.longrepr else ""))


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    rows = [b for b in session.benchmarks if "goal" in b.extra_info] if session else []
    write = terminalreporter.write_line
    if rows:
        write("")
        write(
            f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end; "
            "ratio: measured / goal, goals marked >= are to be exceeded"
        )
        write(f"{'what':58s} {'measured':>10s} {'goal':>9s} {'ratio':>6s}  unit")
    for row in rows:
        info = row.extra_info
        sign = ">=" if info.get("at_least") else "<="
        ratio = info["measured"] / info["goal"]
        met = ratio >= 1 if info.get("at_least") else ratio <= 1
        notes = "; ".join(f"{k}: {v}" for k, v in info.items() if k not in ("goal", "measured", "unit", "at_least"))
        write(
            f"{row.name:58s} {info['measured']:10.3f} {sign} {info['goal']:6g} {ratio:6.2f}  {info['unit']}"
            f"{'' if met else '  MISSED'}{f'  ({notes})' if notes else ''}"
        )
    for name, why in LEFT_OUT:
        write(f"left out: {name}: {why}")
