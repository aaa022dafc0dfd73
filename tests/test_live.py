"""The experiments that run in the page: the same numbers as the package's, and what a reader can do with them."""

import json
import re
from pathlib import Path

import live
import numpy as np
import pytest
from browser import WIDE, axe_findings

import feature_learning as fl
from feature_learning import flow, mfld

LIVE = Path(__file__).resolve().parents[1] / "book/_live"
ENGINES = ("random", "langevin", "orientations", "lazy")


class Engine:
    """The engines in QuickJS, perhaps with a mistake put into them."""

    def __init__(self, mistake=None):
        import quickjs

        self.context = quickjs.Context()
        source = "\n".join((LIVE / f"{name}.js").read_text(encoding="utf8") for name in ENGINES)
        if mistake:
            assert source.count(mistake[0]) == 1, f"{mistake[0]!r} stands {source.count(mistake[0])} times"
            source = source.replace(*mistake)
        self.context.eval(source + "\nfunction F(list) { return Float64Array.from(list); }")

    def __call__(self, code, **values):
        """The value of a function's body, with numbers and arrays under these names."""
        names = [f"const {name} = {self.literal(value)};" for name, value in values.items()]
        return json.loads(self.context.eval(f"(() => {{ {' '.join(names)} {code} }})()"))

    @staticmethod
    def literal(value):
        """A number, or an array as one of doubles in rows."""
        if isinstance(value, np.ndarray):
            return f"F({json.dumps(value.ravel().tolist())})"
        return json.dumps(value)


@pytest.fixture(scope="module")
def engine():
    """The engines as they are."""
    return Engine()


def close(ours, theirs, most=1e-12):
    """Equal up to a share of the largest number."""
    ours, theirs = np.asarray(ours, float).ravel(), np.asarray(theirs, float).ravel()
    assert ours.shape == theirs.shape and np.isfinite(ours).all()
    off = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert off <= most, f"off by {off:.1e}"
    return off


# ------------------------------------------------------------------ Langevin particles

CLOUDS = [  # N, n, d, k, step, temperature, decay, scale
    (5, 7, 4, 2, 0.2, 2e-4, 0.1, 15.0),
    (12, 9, 3, 3, 0.5, 0.1, 0.3, 5.0),
    (3, 20, 6, 1, 0.05, 0.0, 0.0, 15.0),
    (20, 4, 10, 4, 1.0, 1.0, 0.1, 1.0),
]


def langevin_gap(engine, case, steps):
    """Both the cloud after some steps with one noise for both, and the answers; gives the larger difference."""
    N, n, d, k, eta, heat, decay, scale = case
    rng = np.random.default_rng(3)
    z, y = fl.data.sparse_parity(n, d, k, rng)
    z, cloud = fl.data.with_bias(z), rng.standard_normal((N, d + 2))
    noise = rng.standard_normal((steps, N, d + 2))
    ours = engine(
        """const settings = {eta: eta, heat: heat, decay: decay, scale: scale}, size = start.length;
        const cloud = flLive.cloud(start, N, {z: z, y: y, n: y.length}, settings), f = new Float64Array(y.length);
        for (let t = 0; t < noise.length; t += size)
          if (!flLive.langevin(cloud, noise.subarray(t, t + size))) return "null";
        return JSON.stringify([Array.from(cloud.particles), Array.from(flLive.answers(cloud, cloud.data, f))]);""",
        N=N, z=z, y=y, start=cloud, noise=noise, eta=eta, heat=heat, decay=decay, scale=scale,
    )  # fmt: skip
    for kicks in noise:
        settings = {"step_size": eta, "temperature": heat, "weight_decay": decay, "output_scale": scale}
        cloud = mfld.langevin_step(cloud, z, y, kicks, **settings)
    return max(close(ours[0], cloud), close(ours[1], mfld.network(cloud, z, scale)))


@pytest.mark.parametrize("steps", [1, 100])
@pytest.mark.parametrize("case", CLOUDS)
def test_langevin_steps_are_those_of_the_package(engine, case, steps):
    """Same particles, data and noise."""
    langevin_gap(engine, case, steps)


def test_langevin_loss_is_that_of_the_package(engine):
    """The loss belongs to the particles before the step."""
    z, y = fl.data.sparse_parity(30, 5, 2, rng=0)
    z, cloud = fl.data.with_bias(z), 30 * np.random.default_rng(0).standard_normal((4, 7))
    loss = engine(
        """const cloud = flLive.cloud(start, 4, {z: z, y: y, n: 30}, {eta: 0.1, heat: 0, decay: 0, scale: 15});
        flLive.langevin(cloud, start);
        return JSON.stringify(cloud.loss);""",
        z=z, y=y, start=cloud,
    )  # fmt: skip
    close([loss], [mfld.logistic_loss(y * mfld.network(cloud, z))])


