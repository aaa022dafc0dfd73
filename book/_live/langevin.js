// Mean-field Langevin dynamics on the k-sparse parity: the step of feature_learning.mfld, in plain loops.
"use strict";

// n inputs of length one with a 1 appended, and the sign of the product of their first k coordinates.
flLive.parity = (n, d, k, rng) => {
  var z = new Float64Array(n * (d + 1)), y = new Float64Array(n);
  for (var j = 0; j < n; j++) {
    y[j] = 1;
    for (var c = 0; c < d; c++) {
      var sign = rng.uniform() < 0.5 ? -1 : 1;
      z[j * (d + 1) + c] = sign / Math.sqrt(d);
      if (c < k) y[j] *= sign;
    }
    z[j * (d + 1) + d] = 1;
  }
  return { z: z, y: y, n: n };
};

// A cloud of N particles (w, b, c) in rows, on given data. What a step may change stands in the object that comes back.
flLive.cloud = (particles, N, data, settings) => {
  var n = data.n, width = particles.length / N;
  return {
    particles: particles, next: new Float64Array(particles.length), N: N, width: width, data: data,
    hidden: new Float64Array(N * n), output: new Float64Array(n), slope: new Float64Array(n),
    eta: settings.eta, heat: settings.heat, decay: settings.decay, scale: settings.scale, step: 0, first: 0, loss: 0
  };
};

// The network's answers on some data; hidden values are kept if there is room for them. (The inner line is tanh, good to
// 1e-16 and faster than Math.tanh.)
flLive.answers = (cloud, data, output, hidden) => {
  var x = cloud.particles, z = data.z, n = data.n, width = cloud.width, dim = width - 1, offsets = 0;
  output.fill(0);
  for (var i = 0; i < cloud.N; i++) {
    var row = i * width, at = 0;
    for (var j = 0; j < n; j++) {
      var s = 0;
      for (var c = 0; c < dim; c++) s += x[row + c] * z[at++];
      s = 1 - 2 / (1 + Math.exp(2 * s));
      if (hidden) hidden[i * n + j] = s;
      output[j] += s;
    }
    offsets += Math.tanh(x[row + dim]);
  }
  for (j = 0; j < n; j++) output[j] = ((cloud.scale / 3) * (output[j] + 2 * offsets)) / cloud.N;
  return output;
};

// One step with the given noise. False if it diverges; the particles are then those before the step.
flLive.langevin = (cloud, noise) => {
  var x = cloud.particles, next = cloud.next, h = cloud.hidden, s = cloud.slope, data = cloud.data;
  var n = data.n, y = data.y, z = data.z, width = cloud.width, dim = width - 1, third = cloud.scale / 3;
  var eta = cloud.eta, shrink = 2 * cloud.heat * cloud.decay, kick = Math.sqrt(2 * cloud.heat * eta);
  var f = flLive.answers(cloud, data, cloud.output, h), loss = 0, sum = 0;
  for (var j = 0; j < n; j++) {
    var margin = y[j] * f[j];
    loss += Math.max(-margin, 0) + Math.log1p(Math.exp(-Math.abs(margin)));
    s[j] = -y[j] / (1 + Math.exp(margin)) / n;
    sum += s[j];
  }
  loss /= n;
  if (!cloud.step) cloud.first = Math.max(loss, Math.LN2);
  // The package's two signs of a step that is too large, and numbers too large for any picture.
  var good = loss <= 6 * cloud.first + (3 * cloud.scale) / Math.sqrt(cloud.N) && Math.abs(2 * third * eta * sum) <= 50;
  var pull = new Float64Array(dim);
  for (var i = 0; good && i < cloud.N; i++) {
    var row = i * width, at = 0, t = Math.tanh(x[row + dim]);
    pull.fill(0);
    for (j = 0; j < n; j++) {
      var v = h[i * n + j], g = (1 - v * v) * s[j];
      for (var c = 0; c < dim; c++) pull[c] += g * z[at++];
    }
    for (c = 0; c < width; c++) {
      var drift = third * (c < dim ? pull[c] : 2 * (1 - t * t) * sum) + shrink * x[row + c];
      v = next[row + c] = x[row + c] - eta * drift + kick * noise[row + c];
      if (!(Math.abs(v) < 1e6)) good = false;
    }
  }
  if (!good) return false;
  cloud.next = x;
  cloud.particles = next;
  cloud.loss = loss;
  cloud.step++;
  return true;
};
