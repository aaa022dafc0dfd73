// The experiment with a hundred ReLU neurons on points that a reader can move.
"use strict";

(() => {
  var section = document.getElementById("live-orientations"), pi = Math.PI, chosen = 0;
  if (!section) return;

  // Points as text, x,y;x,y as in the address; "chapter" is the data of chapter 12.
  var relu = (v) => Math.max(0, v);
  var target = (x) => relu(2 * (x + 0.3)) - relu(x) - relu(1.5 * (x - 0.4)) + relu(0.5 * (x - 0.8));
  var points = (text) => {
    if (text !== "chapter") return text.split(";").map((p) => p.split(",").map(Number));
    return line(41, (x) => [x, target(x)]);
  };
  var between = (v, low, high) => Math.min(high, Math.max(low, Math.round(v * 100) / 100));
  var write = (list) => ({ points: list.map(([x, y]) => between(x, -1, 1) + "," + between(y, -0.5, 1.5)).join(";") });
  var read = (text) => {
    var list = points(text);
    var good = list.length > 1 && list.length < 61 && list.every(([x, y]) => Math.abs(x) <= 1 && y >= -0.5 && y <= 1.5);
    return good ? text : undefined;
  };

  var fresh = (p, state) => {
    var list = points(state.points).sort((a, b) => a[0] - b[0]);
    return flLive.descent(p, Float64Array.from(list, (q) => q[0]), Float64Array.from(list, (q) => q[1]), state.eta);
  };
  var line = (n, f) => Array.from({ length: n }, (_, i) => f((2 * i) / (n - 1) - 1));
  var pulls = (run) => line(361, (t) => [t * pi, flLive.pull(run, t * pi)]);
  var peak = (list) => list.reduce((best, p) => (Math.abs(p[1]) > Math.abs(best[1]) ? p : best))[0];
  var angle = (p, k) => Math.atan2(p[3 * k + 1], p[3 * k]), size = (p, k) => Math.hypot(p[3 * k], p[3 * k + 1]);

  var make = (state) => {
    var p = flLive.random(state.seed).fill(new Float64Array(3 * state.m)).map((v) => v * Math.pow(state.m, -state.gamma));
    var sim = { run: fresh(p, state), seen: flLive.series(), centre: NaN };
    flLive.residuals(sim.run);
    sim.first = peak(pulls(sim.run));
    return sim;
  };

  flLive.show(section, {
    title: "A hundred neurons, few directions",
    question: "From a small start, how many directions will a hundred neurons need?",
    choices: ["2", "5 or 6", "about 50"],
    answer: "On the chapter's points one, then three, in the end five or six. From a large start more than ten.",
    seen: 10000,
    lower: "Lower the step.",
    params: {
      gamma: { label: "small start, γ", min: 0, max: 3, step: 0.1, value: 2, },
      m: { label: "neurons m", min: 5, max: 300, step: 5, value: 100, whole: 1 },
      eta: { label: "step η", min: 0.01, max: 10, value: 0.1, log: 1, live: 1 },
      seed: { label: "seed", min: 0, max: 99, value: 0, whole: 1 },
      pace: { label: "epochs a picture", min: 1, max: 5000, value: 50, log: 1, whole: 1, live: 1 },
      points: { value: "chapter", read: read }
    },
    presets: {
      "The chapter's points": {},
      "Large start": { gamma: 0.5 },
      "Zigzag": { points: "-1,0;-0.5,1;0,0;0.5,1;1,0" }
    },
    make: make,
    change: (sim, state) => (sim.run = fresh(sim.run.p, state)),
    step: (sim) => {
      var done = flLive.epoch(sim.run), p = sim.run.p, s, sum = 0, all = 0;
      if (!done) return done;
      sim.seen.add(sim.t + 1, sim.run.loss);
      if (sim.t === 49) {
        s = flLive.strength(sim.run);
        s.forEach((v, k) => p[3 * k + 2] > 0 && ((all += v), (sum += v * angle(p, k))));
        sim.centre = sum / all;
      }
      return done;
    },
    status: (sim) => "Epoch " + sim.t + ": " + flLive.directions(sim.run, 0.05).length + " directions, loss " + flLive.text(flLive.residuals(sim.run)) + ".",
    numbers: (sim) => {
      return [
        ["loss", flLive.residuals(sim.run), NaN],
        ["directions", flLive.directions(sim.run, 0.05).length, NaN],
        ["angle θ, epoch 50", sim.centre, sim.first],
      ];
    },
    panels: [{
      label: "Direction and amplitude of every neuron; open: negative output weight; dashed: the pull",
      draw: (pen, sim) => {
        var p = sim.run.p, s = flLive.strength(sim.run), most = Math.max(...s), top = 1e-9, m = s.length;
        for (var k = 0; k < m; k++) top = Math.max(top, 1.15 * size(p, k));
        flLive.residuals(sim.run);
        var c = pulls(sim.run), high = Math.max(1e-12, ...c.map((q) => Math.abs(q[1])));
        pen.axes({ x: [-pi, pi], y: [0, top], title: "directions (dashed: pull)", xlabel: "direction θ" });
        pen.line(c.map((q) => [q[0], top * (0.5 + (0.45 * q[1]) / high)]), "grey", 1);
        for (var on of [0, 1])
          pen.dots(m, (k) => (s[k] > 0.01 * most === !!on ? angle(p, k) : NaN), (k) => size(p, k), on ? "one" : "grey", 2 + on, (k) => p[3 * k + 2] < 0);
      }
    }, {
      label: "Points and answer. Left and right choose a point, up and down move it, plus or a double click adds one, Delete removes it",
      live: 1,
      draw: (pen, sim, state) => {
        var list = points(state.points), run = sim.run;
        pen.axes({ x: [-1.05, 1.05], y: [-0.5, 1.5], title: "drag a point", xlabel: "input x" });
        pen.dots(list.length, (i) => list[i][0], (i) => list[i][1], "two", 4);
        pen.dots(1, () => list[chosen % list.length][0], () => list[chosen % list.length][1], "ink", 7, () => 1);
        pen.line(line(201, (x) => {
          for (var f = 0, k = 0; k < run.p.length; k += 3) f += run.p[k + 2] * relu(run.p[k] * x + run.p[k + 1]);
          return [x, f];
        }), "one");
      },
      find: (state, pen, [x, y]) => points(state.points).findIndex((p) => Math.hypot(pen.X(p[0]) - x, pen.Y(p[1]) - y) < 14),
      hold: (state, i, xy) => {
        var list = points(state.points);
        list[(chosen = i)] = xy;
        return write(list);
      },
      add: (state, xy) => write(points(state.points).slice(0, 59).concat([xy])),
      key: (state, key) => {
        var list = points(state.points), n = list.length, at = (chosen %= n), turn = { ArrowLeft: n - 1, ArrowRight: 1 }[key], up = { ArrowUp: 0.05, ArrowDown: -0.05 }[key];
        if (turn) chosen = (at + turn) % n;
        else if (up) list[at] = [list[at][0], list[at][1] + up];
        else if (key === "+" && n < 60) list.splice(at + 1, 0, [(list[at][0] + (list[at + 1] || [1])[0]) / 2, list[at][1]]);
        else if (key === "Delete" && n > 2) list.splice(at, 1);
        else return;
        var [x, y] = list[chosen % list.length];
        return [turn ? {} : write(list), "Point at " + flLive.text(x) + ", " + flLive.text(y) + "."];
      }
    }, {
      label: "Loss, epoch",
      draw: (pen, sim) => {
        pen.axes({ x: [1, Math.max(100, sim.t)], y: [1e-5, 1], logx: 1, logy: 1, title: "loss", xlabel: "epoch" });
        pen.line(sim.seen.column(1), "two");
      }
    }]
  });
})();