@pytest.mark.parametrize(("eta", "heat"), [(1e3, 2e-4), (100.0, 1.0), (1e300, 1.0), (0.2, 1e300)])
def test_a_cloud_that_diverges_says_so_and_keeps_its_last_numbers(engine, eta, heat):
    """False comes back, sooner or later, and the particles stay finite."""
    stopped, finite = engine(
        """const rng = flLive.random(1), data = flLive.parity(50, 5, 2, rng), noise = new Float64Array(140);
        const cloud = flLive.cloud(rng.fill(new Float64Array(140)), 20, data, {eta, heat, decay: 0.1, scale: 15});
        let t = 0;
        while (t < 3000 && flLive.langevin(cloud, rng.fill(noise))) t++;
        return JSON.stringify([t < 3000, cloud.particles.every(Number.isFinite)]);""",
        eta=eta, heat=heat,
    )  # fmt: skip
    assert stopped and finite


def test_parities_are_parities(engine):
    """Inputs of length one with a bias; the label is the sign of the product."""
    z, y = engine(
        """const d = flLive.parity(200, 6, 3, flLive.random(5));
        return JSON.stringify([Array.from(d.z), Array.from(d.y)]);"""
    )
    z = np.reshape(z, (200, 7))
    assert np.allclose((z[:, :6] ** 2).sum(1), 1) and (z[:, 6] == 1).all()
    assert np.array_equal(np.sign(z[:, :3].prod(1)), y) and 70 < np.sum(np.array(y) > 0) < 130
    assert np.abs(z[:, :6].mean(0) * np.sqrt(6)).max() < 4 / np.sqrt(200)


def test_random_numbers_are_normal_and_of_their_seed(engine):
    """Moments of 50,000, within four standard errors; a seed gives its numbers again, another one others."""
    draw = "return JSON.stringify(Array.from(flLive.random(seed).fill(new Float64Array(50000))));"
    one, again, other = (np.array(engine(draw, seed=seed)) for seed in (7, 7, 8))
    assert np.array_equal(one, again) and abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(50_000)
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((one**power).mean() - mean) < 4 * np.sqrt(variance / 50_000), power
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 4 / np.sqrt(50_000)


def same_law(ours, theirs):
    """Means of independent runs differ by no more than four standard errors."""
    ours, theirs = np.array(ours), np.array(theirs)
    error = np.sqrt((ours.var(0, ddof=1) + theirs.var(0, ddof=1)) / len(ours))
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 4 * error).all(), (ours.mean(0), theirs.mean(0), error)


def test_twenty_clouds_are_like_twenty_of_the_package(engine):
    """Own data, start and noise: the loss, and the variance of relevant and other weights, after 100 steps."""
    ours = engine(
        """const all = [];
        for (let seed = 0; seed < 20; seed++) {
          const rng = flLive.random(seed), data = flLive.parity(60, 5, 2, rng), noise = new Float64Array(50 * 7);
          const start = rng.fill(new Float64Array(50 * 7));
          const cloud = flLive.cloud(start, 50, data, {eta: 0.5, heat: 0.01, decay: 0.1, scale: 15});
          for (let t = 0; t < 100; t++) flLive.langevin(cloud, rng.fill(noise));
          const v = [0, 0];
          cloud.particles.forEach((x, i) => { if (i % 7 < 5) v[i % 7 < 2 ? 0 : 1] += x * x; });
          all.push([cloud.loss, Math.log(v[0]), Math.log(v[1])]);
        }
        return JSON.stringify(all);"""
    )
    theirs = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        z, y = fl.data.sparse_parity(60, 5, 2, rng)
        z, cloud = fl.data.with_bias(z), rng.standard_normal((50, 7))
        for _ in range(100):
            loss = mfld.logistic_loss(y * mfld.network(cloud, z))
            kicks = rng.standard_normal(cloud.shape)
            cloud = mfld.langevin_step(cloud, z, y, kicks, step_size=0.5, temperature=0.01, weight_decay=0.1)
        theirs.append([loss, *np.log([(cloud[:, :2] ** 2).sum(), (cloud[:, 2:5] ** 2).sum()])])
    same_law(ours, theirs)


# ------------------------------------------------------------------ orientations


def chapter(number, *wanted):
    """Functions and values of a chapter, from those of its cells that hold these words."""
    name = next((LIVE.parents[1] / "notebooks").glob(f"{number}_*.ipynb"))
    space = {"np": np, "fl": fl}
    exec("from scipy.cluster.hierarchy import fcluster, linkage\nfrom scipy.spatial.distance import squareform", space)
    sources = ["".join(c["source"]) for c in json.loads(name.read_text(encoding="utf8"))["cells"]]
    for words in wanted:
        exec(next(s for s in sources if words in s), space)
    return space


