// Two-layer ReLU networks between lazy and rich: the flow of feature_learning.flow for one network.
"use strict";

// a: (m), w: (dim, m) row by row, inputs: (n, dim) with the bias last; kappa = m^-gamma, ratio = m^-gamma'.
flLive.flow = (a, w, inputs, y, kappa, ratio) => {
  var m = a.length, n = y.length, dim = inputs.length / n;
  return {
    a: a, w: w, inputs: inputs, y: y, m: m, n: n, dim: dim, kappa: kappa, ratio: ratio, fraction: 0.5, step: 0, time: 0,
    start: w.slice(), on: new Float64Array(m * n), errors: new Float64Array(n), pulls: new Float64Array(dim * m),
    da: new Float64Array(m), dw: new Float64Array(dim * m), top: 0, size: 0, age: 0, relative: 1
  };
};

// Neurons k and k + m/2 share their input weights and have opposite output weights, so f = 0.
flLive.pairs = (m, dim, rng) => {
  var a = new Float64Array(m), w = new Float64Array(dim * m), half = m / 2;
  for (var row = 0; row <= dim; row++)
    for (var k = 0; k < half; k++) {
      var v = rng.normal();
      if (row) w[(row - 1) * m + k] = w[(row - 1) * m + half + k] = v;
      else a[half + k] = -(a[k] = v);
    }
  return { a: a, w: w };
};

flLive.before = (flow, k, j) => {
  for (var s = 0, c = 0; c < flow.dim; c++) s += flow.w[c * flow.m + k] * flow.inputs[j * flow.dim + c];
  return s;
};

// Errors, pulls, and the two velocities.
flLive.velocity = (flow) => {
  var m = flow.m, n = flow.n, dim = flow.dim, x = flow.inputs, e = flow.errors, v = flow.pulls, square = 0, total = 0;
  e.fill(0);
  v.fill(0);
  for (var k = 0; k < m; k++)
    for (var j = 0; j < n; j++) {
      var s = flLive.before(flow, k, j);
      flow.on[k * n + j] = s > 0 ? 1 : 0;
      if (s > 0) e[j] += flow.a[k] * s;
    }
  for (j = 0; j < n; j++) {
    e[j] = flow.kappa * e[j] - flow.y[j];
    square += e[j] * e[j];
    total += flow.y[j] * flow.y[j];
  }
  flow.relative = square / total;
  for (k = 0; k < m; k++) {
    var rate = 0;
    for (var c = 0; c < dim; c++) {
      for (j = 0, s = 0; j < n; j++) s += flow.on[k * n + j] * e[j] * x[j * dim + c];
      v[c * m + k] = s /= n;
      flow.dw[c * m + k] = -flow.ratio * flow.a[k] * s;
      rate -= flow.w[c * m + k] * s;
    }
    flow.da[k] = rate / flow.ratio;
  }
};

// The tangent kernel, (n, n).
flLive.tangent = (flow) => {
  var n = flow.n, dim = flow.dim, x = flow.inputs, kernel = new Float64Array(n * n), h = new Float64Array(n);
  for (var k = 0; k < flow.m; k++) {
    for (var j = 0; j < n; j++) h[j] = Math.max(0, flLive.before(flow, k, j));
    for (var i = 0; i < n; i++)
      for (j = 0; j < n; j++)
        if (h[i] && h[j]) {
          for (var dot = 0, c = 0; c < dim; c++) dot += x[i * dim + c] * x[j * dim + c];
          kernel[i * n + j] += flow.kappa * (flow.ratio * flow.a[k] * flow.a[k] * dot + (h[i] * h[j]) / flow.ratio);
        }
  }
  return kernel;
};

// The largest eigenvalue of a symmetric matrix without negative ones: squared over and over, it becomes a projector.
flLive.largest = (kernel, n) => {
  var power = kernel;
  for (var round = 0; round < 50; round++) {
    var trace = 0, square = new Float64Array(n * n);
    for (var i = 0; i < n; i++) trace += power[i * n + i];
    if (!trace) return 0;
    for (i = 0; i < n; i++)
      for (var j = 0; j < n; j++)
        for (var l = 0; l < n; l++) square[i * n + j] += (power[i * n + l] / trace) * (power[l * n + j] / trace);
    power = square;
  }
  for (i = 0, trace = 0, l = 0; i < n * n; i++) {
    l += power[i] * kernel[i];
    if (i % (n + 1) === 0) trace += power[i];
  }
  return l / trace;
};

// One step, as long as the flow allows; `eta` only for tests. False if it overflows; the weights then stay as they are.
flLive.forward = (flow, eta) => {
  var m = flow.m, size = 0, fastest = 0, k, c;
  flLive.velocity(flow);
  for (k = 0; k < m; k++) {
    var v = 0, w = 0;
    for (c = 0; c < flow.dim; c++) {
      v += flow.pulls[c * m + k] * flow.pulls[c * m + k];
      w += flow.w[c * m + k] * flow.w[c * m + k];
    }
    fastest = Math.max(fastest, v);
    size += flow.ratio * flow.a[k] * flow.a[k] + w / flow.ratio;
  }
  if (!(flow.relative < 1e12 && size < 1e150)) return false;
  if (Math.abs(size - flow.size) > 0.05 * flow.size || flow.age >= 50) {
    flow.top = flLive.largest(flLive.tangent(flow), flow.n);
    flow.size = size;
    flow.age = 0;
  }
  var rate = flow.top / flow.n + Math.sqrt(fastest);
  if (eta === undefined) eta = rate > 0 ? flow.fraction / rate : 0;
  function far(v) {
    return !(Math.abs(eta * v) < 1e75);
  }
  if (flow.da.some(far) || flow.dw.some(far)) return false;
  for (k = 0; k < m; k++) flow.a[k] += eta * flow.da[k];
  for (k = 0; k < flow.w.length; k++) flow.w[k] += eta * flow.dw[k];
  flow.time += eta;
  flow.step++;
  flow.age++;
  return true;
};

// How far the input weights, or a kernel, have gone, in units of their length at the start.
flLive.moved = (now, start) => {
  var far = 0, long = 0;
  for (var i = 0; i < now.length; i++) {
    far += (now[i] - start[i]) * (now[i] - start[i]);
    long += start[i] * start[i];
  }
  return Math.sqrt(far / long);
};
