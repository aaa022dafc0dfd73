// What every experiment shares: controls, the state in the address, the loop, and a pen for small plots.
"use strict";

flLive.show = (section, spec) => {
  var id = section.id, P = spec.params, keys = Object.keys(P), still = matchMedia("(prefers-reduced-motion: reduce)");
  var state, sim, good, notice = "", running = false, guessed, total = 0, spoken = -9999, drawn = 0, told = 0, timer;

  var put = Object.assign, clock = () => performance.now();

  // ---- the markup; nothing in it comes from the address
  var list = (all, f) => all.map(f).join("");
  section.innerHTML =
    '<p><strong>' + spec.title + "</strong></p><fieldset><legend>" + spec.question + "</legend>" +
    list(spec.choices, (c) => '<label><input type="radio" name="' + id + '"> ' + c + "</label> ") +
    "</fieldset><p hidden>" + spec.answer + '</p><div class="bar">' +
    list(["Run", "Step", "Start again", "Last good setting"], (b) => "<button>" + b + "</button>") +
    "<label>Preset <select><option></option>" + list(Object.keys(spec.presets), (k) => "<option>" + k + "</option>") +
    '</select></label><a>Link to this setting</a></div><p role="status"></p><div class="panels">' +
    list(spec.panels, (p) => '<canvas role="' + (p.key ? 'application" tabindex="0' : "img") + '" aria-label="' + p.label + '"></canvas>') +
    '</div><div class="set">' +
    list(keys, (k) => {
      var p = P[k], scale = (v) => (p.log ? Math.log10(v) : v);
      if (p.read) return "";
      return "<label><span>" + p.label + '</span><input type="range" data-key="' + k + '" min="' + scale(p.min) + '" max="' +
        scale(p.max) + '" step="' + (p.step || (p.log ? 0.05 : 1)) + '"><b></b></label>';
    }) + '</div><table><thead><tr><th>quantity<th>now<th>theory<tbody></table>';
  var all = (what) => [...section.querySelectorAll(what)], one = (what) => all(what)[0];
  var on = (node, kind, f) => node.addEventListener(kind, f);
  var [go, once, again, back] = all("button"), link = one("a"), pick = one("select"), rows = one("tbody");
  var line = one("[role=status]"), answer = one("p[hidden]"), views = all("canvas"), pens = [];

  // ---- the state: numbers by name, in the address as #live-name?heat=0.05&N=200
  var tidy = (values) => {
    if (spec.fit) spec.fit(values);
    return values;
  };
  var initial = (changes) => tidy(put({}, ...keys.map((k) => ({ [k]: P[k].value })), changes));
  var allowed = (key, text) => {
    var p = P[key], v = Number(text);
    if (p && p.read) return p.read(text);
    if (p && text.trim() && v >= p.min && v <= p.max) return p.whole ? Math.round(v) : v;
  };
  var asked = () => {
    var [page, query] = location.hash.slice(1).split("?"), wrong = [], found = {};
    if (page !== id) return;
    new URLSearchParams(query).forEach((text, key) => {
      var v = allowed(key, text);
      if (v === undefined) wrong.push(key + "=" + text);
      else found[key] = v;
    });
    if (wrong[0]) notice = "The default is used instead of " + wrong.join(", ").slice(0, 80) + ". ";
    return initial(found);
  };
  var address = () => {
    var query = keys.filter((k) => state[k] !== P[k].value).map((k) => k + "=" + state[k]);
    return "#" + id + (query[0] ? "?" + query.join("&") : "");
  };

  // ---- settings
  var apply = (gently) => {
    tidy(state);
    if (gently) spec.change(sim, state);
    else restart();
    place();
    try {
      history.replaceState(null, "", address());
    } catch (e) {} // too often for a browser: the link below the buttons says it too
  };
  var place = () => {
    for (var input of all("[data-key]")) {
      var k = input.dataset.key, text = flLive.text(state[k]);
      input.value = P[k].log ? Math.log10(state[k]) : state[k];
      input.nextSibling.textContent = text;
      input.setAttribute("aria-valuetext", text);
    }
    link.href = address();
    draw();
  };
  var restart = () => {
    sim = spec.make(state);
    sim.t = 0;
    back.hidden = true;
  };
  var load = (values) => {
    state = values;
    apply();
  };

  // ---- running, in slices that leave the page free
  var step = () => {
    if (!spec.step(sim, state)) {
      run(false);
      back.hidden = false;
      say("Diverged at step " + sim.t + ": numbers without bound. " + spec.lower, 1);
      return;
    }
    sim.t++;
    if (++total >= spec.seen && guessed) answer.hidden = false;
    if (sim.t % 20 === 0) good = put({}, state);
    return !(spec.done && spec.done(sim));
  };
  var frame = () => {
    var begin = clock(), steps = 0, more = true;
    while (running && more && steps++ < state.pace && clock() - begin < 12) more = step();
    if (!more) run(false);
    if (!running) return draw();
    if (begin - drawn > (still.matches ? 1000 : 0)) {
      drawn = begin;
      draw(begin - told < 250);
      if (begin - told > 250) told = begin;
    }
    if (begin - spoken > 3000) say(spec.status(sim, state));
    requestAnimationFrame(frame);
  };
  var run = (yes) => {
    if (running === yes) return;
    running = yes;
    go.textContent = yes ? "Pause" : "Run";
    if (yes) requestAnimationFrame(frame);
    else say(spec.status(sim, state));
  };
  // At most one sentence a second; the last one wins.
  var say = (text, quick) => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      spoken = clock();
      line.textContent = notice + text;
      notice = "";
    }, quick ? 0 : Math.max(0, 1000 + spoken - clock()));
  };

  var draw = (quick) => {
    spec.panels.forEach((p, i) => (pens[i] = flLive.plot(views[i], p.draw, sim, state)));
    if (quick === true) return;
    rows.innerHTML = list(spec.numbers(sim, state), (r) =>
      '<tr><th>' + r[0] + "<td>" + flLive.text(r[1]) + "<td>" + flLive.text(r[2]));
  };

  on(section, "input", (event) => {
    var key = event.target.dataset.key, v = +event.target.value, p = P[key];
    if (!p) return;
    if (p.log) v = +Math.pow(10, v).toPrecision(2);
    state[key] = Math.min(p.max, Math.max(p.min, p.whole ? Math.round(v) : v));
    pick.value = "";
    apply(p.live);
  });
  on(one("fieldset"), "change", () => {
    guessed = true;
    say("Noted. Now run it.");
  });
  on(go, "click", () => {
    if (!running && spec.done && spec.done(sim)) restart();
    run(!running);
  });
  on(once, "click", () => {
    run(false);
    step();
    draw();
  });
  on(again, "click", () => {
    restart();
    draw();
    say("Back at the start.");
  });
  on(back, "click", () => {
    load(good);
    say("The last setting that ran.");
    go.focus();
  });
  on(pick, "change", () => pick.value && load(initial(spec.presets[pick.value])));
  on(window, "hashchange", () => {
    var values = asked();
    if (!values) return;
    load(values);
    say("The setting of the address.");
  });
  spec.panels.forEach((p, i) => p.find && flLive.hands(views[i], p, {
    state: () => state,
    pen: () => pens[i],
    set: (change, text) => {
      put(state, change);
      apply(p.live);
      if (text) say(text);
    }
  }));

  // ---- begin, without moving
  good = initial();
  section.hidden = false;
  state = asked();
  if (state) section.scrollIntoView();
  else state = initial();
  restart();
  place();
  say("Nothing moves yet.");
  new ResizeObserver(draw).observe(section);
  new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
};