@pytest.fixture(scope="module")
def twelve():
    """The run of chapter 12, by its own code."""
    cells = "def start(seed", "def hidden(p", "def gradient(p", "def descend(p", "def strength(p"
    space = chapter(12, *cells)
    space["angle"] = lambda p: fl.condensation.polar_features(p[:, 0], p[:, 1])[0]
    exec("def groups(p, same=0.05):\n    v = p[active(p), :2]\n"
         "    v = v / np.linalg.norm(v, axis=1, keepdims=True)\n"
         "    angles = squareform(np.arccos(np.clip(v @ v.T, -1, 1)), checks=False)\n"
         '    return fcluster(linkage(angles, "complete"), same, "distance")', space)  # fmt: skip
    return space


DESCEND = """const run = flLive.descent(start, x, y, eta), losses = [];
for (let t = 0; t < epochs; t++) {
  if (marks.includes(t)) losses.push(flLive.residuals(run));
  if (!flLive.epoch(run)) return "null";
}
losses.push(flLive.residuals(run));
const pulls = angles.map(t => flLive.pull(run, t));
return JSON.stringify([Array.from(run.p), losses, flLive.directions(run, 0.05), Array.from(flLive.strength(run)),
  Array.from(pulls)]);"""


def orientations_gap(engine, twelve, m, n, seed, size, epochs):
    """Neurons, loss and pull after some epochs, with the chapter's."""
    x = np.sort(np.random.default_rng(seed).uniform(-1, 1, n)) if seed else np.linspace(-1, 1, n)
    y, points = np.cos(3 * x) + x, np.c_[x, np.ones(n)]
    p = np.random.default_rng(seed).normal(0, size, (m, 3))
    angles = np.linspace(-3, 3, 13)
    ours = engine(DESCEND, start=p, x=x, y=y, eta=0.1, epochs=epochs, marks=[], angles=angles)
    end = twelve["descend"](p, {epochs}, points=points, y=y)[epochs]
    residual = y - end[:, 2] @ twelve["hidden"](end, points)
    ring = np.maximum(np.c_[np.cos(angles), np.sin(angles)] @ points.T, 0)
    return max(close(ours[0], end), close([ours[1][-1]], [(residual**2).mean()]), close(ours[4], ring @ residual / n))


NETWORKS = [(100, 41, 0, 1e-4), (100, 41, 3, 0.1), (7, 5, 1, 0.5), (30, 60, 2, 1e-2)]


@pytest.mark.parametrize("epochs", [1, 100])
@pytest.mark.parametrize("case", NETWORKS)
def test_epochs_are_those_of_the_chapter(engine, twelve, case, epochs):
    """Same start and points."""
    orientations_gap(engine, twelve, *case, epochs)


def test_the_run_of_chapter_12(engine, twelve):
    """From the chapter's own start: losses and numbers of directions along the run."""
    marks = [100, 1000, 5000, 10_000, 12_000]
    kept = twelve["descend"](twelve["start"](0), set(marks))
    settings = {"x": twelve["x"][:, 0], "y": twelve["y"], "eta": 0.1, "angles": np.array([0.5])}
    for mark in (1000, 5000, 12_000):
        before = [m for m in marks if m < mark]
        _, losses, directions, strength, _ = engine(
            DESCEND, start=twelve["start"](0), epochs=mark, marks=before, **settings
        )
        close(losses, [twelve["risk"](kept[m]) for m in [*before, mark]], 1e-9)
        close(strength, twelve["strength"](kept[mark]), 1e-9)
        assert len(directions) == twelve["groups"](kept[mark]).max()


