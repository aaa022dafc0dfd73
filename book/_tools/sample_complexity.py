"""Measure test accuracy against dimension and sample size: the data of chapter 26.

usage: python book/_tools/sample_complexity.py            the stored file, on two processor cores
       python book/_tools/sample_complexity.py --full     the map with the paper's N and steps: two hours
       python book/_tools/sample_complexity.py --quick    a few cells in seconds, for the tests

One line of the table is one trial: method, k, d, n, seed, how many of 2,000 fresh inputs were answered rightly, number
of particles and of steps (0 for kernels). Finished lines are kept at once in OUT.part, so that after Ctrl-C the same
command goes on where it stopped: a night may be taken in pieces, on several machines in turn. When all is done, OUT is
sorted, and OUT with .json says how each piece was made.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import time
from collections import defaultdict
from datetime import date
from importlib.metadata import version
from math import comb
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.kernel_ridge import KernelRidge

import feature_learning as fl

TESTS = 2_000
HEADER = "method,k,d,n,seed,correct,particles,steps"
TEMPERATURES = {"langevin": None, "noiseless": 0}  # None is the paper's 0.1 / n
KERNELS = {"ntk": fl.kernels.ntk, "features": fl.kernels.random_features_kernel}
WIDEST = 0.45  # see settled
STORED = Path(__file__).parents[2] / "src" / "feature_learning" / "sample_complexity.csv"

GRID = (30, 50, 75, 100, 150, 200, 300, 400, 600)
WINDOWS = {  # where accuracy passes 95 %: both mean-field methods and five seeds
    2: {10: (30, 150), 14: (50, 200), 20: (50, 400), 28: (100, 300), 40: (150, 400), 56: (200, 600)},
    3: {12: (75, 300), 16: (100, 400), 20: (200, 600)},
}
COUNTED = {  # kernel regression: sample sizes in units of the number of products of k inputs
    2: ((10, 14, 20, 28, 40, 56), (0.5, 0.7, 1, 1.4, 1.8, 2.5), 3_000),
    3: ((12, 16, 20), (1, 1.4, 2, 2.8, 3.5), 4_000),
}


def data(k, d, n, seed):
    """Training and test set of one trial; they depend on nothing but these four numbers."""
    rng = np.random.default_rng([seed, k, d, n])
    return fl.data.sparse_parity(n, d, k, rng), fl.data.sparse_parity(TESTS, d, k, rng)


def particles(k, d, n, seeds, methods, count, steps):
    """Trials of mean-field networks, all at once; yields lines of the table."""
    sets = {seed: data(k, d, n, seed) for seed in seeds}
    jobs = [(method, seed) for seed in seeds for method in methods]
    models = [
        fl.MeanFieldLangevinClassifier(n_particles=count, n_steps=steps, temperature=TEMPERATURES[m], random_state=s)
        for m, s in jobs
    ]
    fl.mfld.fit_many(models, *([sets[s][0][i] for _, s in jobs] for i in (0, 1)))
    for (method, seed), model in zip(jobs, models, strict=True):
        z, y = sets[seed][1]
        yield method, k, d, n, seed, int((model.predict(z) == y).sum()), count, steps


def kernels(k, d, n, seeds):
    """Trials of kernel regression on labels -1 and 1, with a ridge that only guards against rounding."""
    for seed in seeds:
        (z, y), (z_test, y_test) = data(k, d, n, seed)
        for method, kernel in KERNELS.items():
            model = KernelRidge(alpha=1e-6, kernel="precomputed").fit(kernel(z), y)
            yield method, k, d, n, seed, int((model.predict(kernel(z_test, z)) * y_test > 0).sum()), 0, 0


def stored_plan():
    """The reduced size: 200 particles, 150 d steps. Most wanted trials come first."""
    for seeds in ((0, 1, 2), (3, 4)):
        for k, windows in WINDOWS.items():
            for d, (low, high) in windows.items():
                methods = list(TEMPERATURES) if d <= 40 else ["langevin"]
                for n in [n for n in GRID if low <= n <= high]:
                    yield particles, (k, d, n, seeds, methods, 200, 150 * d)
            dims, factors, most = COUNTED[k]
            for d in dims:
                extra = GRID if (k, d) == (2, 20) else ()
                for n in sorted({*extra, *(int(comb(d, k) * f) for f in factors)}):
                    if n <= most:
                        yield kernels, (k, d, n, seeds)
        if seeds[0] == 0:  # cells that only the map needs
            for d, (low, high) in WINDOWS[2].items():
                for n in [n for n in GRID if not low <= n <= high]:
                    yield particles, (2, d, n, seeds, ["langevin"], 200, 150 * d)
    for d, (low, high) in WINDOWS[2].items():  # the paper's steps; where cheap, five times the particles
        for count, steps in ((200, 10_000), (1_000, 150 * d))[: 2 if d <= 20 else 1]:
            for n in [n for n in GRID if low <= n <= high]:
                yield particles, (2, d, n, tuple(range(5)), ["langevin"], count, steps)


def settled(shares):
    """Whether more trials would hardly move a cell across 95 %: its mean lies three standard errors away.

    One trial has no spread, and two may agree by chance. So the standard deviation is that of the trials, but at least
    0.45 sqrt((1 - a)(a - 1/2)) at mean accuracy a: no cell of the stored table that is above 0.55 shows more.
    """
    mean = np.mean(shares)
    least = WIDEST * np.sqrt(max((1 - mean) * (mean - 0.5), 0))
    spread = max(least, np.std(shares, ddof=1)) if len(shares) > 1 else least
    return bool(abs(mean - 0.95) > 3 * spread / np.sqrt(len(shares)))


def full_plan(seed, rows=()):
    """The maps of the paper's figure 1 with its N = 2,000 and 10,000 steps, on an even grid: one trial of each cell.

    Cells near the boundary come first. After the first trial, cells that the earlier trials in `rows` settle are left.
    Three trials at the far end of the boundary get twice the time, to see whether 10,000 steps are enough there.
    All five trials of every cell would be 1.2e15 operations in products of matrices.
    """
    made = defaultdict(list)
    for row in rows:
        if row[4] < seed and row[7] <= 10_000:
            made[row[0], row[2], row[3]].append(row[5] / TESTS)
    cells = [(d, n) for d in range(10, 101, 10) for n in range(100, 1_001, 100)]
    for d, n in sorted(cells, key=lambda cell: abs(np.log(cell[1] / (2 * cell[0] * np.log(cell[0]))))):
        yield kernels, (2, d, n, (seed,))
        if seed == 0 or not settled(made["langevin", d, n]):
            yield particles, (2, d, n, (seed,), ["langevin"], 2_000, 10_000)
    if seed < 3:
        yield particles, (2, 100, 900, (seed,), ["langevin"], 2_000, 20_000)


def quick_plan():
    """Cells that also stand in the stored file, two seeds each."""
    yield particles, (2, 10, 50, (0, 1), list(TEMPERATURES), 200, 1_500)
    yield kernels, (2, 10, 45, (0, 1))
    yield kernels, (2, 20, 190, (0, 1))


def read(path):
    """Lines of a table as tuples."""
    rows = [line.split(",") for line in path.read_text(encoding="utf8").splitlines()[1:]]
    return [(row[0], *map(int, row[1:])) for row in rows]


def key(row):
    """What tells one trial from another."""
    return row[:5] + row[6:]


def wanted(work, arguments):
    """Keys of the trials that a piece of work brings."""
    k, d, n, seeds, *rest = arguments
    methods, *size = rest if rest else (KERNELS, 0, 0)
    return {(method, k, d, n, seed, *size) for method in methods for seed in seeds}


def carry_out(work, arguments):
    """The rows of one piece of work."""
    return list(work(*arguments))


def run(plan, out, cores=1):
    """Carry out a plan, or what is left of it, on so many cores at once; return the rows."""
    part = out.with_name(out.name + ".part")
    done = {key(row): row for row in read(part)} if part.exists() else {}
    if not part.exists():
        part.write_text(HEADER + "\n", encoding="utf8")
    left = [delayed(carry_out)(*piece) for piece in plan if not wanted(*piece) <= done.keys()]
    for rows in Parallel(n_jobs=cores, return_as="generator_unordered")(left):
        done |= {key(row): row for row in rows}
        with part.open("a", encoding="utf8") as file:
            file.writelines(",".join(map(str, row)) + "\n" for row in rows)
        shares = defaultdict(list)
        for row in rows:
            shares[row[0]].append(row[5] / TESTS)
        print(*rows[0][1:4], {method: round(float(np.mean(share)), 3) for method, share in shares.items()}, flush=True)
    return sorted(done.values())


def commit():
    """The last commit of the code that makes the numbers, and whether it was changed since then."""
    root, code = Path(__file__).parents[2], ["--", "src/feature_learning/*.py", "book/_tools/sample_complexity.py"]
    last = subprocess.run(["git", "log", "-1", "--format=%h", *code], cwd=root, capture_output=True, check=False)
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", *code], cwd=root, capture_output=True, check=False)
    return (last.stdout.decode().strip() or "unknown") + (", changed" if changed.returncode else "")


def processor():
    """Its name, where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf8").splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def provenance(seconds, trials):
    """How one piece of the work was made."""
    gpu = torch.cuda.is_available()
    return {
        "date": date.today().isoformat(),
        "commit": commit(),
        "device": torch.cuda.get_device_name() if gpu else f"CPU, {os.cpu_count()} cores, {processor()}",
        "versions": {"python": platform.python_version()}
        | {p: version(p) for p in ("numpy", "scipy", "scikit-learn", "torch")},
        "wall_time": f"{seconds:.0f} s",
        "trials": trials,
    }


