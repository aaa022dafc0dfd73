// A box that scrolls sideways must be reachable with the keyboard; one that fits need not be a stop on the way.
function markScrollingBoxes() {
  for (const box of document.querySelectorAll(".fl-scroll, .fl-wide, .bd-content pre, .pst-scrollable-table-container, .cell_output, figure")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else if (box.matches(".fl-scroll, .fl-wide")) box.removeAttribute("tabindex");
  }
}
addEventListener("DOMContentLoaded", markScrollingBoxes);
addEventListener("resize", markScrollingBoxes);
