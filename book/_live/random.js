// Random numbers from a seed: sfc32 (C. Doty-Humphrey), and Box and Muller's normal numbers. No page is needed here.
"use strict";
var flLive = {};

flLive.random = (seed) => {
  var a = 0x9e3779b9, b = 0x243f6a88, c = seed >>> 0, count = 1, spare = null;
  function word() {
    var t = (((a + b) | 0) + count) | 0;
    count = (count + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + t) | 0;
    return t >>> 0;
  }
  for (var i = 0; i < 20; i++) word();
  function uniform() {
    return (word() + 0.5) / 4294967296;
  }
  function normal() {
    if (spare !== null) {
      var kept = spare;
      spare = null;
      return kept;
    }
    var size = Math.sqrt(-2 * Math.log(uniform())), turn = 2 * Math.PI * uniform();
    spare = size * Math.sin(turn);
    return size * Math.cos(turn);
  }
  function fill(array) {
    for (var i = 0; i < array.length; i++) array[i] = normal();
    return array;
  }
  return { uniform: uniform, normal: normal, fill: fill };
};
