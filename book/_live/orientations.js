// A hundred ReLU neurons on points in one dimension, by gradient descent: the run of chapter 12.
"use strict";

// Points sorted by x; neurons are rows (w, b, a). On sorted points a neuron is on from some point on, or up to some
// point, so sums over what it sees are differences of running sums, and an epoch takes m + n operations, not m n.
flLive.descent = (p, x, y, eta) => {
  var n = x.length, m = p.length / 3;
  return {
    p: p, x: x, y: y, eta: eta, edge: new Int32Array(m), jump: new Float64Array(2 * n + 2),
    sum: new Float64Array(2 * n + 2), residual: new Float64Array(n), loss: NaN
  };
};

// The residuals and their running sums; the loss goes into `loss`.
flLive.residuals = (run) => {
  var p = run.p, x = run.x, n = x.length, m = p.length / 3, jump = run.jump, sum = run.sum, loss = 0;
  jump.fill(0);
  for (var k = 0; k < m; k++) {
    var w = p[3 * k], b = p[3 * k + 1], a = p[3 * k + 2], e = run.edge[k];
    if (w > 0) {
      while (e > 0 && w * x[e - 1] + b > 0) e--;
      while (e < n && !(w * x[e] + b > 0)) e++;
      jump[2 * e] += a * w;
      jump[2 * e + 1] += a * b;
    } else {
      while (e < n && w * x[e] + b > 0) e++;
      while (e > 0 && !(w * x[e - 1] + b > 0)) e--;
      if (e) {
        jump[0] += a * w;
        jump[1] += a * b;
        jump[2 * e] -= a * w;
        jump[2 * e + 1] -= a * b;
      }
    }
    run.edge[k] = e;
  }
  var slope = 0, height = 0;
  for (var j = 0; j < n; j++) {
    slope += jump[2 * j];
    height += jump[2 * j + 1];
    var r = (run.residual[j] = run.y[j] - (slope * x[j] + height));
    sum[2 * j + 2] = sum[2 * j] + r * x[j];
    sum[2 * j + 3] = sum[2 * j + 1] + r;
    loss += r * r;
  }
  run.loss = loss / n;
  return run.loss;
};

// What a neuron sees of the residuals: the sums of r x and of r, by running sums.
flLive.seen = (run, k, i) => {
  var n = run.x.length, e = run.edge[k];
  return run.p[3 * k] > 0 ? run.sum[2 * n + i] - run.sum[2 * e + i] : run.sum[2 * e + i];
};

// One epoch. False if it diverges; the neurons then stay as they are.
flLive.epoch = (run) => {
  if (!(flLive.residuals(run) < 1e6)) return false;
  var p = run.p, rate = (2 * run.eta) / run.x.length;
  for (var k = 0; k < p.length; k += 3) {
    var w = p[k], b = p[k + 1], a = p[k + 2], s = flLive.seen(run, k / 3, 0), t = flLive.seen(run, k / 3, 1);
    p[k] += rate * a * s;
    p[k + 1] += rate * a * t;
    p[k + 2] += rate * (w * s + b * t);
  }
  return true;
};

// Which neurons answer: their strength, the root mean square of what each adds to the answers.
flLive.strength = (run) => {
  var p = run.p, strengths = new Float64Array(p.length / 3);
  for (var k = 0; k < strengths.length; k++) {
    var sum = 0;
    for (var j = 0; j < run.x.length; j++) {
      var h = p[3 * k + 2] * Math.max(0, p[3 * k] * run.x[j] + p[3 * k + 1]);
      sum += h * h;
    }
    strengths[k] = Math.sqrt(sum / run.x.length);
  }
  return strengths;
};

// Directions of the active neurons, in groups no wider than `same`, as chapter 12 makes them (complete linkage): on a
// circle only neighbours can be the next to join.
flLive.directions = (run, same) => {
  var s = flLive.strength(run), top = Math.max(...s), groups = [];
  for (var k = 0; k < s.length; k++)
    if (s[k] > 0.01 * top) groups.push([Math.atan2(run.p[3 * k + 1], run.p[3 * k]), 0]);
  groups.sort((a, b) => a[0] - b[0]);
  for (;;) {
    var best = same, at = -1;
    for (var i = 0; groups.length > 1 && i < groups.length; i++) {
      var right = groups[(i + 1) % groups.length], turn = (right[0] - groups[i][0] + 4 * Math.PI) % (2 * Math.PI);
      if (turn + right[1] <= best) {
        best = turn + right[1];
        at = i;
      }
    }
    if (at < 0) break;
    groups[at][1] = best;
    groups.splice((at + 1) % groups.length, 1);
  }
  return groups.map((g) => g[0] + g[1] / 2);
};

// The pull on a unit neuron at angle theta, c = mean of r max(0, x cos + sin).
flLive.pull = (run, theta) => {
  var w = Math.cos(theta), b = Math.sin(theta), c = 0;
  for (var j = 0; j < run.x.length; j++) c += run.residual[j] * Math.max(0, w * run.x[j] + b);
  return c / run.x.length;
};
