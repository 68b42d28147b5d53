// The theme's search box is a dialog without a name.
document.querySelector(".md-search")?.setAttribute("aria-label", "Search");

// The theme lets wide tables scroll in a box of their own, which no key reaches.
function reachTables() {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap")) {
    const scrolls = box.scrollWidth > box.clientWidth;
    for (const [name, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", "Wide table"]]) {
      if (scrolls) box.setAttribute(name, value);
      else box.removeAttribute(name);
    }
  }
}
addEventListener("load", () => requestAnimationFrame(reachTables));
addEventListener("resize", reachTables);