def describe(out, name, pieces):
    """What is kept beside a table: how it was made, in one piece or in several, and its checksum."""
    settings = {
        "step_size": 0.2,
        "weight_decay": 0.1,
        "output_scale": 15,
        "temperature": "0.1 / n; 0 for noiseless",
        "ridge": 1e-6,
        "test_inputs": TESTS,
    }
    whole = {
        "wall_time": f"{sum(float(made['wall_time'].split()[0]) for made in pieces):.0f} s",
        "trials": sum(made["trials"] for made in pieces),
    }
    return {
        "command": f"python book/_tools/sample_complexity.py{name}",
        **(pieces[-1] | whole),
        "settings": settings,
        "paper": "Suzuki, Wu, Oko, Nitanda (2023), figure 1: N = 2000, 10000 steps, 5 trials",
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        **({"pieces": pieces} if len(pieces) > 1 else {}),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the paper's particles and steps, up to five trials")
    parser.add_argument("--quick", action="store_true", help="a few cells")
    parser.add_argument("--out", type=Path, help=f"the table, {STORED.name} in the package unless said")
    given = parser.parse_args()
    if given.out is None and (given.full or given.quick):
        parser.error("--full and --quick need --out: they do not overwrite the stored file")
    out = given.out or STORED
    part, log = (out.with_name(out.name + end) for end in (".part", ".pieces"))
    before, start = len(read(part)) if part.exists() else 0, time.perf_counter()
    try:
        if given.full:  # each trial on one core: with two trials at once no core waits for another
            rows = []
            for seed in range(5):
                rows = run(full_plan(seed, rows), out, os.cpu_count())
        else:
            rows = run(quick_plan() if given.quick else stored_plan(), out)
    finally:  # Ctrl-C too: what is done is kept, and how it was made
        made = provenance(time.perf_counter() - start, len(read(part)) - before)
        with log.open("a", encoding="utf8") as file:
            file.write(json.dumps(made) + "\n")
    pieces = [json.loads(line) for line in log.read_text(encoding="utf8").splitlines()]
    out.write_text("\n".join([HEADER, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf8")
    name = " --full" if given.full else " --quick" if given.quick else ""
    out.with_suffix(".json").write_text(json.dumps(describe(out, name, pieces), indent=1) + "\n", encoding="utf8")
    for kept in (part, log):
        kept.unlink()


if __name__ == "__main__":
    main()
