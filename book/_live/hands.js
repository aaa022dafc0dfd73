// Points that a reader drags with a finger or a mouse, or moves with the keyboard.
"use strict";

flLive.hands = (view, panel, page) => {
  var held = -1;
  var at = (event) => {
    var box = view.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  var near = (event) => panel.find(page.state(), page.pen(), at(event));
  var on = (kind, f, options) => view.addEventListener(kind, f, options);
  on("pointerdown", (event) => {
    held = near(event);
    if (held >= 0) view.setPointerCapture(event.pointerId);
  });
  on("pointermove", (event) => {
    if (held >= 0) page.set(panel.hold(page.state(), held, page.pen().back(at(event))));
  });
  on("pointerup", () => (held = -1));
  on("pointercancel", () => (held = -1));
  // A finger on a point moves the point; anywhere else it scrolls the page.
  on("touchstart", (event) => near(event.touches[0]) < 0 || event.preventDefault(), { passive: false });
  if (!panel.key) return;
  on("dblclick", (event) => near(event) < 0 && page.set(panel.add(page.state(), page.pen().back(at(event)))));
  on("keydown", (event) => {
    var done = panel.key(page.state(), event.key);
    if (!done) return;
    event.preventDefault();
    page.set(done[0], done[1]);
  });
};
