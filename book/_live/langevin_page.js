// The experiment with Langevin particles: what is asked, shown and compared.
"use strict";

(() => {
  var section = document.getElementById("live-langevin"), R = 15, decay = 0.1;
  if (!section) return;

  var heat = (sim, state) => (state.halve ? state.heat * Math.pow(0.5, Math.floor(sim.t / state.halve)) : state.heat);
  var settings = (sim, state) => ({ eta: state.eta, heat: heat(sim, state), decay: decay, scale: state.scale });

  var make = (state) => {
    var N = state.N, d = state.d, k = state.k, rng = flLive.random(state.seed), data = flLive.parity(state.n, d, k, rng);
    var start = rng.fill(new Float64Array(N * (d + 2)));
    return {
      t: 0, rng: rng, noise: start.slice(), test: flLive.parity(300, d, k, rng), answers: new Float64Array(300),
      cloud: flLive.cloud(start, N, data, settings({ t: 0 }, state)), free: 1, right: NaN, margin: NaN, seen: flLive.series()
    };
  };

  var judge = (sim) => {
    var f = flLive.answers(sim.cloud, sim.test, sim.answers), y = sim.test.y;
    sim.right = f.filter((v, j) => v * y[j] > 0).length / 300;
    sim.margin = f.reduce((sum, v, j) => sum + v * y[j], 0) / 300;
  };

  // The variance of the weights of inputs i to j.
  var variance = (cloud, i, j) => {
    for (var row = 0, sum = 0, square = 0, x = cloud.particles; row < x.length; row += cloud.width)
      for (var c = i; c < j; c++) (sum += x[row + c]), (square += x[row + c] * x[row + c]);
    var n = cloud.N * (j - i);
    return square / n - (sum / n) * (sum / n);
  };

  var picture = (title, i) => ({
    label: title + " weights, one dot a particle",
    draw: (pen, sim, state) => {
      var cloud = sim.cloud, x = cloud.particles, width = cloud.width, far = 4, a = i ? state.k : 0, b = i ? state.d - 1 : 1;
      while (far < 1.6 * Math.sqrt(variance(cloud, 0, state.k)) || far < 2.5 * Math.sqrt(variance(cloud, state.k, state.d))) far *= 2;
      pen.axes({ x: [-far, far], y: [-far, far], title: title + ": w" + (b + 1) + " against w" + (a + 1), xlabel: "weight w" + (a + 1) });
      pen.dots(cloud.N, (p) => x[p * width + a], (p) => x[p * width + b], i ? "grey" : "two", 2);
    }
  });

  // No cloud has a mean margin above this; see the theorem on parities of k inputs.
  var bound = (state) => (state.scale / 3) * [1, 0.5, 0.5, 0.375, 0.375][state.k - 1];

  flLive.show(section, {
    title: "Noisy particles learn a parity",
    question: "At which temperature do the arms of the cloud dissolve, and the answers with them?",
    choices: ["0.001", "0.01", "0.1"],
    answer: "At about 0.1, for two of ten inputs: the arms are gone, and some answers are wrong. At 0.05 the arms are broad and the answers still right. Cool again, and the arms come back.",
    seen: 300,
    lower: "Lower the step.",
    params: {
      heat: { label: "temperature λ", min: 1e-4, max: 1, value: 2e-4, log: 1, live: 1 },
      eta: { label: "step η", min: 0.01, max: 100, value: 0.2, log: 1, live: 1 },
      halve: { label: "halve λ every", min: 0, max: 1000, step: 50, value: 0, whole: 1, live: 1 },
      scale: { label: "output scale R", min: 1, max: 50, value: R, whole: 1 },
      N: { label: "particles N", min: 10, max: 800, step: 10, value: 500, whole: 1 },
      n: { label: "examples n", min: 10, max: 300, step: 10, value: 200, whole: 1 },
      d: { label: "inputs d", min: 3, max: 20, value: 10, whole: 1 },
      k: { label: "that matter, k", min: 1, max: 5, value: 2, whole: 1 },
      seed: { label: "seed", min: 0, max: 99, value: 0, whole: 1 },
      pace: { label: "steps a picture", min: 1, max: 50, value: 5, whole: 1, live: 1 }
    },
    presets: {
      "Before and after": {},
      "Twenty inputs": { d: 20, n: 300, N: 800 },
      "Annealing": { heat: 0.1, halve: 300 },
      "Too hot": { heat: 0.1 },
      "Three inputs matter": { k: 3, n: 300 }
    },
    fit: (state) => (state.k = Math.min(state.k, state.d - 2)),
    make: make,
    change: () => {},
    step: (sim, state) => {
      Object.assign(sim.cloud, settings(sim, state));
      if (!flLive.langevin(sim.cloud, sim.rng.fill(sim.noise))) return false;
      var shrink = 1 - 2 * state.eta * sim.cloud.heat * decay;
      sim.free = shrink * shrink * sim.free + 2 * sim.cloud.heat * state.eta;
      if (sim.t % 10 === 9) {
        judge(sim);
        sim.seen.add((sim.t + 1) / 10, sim.cloud.loss, sim.right);
      }
      return true;
    },
    status: (sim, state) => {
      judge(sim);
      return "Step " + sim.t + ", temperature " + flLive.text(heat(sim, state)) + ": " + Math.round(100 * sim.right) + " % of fresh answers right.";
    },
    numbers: (sim, state) => [
      ["training loss", sim.t ? sim.cloud.loss : NaN, "above " + flLive.text(Math.log1p(Math.exp(-bound(state))))],
      ["mean margin, fresh inputs", sim.margin, "below " + flLive.text(bound(state))],
      ["variance, relevant weights", variance(sim.cloud, 0, state.k), NaN],
      ["variance, others", variance(sim.cloud, state.k, state.d), "without loss " + flLive.text(sim.free)]
    ],
    panels: [picture("relevant", 0), picture("irrelevant", 1), {
      label: "Training loss and share of right answers against the step",
      draw: (pen, sim, state) => {
        var ten = (i) => sim.seen.column(i).map((p) => [10 * p[0], p[1]]), last = Math.max(100, sim.t), floor = Math.log1p(Math.exp(-bound(state)));
        pen.axes({ x: [0, last], y: [0, 1.05], title: "loss and accuracy", xlabel: "step" });
        pen.line([[0, floor], [last, floor]], "ink", 1);
        pen.line(ten(1), "two");
        pen.line(ten(2), "three");
        pen.say(0.04 * last, floor + 0.02, "floor of the loss", "ink");
        pen.say(0.6 * last, 0.9, "accuracy", "three");
        pen.say(0.6 * last, 0.45, "loss", "two");
      }
    }]
  });
})();
