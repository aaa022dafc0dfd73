// The experiment with two exponents: which start is lazy, which is rich?
"use strict";

(() => {
  var section = document.getElementById("live-lazy");
  if (!section) return;
  var x = [-1, -0.6, -0.2, 0.2, 0.6, 1], y = Float64Array.from([0, 0, 0.2, 0.8, 0.9, 0.8]);
  var inputs = Float64Array.from(x.flatMap((v) => [v, 1]));

  // RD is of order m^p; at gamma' = 0 and gamma < 1 the constant in front is known (chapter 15).
  var power = (g, h) => {
    if (g <= 1) return g - 1 - 2 * Math.max(h, 0);
    if (h >= g - 1) return 2 * (g - 1 - h);
    return h <= 1 - g ? g - 1 : (g - 1 - h) / 2;
  };
  var told = (state) => {
    return (state.prime || state.gamma >= 1 ? 1 : 0.65) * Math.pow(state.m, power(state.gamma, state.prime));
  };
  var kind = (state) => {
    var p = power(state.gamma, state.prime);
    return Math.abs(p) < 1e-9 ? "critical" : p < 0 ? "lazy" : "condensed";
  };

  flLive.show(section, {
    title: "Lazy or rich: two exponents decide",
    question: "A larger γ makes the output smaller. Will the input weights then move less or more?",
    choices: ["less", "as far", "more"],
    answer: "More: a small network has to grow before it fits, and on the way its first features are lost. Left of the line they stay.",
    seen: 50,
    lower: "",
    params: {
      gamma: { label: "output factor, γ", min: 0, max: 2.5, step: 0.05, value: 0.5 },
      prime: { label: "layer ratio, γ'", min: -1, max: 1.5, step: 0.05, value: 0 },
      m: { label: "neurons m", min: 10, max: 1000, step: 10, value: 300, whole: 1 },
      seed: { label: "seed", min: 0, max: 99, value: 0, whole: 1 },
      pace: { label: "steps a picture", min: 1, max: 100, value: 2, whole: 1, live: 1 }
    },
    presets: {
      "NTK": {},
      "Mean field, Xavier": { gamma: 1 },
      "Condensed": { gamma: 1.75 },
      "He, LeCun": { prime: 0.5 }
    },
    fit: (state) => (state.m += state.m % 2),
    make: (state) => {
      var start = flLive.pairs(state.m, 2, flLive.random(state.seed));
      var flow = flLive.flow(start.a, start.w, inputs, y, Math.pow(state.m, -state.gamma), Math.pow(state.m, -state.prime));
      return { flow: flow, tangent: flLive.tangent(flow), seen: flLive.series() };
    },
    change: () => {},
    // As the package does, give up after 20,000 steps: a few neurons may not fit all points.
    done: (sim) => sim.flow.relative <= 0.01 || sim.t >= 20000,
    step: (sim) => {
      var flow = sim.flow, good = flLive.forward(flow);
      if (good) {
        sim.kernel = flLive.moved(flLive.tangent(flow), sim.tangent);
        sim.far = flLive.moved(flow.w, flow.start);
        sim.seen.add(sim.t + 1, sim.far, sim.kernel);
      }
      return good;
    },
    status: (sim, state) => "Step " + sim.t + ", " + kind(state) + ": the weights moved by " + flLive.text(sim.far) + " times their length" +
      (sim.flow.relative <= 0.01 ? "; the points are fitted." : sim.t < 20000 ? "." : "; given up."),
    numbers: (sim, state) => [
      ["loss, share of its start", sim.flow.relative, "ends at 0.01"],
      ["weights moved, RD", sim.far, (state.prime || state.gamma >= 1 ? "of order " : "") + flLive.text(told(state))],
      ["tangent kernel moved", sim.kernel, NaN],
      ["regime", kind(state), "p = " + flLive.text(power(state.gamma, state.prime))]
    ],
    panels: [{
      label: "The plane of starts with its boundary; drag the dot, or use the sliders",
      draw: (pen, sim, state) => {
        pen.axes({ x: [0, 2.5], y: [-1, 1.5], title: "drag the start", xlabel: "γ (upwards: γ')" });
        pen.line([[1, -1], [1, 0], [2.5, 1.5]], "ink", 1);
        pen.say(0.1, 1.2, "lazy", "grey");
        pen.say(1.5, -0.6, "rich", "grey");
        pen.dots(1, () => state.gamma, () => state.prime, "two", 7);
      },
      find: (state, pen, at) => (Math.hypot(pen.X(state.gamma) - at[0], pen.Y(state.prime) - at[1]) < 20 ? 0 : -1),
      hold: (state, i, at) => {
        var snap = (v, low, high) => Math.min(high, Math.max(low, Math.round(v * 20) / 20));
        return { gamma: snap(at[0], 0, 2.5), prime: snap(at[1], -1, 1.5) };
      }
    }, {
      label: "Direction and amplitude of every neuron: grey at the start, blue now",
      draw: (pen, sim) => {
        var flow = sim.flow, m = flow.m, top = 4;
        var size = (w, k) => Math.hypot(w[k], w[m + k]);
        for (var k = 0; k < m; k++) top = Math.max(top, 1.1 * size(flow.w, k));
        pen.axes({ x: [-Math.PI, Math.PI], y: [0, top], title: "features (grey: start)", xlabel: "direction θ" });
        for (var w of [flow.start, flow.w]) pen.dots(m, (k) => Math.atan2(w[m + k], w[k]), (k) => size(w, k), w === flow.w ? "one" : "grey", 2);
      }
    }, {
      label: "How far weights and kernel have moved, against the step, both logarithmic",
      draw: (pen, sim, state) => {
        var last = Math.max(100, sim.t), size = told(state);
        pen.axes({ x: [1, last], y: [1e-3, 1e3], logx: 1, logy: 1, title: "moved, relative to start", xlabel: "step" });
        pen.line([[1, size], [last, size]], "ink", 1);
        pen.line(sim.seen.column(1), "two");
        pen.line(sim.seen.column(2), "three");
        pen.say(1.2, 300, "weights", "two");
        pen.say(1.2, 80, "kernel", "three");
      }
    }]
  });
})();