def test_directions_are_counted_as_in_the_chapter(engine, twelve):
    """Networks with many directions, some across the end of the circle."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        theta = rng.uniform(-np.pi, np.pi, 8)[rng.integers(0, 8, 40)] + 0.03 * rng.standard_normal(40)
        p = np.c_[np.cos(theta), np.sin(theta), np.ones(40)]
        ours = engine(DESCEND, start=p, x=np.linspace(-1, 1, 41), y=np.zeros(41), eta=0.1, epochs=0, marks=[],
                      angles=np.zeros(1))  # fmt: skip
        assert len(ours[2]) == twelve["groups"](p).max()


def test_a_descent_that_diverges_says_so(engine):
    """A step that is too large."""
    bad = engine(
        """const run = flLive.descent(flLive.random(0).fill(new Float64Array(300)), x, x, 3);
        let t = 0;
        while (t < 1000 && flLive.epoch(run)) t++;
        return JSON.stringify([t, run.p.every(Number.isFinite)]);""",
        x=np.linspace(-1, 1, 41),
    )
    assert bad[0] < 1000 and bad[1]


# ------------------------------------------------------------------ lazy or rich

FLOW = """const flow = flLive.flow(a, w, inputs, y, kappa, ratio), first = flLive.tangent(flow);
for (let t = 0; t < steps; t++) if (!flLive.forward(flow)) return "null";
flLive.velocity(flow);
return JSON.stringify([Array.from(flow.a), Array.from(flow.w), flow.relative, flow.time,
  flLive.moved(flow.w, flow.start), flLive.moved(flLive.tangent(flow), first), Array.from(flLive.tangent(flow))]);"""


def flow_gap(engine, width, gamma, prime, seed, steps):
    """Weights, loss, time, movement and kernel after some steps of the package's own choice, with the package's."""
    x, y = fl.data.relu_teacher(6)
    inputs = fl.data.with_bias(x)
    a, w = flow.start_weights(width, 2, seed)
    kappa, ratio = float(width) ** -gamma, float(width) ** -prime
    ours = engine(FLOW, a=a, w=w, inputs=inputs, y=y, kappa=kappa, ratio=ratio, steps=steps)
    settings = {"gamma": gamma, "gamma_prime": prime, "seed": seed, "max_steps": steps}
    run = flow.gradient_flow(x, y, width=width, tolerance=1e-12, **settings)
    end = run["outputs"][None], run["weights"].T[None]
    before, after = (
        flow.tangent_kernel(*now, inputs, np.array([kappa]), np.array([ratio]))[0] for now in ((a[None], w[None]), end)
    )
    moved = np.linalg.norm(after - before) / np.linalg.norm(before)
    theirs = [*end, run["relative_loss"], run["time"], run["relative_change"], moved, after]
    return max(close(o, t) for o, t in zip(ours, theirs, strict=True))


FLOWS = [(100, 0.5, 0.0, 0), (64, 1.0, 0.0, 1), (100, 1.75, 0.0, 2), (50, 1.5, 0.5, 3), (64, 1.25, -0.5, 4)]


@pytest.mark.parametrize("steps", [1, 100])
@pytest.mark.parametrize("case", FLOWS)
def test_flows_are_those_of_the_package(engine, case, steps):
    """Same start; the step is chosen as there."""
    flow_gap(engine, *case, steps)


def test_a_flow_that_overflows_says_so(engine):
    """A step beyond all numbers, at once or bit by bit; what is left is finite."""
    a, w = flow.start_weights(10, 2, 0)
    for eta in (1e308, 10.0):
        stopped, finite = engine(
            """const flow = flLive.flow(a, w, x, y, 1, 1);
            let t = 0;
            while (t < 1000 && flLive.forward(flow, eta)) t++;
            return JSON.stringify([t < 1000, flow.a.every(Number.isFinite) && flow.w.every(Number.isFinite)]);""",
            a=a, w=w, x=np.array([[-0.5, 1.0], [1.0, 1.0]]), y=np.ones(2), eta=eta,
        )  # fmt: skip
        assert finite and (stopped or eta < 100)


def test_twenty_starts_are_like_twenty_of_the_package(engine):
    """Own starts: how far the weights have moved when the flow has converged, lazy and rich."""
    x, y = fl.data.relu_teacher(6)
    for gamma in (0.5, 1.5):
        ours = engine(
            """const all = [];
            for (let seed = 0; seed < 20; seed++) {
              const start = flLive.pairs(50, 2, flLive.random(seed));
              const flow = flLive.flow(start.a, start.w, inputs, y, Math.pow(50, -gamma), 1);
              do flLive.forward(flow); while (flow.relative > 0.01);
              all.push([Math.log(flLive.moved(flow.w, flow.start))]);
            }
            return JSON.stringify(all);""",
            inputs=fl.data.with_bias(x), y=y, gamma=gamma,
        )  # fmt: skip
        run = flow.gradient_flow(x, y, width=50, gamma=gamma, gamma_prime=0, seed=np.arange(20))
        same_law(ours, np.log(run["relative_change"])[:, None])


# ------------------------------------------------------------------ do the tests above see a mistake?

MISTAKES = [
    ("langevin", "s[j] = -y[j] /", "s[j] = y[j] /"),
    ("langevin", "pull[c] += g * z[at++]", "pull[c] += g * z[c * n + j]"),
    ("langevin", "shrink = 2 * cloud.heat * cloud.decay", "shrink = 2 * cloud.decay"),
    ("langevin", "Math.sqrt(2 * cloud.heat * eta)", "Math.sqrt(2 * cloud.heat)"),
    ("langevin", "2 * (1 - t * t) * sum", "(1 - t * t) * sum"),
    ("langevin", "(output[j] + 2 * offsets)", "(output[j] + offsets)"),
    ("langevin", "(1 - v * v) * s[j]", "(1 - v) * s[j]"),
    ("langevin", "s += x[row + c] * z[at++];", "s += x[c * cloud.N + i] * z[at++];"),
    ("orientations", "rate = (2 * run.eta)", "rate = run.eta"),
    ("orientations", "p[k + 2] += rate * (w * s + b * t)", "p[k + 2] += rate * (w * s - b * t)"),
    ("orientations", "p[k] += rate * a * s;", "p[k] += rate * a * t;"),
    ("orientations", "jump[2 * e + 1] -= a * b", "jump[2 * e + 1] += a * b"),
    ("lazy", "rate -= flow.w[c * m + k] * s", "rate += flow.w[c * m + k] * s"),
    ("lazy", "flow.da[k] = rate / flow.ratio", "flow.da[k] = rate * flow.ratio"),
    ("lazy", "s += flow.w[c * flow.m + k]", "s += flow.w[k * flow.dim + c]"),
    ("lazy", "flow.fraction / rate", "1 / rate"),
    ("lazy", "flow.age >= 50", "flow.age >= 500"),
]


@pytest.mark.parametrize(("part", "right", "wrong"), MISTAKES)
def test_a_mistake_in_a_step_is_seen(twelve, part, right, wrong):
    """A sign, a factor, a transpose."""
    broken, cases = Engine((right, wrong)), {"langevin": CLOUDS, "orientations": NETWORKS, "lazy": FLOWS}[part]
    gap = {"langevin": langevin_gap, "lazy": lambda e, case, n: flow_gap(e, *case, n)}.get(
        part, lambda e, case, n: orientations_gap(e, twelve, *case, n)
    )

    def fails(case):
        try:
            gap(broken, case, 100)
        except (AssertionError, TypeError):  # None: it diverged
            return True

    assert any(fails(case) for case in cases), "no test has noticed"


# ------------------------------------------------------------------ in the browser

PAGE = """<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>Test</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root { --pst-color-surface: #f3f4f5; } html[data-theme="dark"] { --pst-color-surface: #29313d; }
html[data-theme="dark"] body { background: #14181e; color: #ddd; } a { color: #0b5fa5; }
html[data-theme="dark"] a { color: #7db8f0; } body { font: 16px sans-serif; }
</style></head><body><main><h1>Test</h1>
<div class="cell tag_live-NAME tag_hide-input docutils container"><div><div>The stored picture.</div></div></div>
</main></body></html>"""
NAMES = [*live.EXPERIMENTS]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with a page for each experiment."""
    folder = tmp_path_factory.mktemp("live")
    live.write_files(folder / "_static")
    for name in NAMES:
        (folder / f"{name}.html").write_text(live.place(PAGE.replace("NAME", name), ""), encoding="utf8")
    return folder


@pytest.fixture
def start(site, visit):
    """Open an experiment with a state, and by keyboard if wanted run it."""

    def begin(name, state="", screen="wide"):
        page, wrong = visit(f"{(site / name).as_uri()}.html" + (f"#live-{name}?{state}" if state else ""), screen)
        if screen == "phone":
            page.evaluate("document.documentElement.dataset.theme = 'dark'")
        return page, wrong

    return begin


def press(page, name):
    """A button, by keyboard."""
    page.get_by_role("button", name=name, exact=True).focus()
    page.keyboard.press("Enter")


def wait(page, words):
    """Until the status line has these words (a regular expression); gives the line."""
    status = page.get_by_role("status")
    page.wait_for_function("w => RegExp(w).test(document.querySelector('[role=status]').textContent)", arg=words)
    return status.inner_text()


def here(page):
    """The address as the page has it; `page.url` may be late."""
    return page.evaluate("location.href")


def table(page):
    """The numbers below the pictures: rows of texts."""
    return page.evaluate("[...document.querySelectorAll('tbody tr')].map(r => [...r.children].map(c => c.textContent))")


def slider(page, key):
    """The slider of a setting."""
    return page.locator(f"[data-key={key}]")


@pytest.mark.parametrize("screen", ["wide", "phone"])
@pytest.mark.parametrize("name", NAMES)
def test_experiments_are_open_to_all(start, name, screen):
    """No finding of axe, no page that scrolls sideways, nothing on the console, nothing from elsewhere; also later."""
    page, wrong = start(name, screen=screen)
    wait(page, "Nothing moves yet")
    press(page, "Step")
    assert not axe_findings(page) and page.evaluate(WIDE) <= 0
    page.get_by_role("radio").first.check()
    press(page, "Run")
    page.wait_for_timeout(500)
    assert not axe_findings(page) and page.evaluate(WIDE) <= 0 and not wrong


@pytest.mark.parametrize("name", NAMES)
def test_experiments_wait_to_be_asked(start, name):
    """Nothing moves before Run."""
    page, _ = start(name)
    picture = "[...document.querySelectorAll('canvas')].map(c => c.toDataURL()).join()"
    before = page.evaluate(picture)
    page.wait_for_timeout(400)
    assert page.evaluate(picture) == before and len(before) > 5000


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_weighs_little(site, name):
    """All that it brings to a page."""
    page = (site / f"{name}.html").read_text(encoding="utf8")
    files = re.findall(r"_static/[\w.-]+", page)
    total = len(page) - len(PAGE) + sum((site / file).stat().st_size for file in files)
    assert len(files) == 2 and total <= 15_000, total


def load(page, seconds=2):
    """What a running experiment takes: processor time a picture in seconds, and steps a second of processor time.

    Time of the page's thread, not of the clock: other programs use the processor, too.
    """
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.evaluate("""() => { window.pictures = 0;
        const count = () => { window.pictures++; requestAnimationFrame(count); };
        count(); }""")

    def measured():
        values = {m["name"]: m["value"] for m in devtools.send("Performance.getMetrics")["metrics"]}
        return values["TaskDuration"], page.evaluate("window.pictures")

    before = measured()
    press(page, "Run")
    page.wait_for_timeout(1000 * seconds)
    press(page, "Pause")
    after = measured()
    page.wait_for_timeout(1100)  # the status line speaks once a second
    used = after[0] - before[0]
    return used / (after[1] - before[1]), int(re.search(r"\d+", wait(page, r"\d"))[0]) / used


@pytest.mark.parametrize(
    ("name", "state"), [("langevin", ""), ("langevin", "N=800&n=300&d=20&pace=50"), ("orientations", "m=300&pace=5000"),
                        ("lazy", "m=1000&gamma=1.75")]
)  # fmt: skip
def test_an_experiment_leaves_the_page_free(start, name, state):
    """No task of 50 milliseconds, also with the largest numbers."""
    page, _ = start(name, state)
    each, _ = load(page)
    assert each < 0.04


def test_particles_are_fast(start):
    """500 particles, 200 examples, ten inputs: a hundred steps a second, drawn."""
    page, _ = start("langevin", "pace=2")
    _, rate = load(page)
    assert rate > 100, rate


def test_particles_learn_by_keyboard(start):
    """Run, three hundred steps, right answers; the cloud has grown along the inputs that matter."""
    page, wrong = start("langevin", "pace=20")
    press(page, "Run")
    line = wait(page, r"Step ([3-9]\d\d|\d{4,}),")
    assert int(re.search(r"(\d+) %", line)[1]) > 90 and not wrong
    press(page, "Pause")
    rows = table(page)
    assert float(rows[2][1]) > 5 * float(rows[3][1]), rows


def test_a_slider_moves_while_it_runs(start):
    """A temperature goes on from here; a number of particles starts again and runs on. The address follows."""
    page, wrong = start("langevin", "N=50&n=50")
    press(page, "Run")
    wait(page, r"Step \d\d")
    slider(page, "heat").focus()
    page.keyboard.press("End")
    line = wait(page, r"Step [1-9]\d+, temperature 1:")
    assert "heat=1" in here(page) and "N=50" in here(page) and int(re.search(r"Step (\d+)", line)[1]) > 9
    slider(page, "N").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("button", name="Pause").count() == 1 and "N=60" in here(page) and not wrong


def test_a_link_opens_a_setting(start):
    """In a new page, and in the page that is open; what is not in it is the default."""
    page, _ = start("langevin", "heat=0.03&N=100&k=3")
    shown = "k => document.querySelector(`[data-key=${k}]`).nextSibling.textContent"
    assert [page.evaluate(shown, k) for k in ("heat", "N", "k", "d")] == ["0.03", "100", "3", "10"]
    assert page.get_by_role("link", name="Link to this setting").get_attribute("href").endswith("?heat=0.03&N=100&k=3")
    page.evaluate("location.hash = '#live-langevin?seed=7'")
    wait(page, "The setting of the address")
    assert [page.evaluate(shown, k) for k in ("heat", "seed")] == ["0.0002", "7"]
    page.get_by_label("Preset").select_option("Annealing")
    assert "halve=300" in here(page)


@pytest.mark.parametrize("name", NAMES)
def test_an_address_with_nonsense(start, name):
    """The default, and a word about it."""
    page, wrong = start(name, "seed=banana&pace=-1&x=%3Cb%3E&pace=1e999&seed=")
    line = wait(page, "default is used")
    assert "seed=banana" in line and "x=<b>" in line and not wrong
    press(page, "Step")
    assert "NaN" not in page.locator("section").inner_text() and here(page).count("banana") == 1


def test_a_setting_that_diverges(start):
    """It says so, and offers the last one that ran."""
    page, wrong = start("langevin", "N=50&n=50")
    press(page, "Run")
    wait(page, r"Step [3-9]\d|Step \d{3}")
    slider(page, "eta").focus()
    page.keyboard.press("End")
    line = wait(page, "Diverged at step")
    assert "Lower the step" in line and "NaN" not in page.locator("section").inner_text()
    press(page, "Last good setting")
    wait(page, "last setting that ran")
    assert "eta" not in here(page) and "N=50" in here(page)
    press(page, "Run")
    wait(page, r"Step \d\d")
    assert not wrong


def test_reduced_motion_is_respected(start):
    """At most one picture a second."""
    page, _ = start("langevin", "N=50&n=50")
    page.emulate_media(reduced_motion="reduce")
    page.evaluate("""() => { const clear = CanvasRenderingContext2D.prototype.clearRect; window.pictures = 0;
        CanvasRenderingContext2D.prototype.clearRect = function (...a) {
          window.pictures++; clear.apply(this, a); }; }""")
    press(page, "Run")
    page.wait_for_timeout(1500)
    assert page.evaluate("window.pictures") <= 3 * 3


def test_no_number_that_is_none_reaches_a_canvas(start):
    """Wild settings, one after another: what is drawn is finite."""
    page, wrong = start("langevin", "N=30&n=30")
    page.evaluate("""() => { window.bad = 0;
        for (const f of ["arc", "lineTo", "moveTo", "fillText"]) {
          const old = CanvasRenderingContext2D.prototype[f];
          CanvasRenderingContext2D.prototype[f] = function (...a) {
            if (a.some(v => typeof v === "number" ? !isFinite(v) : /NaN|Infinity/.test(v))) window.bad++;
            old.apply(this, a); }; } }""")
    press(page, "Run")
    for state in ("eta=100&heat=1", "scale=50&eta=20", "d=3&k=5&n=10&N=10", "heat=1&eta=9&halve=50"):
        page.evaluate(f"location.hash = '#live-langevin?{state}'")
        page.wait_for_timeout(300)
        if page.get_by_role("button", name="Run", exact=True).count():  # it has diverged
            press(page, "Run")
    assert page.evaluate("window.bad") == 0 and not wrong


def test_a_hundred_thousand_epochs(start):
    """Within ten seconds a few directions are left, and the first one came where theory says."""
    page, wrong = start("orientations", "pace=5000")
    press(page, "Run")
    page.wait_for_function("/Epoch \\d{6}/.test(document.querySelector('[role=status]').textContent)", timeout=10_000)
    press(page, "Pause")
    rows = table(page)
    assert float(rows[0][1]) < 1e-3 and 2 <= int(rows[1][1]) < 10
    assert abs(float(rows[2][1]) - float(rows[2][2])) < 0.05 and not wrong


def test_points_move_by_hand_and_by_keyboard(start):
    """Dragged while it runs, chosen, moved, added and taken away; the address holds them."""
    page, wrong = start("orientations", "points=-1,0;0,0.5;1,0")
    canvas = page.locator("canvas").nth(1)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    press(page, "Run")
    wait(page, r"Epoch \d\d")
    # The middle of the plot lies at x = 0, y = 0.5: the axes leave 48 pixels on the left, 14 on the right, 24 and 36.
    middle = box["x"] + (48 + box["width"] - 14) / 2, box["y"] + (24 + box["height"] - 36) / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0], middle[1] - 45, steps=3)
    page.mouse.up()
    moved = re.search(r"points=-1,0;0,([\d.]+);1,0$", here(page))
    assert moved and abs(float(moved[1]) - (0.5 + 45 * 2 / (box["height"] - 60))) < 0.03
    assert page.get_by_role("button", name="Pause").count() == 1
    canvas.focus()
    for key in ("ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
    assert "points=-1,0.05;" in here(page)
    page.keyboard.press("+")
    assert here(page).count(";") == 3
    page.keyboard.press("Delete")
    assert here(page).count(";") == 2
    box = canvas.bounding_box()
    page.mouse.dblclick(box["x"] + box["width"] / 2 + 40, box["y"] + box["height"] / 2)
    assert here(page).count(";") == 3
    wait(page, "Epoch")
    press(page, "Pause")
    assert "NaN" not in page.locator("section").inner_text() and not wrong


def test_wrong_points_are_not_taken(start):
    """Too few, too far, no numbers: the chapter's points, and a word about it."""
    for points in ("0,0", "0,0;5,5", "0,0;a,b", "0,0;1", ""):
        page, wrong = start("orientations", f"points={points}")
        wait(page, "default is used")
        assert page.get_by_role("link", name="Link to this setting").get_attribute("href") == "#live-orientations"
        assert not wrong


def test_lazy_and_rich(start):
    """A large start moves as far as theory says, a small one much farther; the start can be dragged."""
    page, wrong = start("lazy", "gamma=0.5&pace=100")
    press(page, "Run")
    wait(page, "lazy.*fitted")
    row = table(page)[1]
    assert abs(float(row[1]) / float(row[2]) - 1) < 0.3
    canvas = page.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    across, up = (box["width"] - 62) / 2.5, (box["height"] - 60) / 2.5
    at = box["x"] + 48 + 0.5 * across, box["y"] + box["height"] - 36 - up
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(at[0] + 1.25 * across, at[1], steps=4)
    page.mouse.up()
    assert "gamma=1.75" in here(page) or "gamma=1.7" in here(page) or "gamma=1.8" in here(page)
    press(page, "Run")
    wait(page, "condensed.*fitted")
    assert float(table(page)[1][1]) > 5 and not wrong
    page, wrong = start("lazy", "m=10&pace=100")
    press(page, "Run")
    wait(page, "Step 20000, .* given up")
    assert page.get_by_role("button", name="Run", exact=True).count() == 1 and not wrong


# ------------------------------------------------------------------ how they get into the pages


def test_experiments_stand_after_their_cell_and_on_the_landing_page():
    """Hidden until a script shows them; scripts in the order they need; no page that does not ask is changed."""
    page = live.place(PAGE.replace("NAME", "lazy"), "../")
    assert (
        '</div></div></div><section class="fl-live" id="live-lazy"' in page.replace("\n", "")
        and " hidden></section>" in page
    )
    assert re.findall(r'<script defer src="([^"]*)">', page) == ["../_static/live-lazy.js"]
    assert page.count("../_static/live.css") == 1
    landing = '<head></head><body><div class="fl-live-here docutils container"><p>Run it</p></div></body>'
    assert '</p></div><section class="fl-live" id="live-langevin"' in live.place(landing, "")
    assert live.place("<head></head><div class='cell docutils container'></div>", "") is None
    with pytest.raises(ValueError, match="no experiment nothing"):
        live.place(PAGE.replace("NAME", "nothing"), "")


def test_a_build_brings_them_to_the_pages_that_ask(tmp_path):
    """A notebook with a tag, a page with a container, a page with neither."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    source, out = tmp_path / "source", tmp_path / "out"
    (source / "notebooks").mkdir(parents=True)
    (source / "index.md").write_text("# One\n\n:::{container} fl-live-here\nTry it.\n:::\n", encoding="utf8")
    (source / "other.md").write_text("# Two\n\nNothing.\n", encoding="utf8")
    output = {"output_type": "stream", "name": "stdout", "text": ["done"]}
    cell = {"cell_type": "code", "execution_count": 1, "metadata": {"tags": ["live-lazy"]}, "source": ["1"],
            "outputs": [output], "id": "a"}  # fmt: skip
    title = {"cell_type": "markdown", "metadata": {}, "source": ["# Three"], "id": "b"}
    notebook = {"cells": [title, cell], "metadata": {"kernelspec": {"name": "python3", "display_name": "Python"}},
                "nbformat": 4, "nbformat_minor": 5}  # fmt: skip
    (source / "notebooks/three.ipynb").write_text(json.dumps(notebook), encoding="utf8")
    settings = {
        "extensions": ["myst_nb", "live"],
        "nb_execution_mode": "off",
        "myst_enable_extensions": ["colon_fence"],
    }
    with docutils_namespace():
        Sphinx(source, None, out, tmp_path / "trees", "html", settings, status=None, warning=None).build()
    one, two, three = ((out / name).read_text("utf8") for name in ("index.html", "other.html", "notebooks/three.html"))
    assert 'src="_static/live-langevin.js"' in one and 'id="live-langevin"' in one and "live" not in two
    assert 'src="../_static/live-lazy.js"' in three and three.index("done") < three.index('id="live-lazy"')
    assert {p.name for p in (out / "_static").glob("live*")} == {"live.css", *(f"live-{name}.js" for name in NAMES)}


def test_short_scripts_are_the_same_scripts():
    """Strings stay as they are, names of properties too; blanks stay where they mean something."""
    long = """// one
    var first = "a  b // c", second = 'it "is"'; /* two */
    var third = (value) => ({ first: value - -first.length + +second, other: [third] });"""
    short = live.short_script(long)
    assert '"a  b // c"' in short and "'it \"is\"'" in short and "- -" in short and "+ +" in short
    assert ".length" in short and "third" not in short and "first" not in short and len(short) < 0.7 * len(long)
    for script in sorted(LIVE.glob("*.js")):
        code = re.sub(r"//[^\n]*|\"[^\"\n]*\"|'[^'\n]*'", "", script.read_text(encoding="utf8"))
        assert "`" not in code and not re.search(r"[(=,:] */", code), f"{script.name}: a template or regular expression"
