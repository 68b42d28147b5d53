// Small plots of every site and layer, in which the selection is marked too.

class SmallPlots {
  constructor(box, pick) {
    this.box = box;
    this.pick = pick;
    this.made = [];
    this.seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const small = this.made.find((one) => one.canvas === entry.target);
        if (!small) continue;
        small.inView = entry.isIntersecting;
        if (small.inView) this.drawn(small);
      }
    }, { rootMargin: "400px" });
  }

  start(run) {
    this.made.forEach((one) => this.seen.unobserve(one.canvas));
    this.box.replaceChildren();
    this.made = run.places.map((place, number) => {
      const button = make("button", undefined, { type: "button", "aria-pressed": "false" });
      const canvas = make("canvas", undefined, { width: 208, height: 208, "aria-hidden": "true" });
      button.append(canvas, make("span", place.name));
      button.addEventListener("click", () => this.pick(number));
      this.box.append(button);
      this.seen.observe(canvas);
      const raster = new Raster(canvas.getContext("2d"));
      return { place, button, canvas, raster, inView: false, stale: true };
    });
    this.box.hidden = run.places.length < 2;
  }

  // viewOf: the view of a place, as the large plot takes it.
  show(current, viewOf) {
    this.viewOf = viewOf;
    this.made.forEach((one, number) => {
      one.button.setAttribute("aria-pressed", String(number === current));
      one.stale = true;
      if (one.inView) this.drawn(one);
    });
  }

  drawn(one) {
    if (!one.stale || !this.viewOf) return;
    one.stale = false;
    const view = this.viewOf(one.place);
    if (!view.points) return;
    const { width } = one.canvas;
    const screen = (value) => 10 + value * (width - 20);
    const marked = view.current < 0 ? [] : [view.current];
    drawPoints(one.raster, {
      ...view,
      selected: [...view.selected, ...marked],
      ratio: 2,
      radius: 2,
      screenX: screen,
      screenY: screen,
    });
    if (!marked.length || one.place.row[marked[0]] < 0) return;
    const g = one.canvas.getContext("2d");
    g.lineWidth = 3;
    g.strokeStyle = INK[view.mode];
    g.beginPath();
    const row = one.place.row[marked[0]];
    g.arc(screen(view.points.x[row]), screen(view.points.y[row]), 11, 0, 2 * Math.PI);
    g.stroke();
  }
}