// A number for readers.
flLive.text = (v) => (typeof v === "string" ? v : isFinite(v) ? String(+v.toPrecision(3)) : "–");

// A plot, sharp at any pixel ratio. What is not a finite number is not drawn.
flLive.plot = (view, paint, sim, state) => {
  var style = getComputedStyle(view), ratio = devicePixelRatio, W = view.clientWidth, H = view.clientHeight;
  var g = view.getContext("2d"), L = 48, B = H - 36, T = 24, R = W - 14, a, wide = Math.round(W * ratio);
  if (view.width !== wide) view.width = wide;
  if (view.height !== Math.round(H * ratio)) view.height = Math.round(H * ratio);
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, W, H);
  g.font = "12px sans-serif";
  var ink = (name) => (g.fillStyle = g.strokeStyle = style.getPropertyValue("--" + name));
  var share = (v, [low, high], log) => (log ? Math.log(v / low) / Math.log(high / low) : (v - low) / (high - low));
  var X = (v) => L + (R - L) * share(v, a.x, a.logx), Y = (v) => B + (T - B) * share(v, a.y, a.logy);
  var pen = {
    X: X, Y: Y, ink: ink,
    back: ([x, y]) => [a.x[0] + ((x - L) / (R - L)) * (a.x[1] - a.x[0]), a.y[0] + ((y - B) / (T - B)) * (a.y[1] - a.y[0])],
    axes: (all) => {
      a = all;
      ink("ink");
      g.textAlign = "center";
      g.fillText(a.title, W / 2, 14);
      g.fillText(a.xlabel, (L + R) / 2, H - 4);
      var ticks = (range, log, f) => flLive.ticks(range, log).forEach((v) => {
        ink("rule");
        g.beginPath();
        var words = f(v);
        g.stroke();
        ink("ink");
        g.fillText(flLive.text(v), ...words);
      });
      ticks(a.x, a.logx, (v) => (g.moveTo(X(v), T), g.lineTo(X(v), B), [X(v), B + 14]));
      g.textAlign = "right";
      ticks(a.y, a.logy, (v) => (g.moveTo(L, Y(v)), g.lineTo(R, Y(v)), [L - 4, Y(v) + 4]));
      g.textAlign = "left";
      g.beginPath();
      g.rect(L, T - 4, R - L + 4, B - T + 8);
      g.clip();
    },
    dots: (count, x, y, name, size, open) => {
      ink(name);
      for (var i = 0; i < count; i++) {
        var px = X(x(i)), py = Y(y(i));
        if (!isFinite(px + py)) continue;
        g.beginPath();
        g.arc(px, py, size, 0, 7);
        if (open && open(i)) g.stroke();
        else g.fill();
      }
    },
    line: (points, name, dash) => {
      ink(name);
      g.lineWidth = 2;
      g.setLineDash(dash ? [5, 4] : []);
      g.beginPath();
      for (var [x, y] of points) if (isFinite(X(x) + Y(y))) g.lineTo(X(x), Y(y));
      g.stroke();
      g.setLineDash([]);
      g.lineWidth = 1;
    },
    say: (x, y, text, name) => {
      ink(name);
      g.fillText(text, X(x), Y(y));
    }
  };
  g.save();
  if (W > 60) paint(pen, sim, state);
  g.restore();
  return pen;
};

flLive.ticks = ([low, high], log) => {
  var all = [], step = log ? Math.ceil(Math.log10(high / low) / 5) : Math.pow(10, Math.floor(Math.log10((high - low) / 2)));
  while (!log && (high - low) / step > 5) step *= 2;
  var scale = log ? Math.log10 : (v) => v, raise = log ? (v) => Math.pow(10, v) : (v) => v;
  for (var i = Math.ceil(scale(low) / step - 1e-9); i * step < scale(high) + 1e-9; i++) all.push(raise(i * step));
  return all;
};

// A series that never holds more than a thousand points: every second one goes when it is full.
flLive.series = () => {
  var kept = [], every = 1;
  kept.add = (t, ...values) => {
    if (t % every) return;
    kept.push([t, ...values]);
    if (kept.length < 1000) return;
    every *= 2;
    kept.splice(0, 1000, ...kept.filter((p) => p[0] % every === 0));
  };
  kept.column = (i) => kept.map((p) => [p[0], p[i]]);
  return kept;
};
