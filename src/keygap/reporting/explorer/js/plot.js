// The large plot: draws the points, and turns gestures into tokens. D3 has the gestures of panning
// and zooming, the search for the nearest point and the test whether a polygon contains one.

const REACH = 14; // pixels between the pointer and a point that it finds
const MARGIN = 14;
const MOST_CORNERS = 200; // of a lasso

// A drawn line with as many corners as a server takes, evenly chosen.
function outline(path) {
  const every = Math.ceil(path.length / MOST_CORNERS);
  return path.filter((_, i) => i % every === 0);
}

class Plot {
  // on: hover(token), pick(token, add), lasso(tokens, add, path), settled() after the view has moved;
  // token is -1 for none.
  constructor(canvas, on) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.raster = new Raster(this.context);
    this.on = on;
    this.transform = d3.zoomIdentity;
    this.lassoOn = false;
    this.path = null;
    this.frame = 0;
    this.zoom = d3
      .zoom()
      .scaleExtent([0.8, 60])
      .filter((event) => this.takes(event))
      .on("start", () => this.on.hover(-1))
      .on("zoom", (event) => {
        this.transform = event.transform;
        this.draw();
      })
      .on("end", () => this.on.settled());
    d3.select(canvas).call(this.zoom).on("dblclick.zoom", null);
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    canvas.addEventListener("pointerleave", () => this.on.hover(-1));
    canvas.addEventListener("pointerdown", (event) => this.pressed(event));
    canvas.addEventListener("pointerup", (event) => this.released(event));
    canvas.addEventListener("pointercancel", () => this.cancelled());
    canvas.addEventListener("click", (event) => this.clicked(event));
    new ResizeObserver(() => this.resized()).observe(canvas);
  }

  // A wheel zooms only where the plot has the focus or with Ctrl, so that the page still scrolls
  // over it; for the same reason one finger scrolls the page and two move the plot.
  takes(event) {
    if (event.type === "wheel") return event.ctrlKey || document.activeElement === this.canvas;
    if (event.type.startsWith("touch")) return !this.lassoOn && event.touches.length > 1;
    return !this.lassoOn && !event.shiftKey && !event.button;
  }

  resized() {
    const box = this.canvas.getBoundingClientRect();
    if (!box.width) return;
    this.ratio = Math.min(2, window.devicePixelRatio || 1);
    this.width = box.width;
    this.height = box.height;
    this.canvas.width = Math.round(box.width * this.ratio);
    this.canvas.height = Math.round(box.height * this.ratio);
    this.zoom.extent([[0, 0], [box.width, box.height]]);
    this.zoom.translateExtent([[-box.width, -box.height], [2 * box.width, 2 * box.height]]);
    this.draw();
  }

  // view: run, place, points, colours, mask, selected, current, mode
  show(view) {
    const searched = ["place", "points", "mask"].some((key) => !this.view || this.view[key] !== view[key]);
    if (searched) this.tree = null;
    this.view = view.points ? view : null; // null while its points are still to come
    this.draw();
  }

  get side() {
    return Math.min(this.width, this.height) - 2 * MARGIN;
  }

  x(value) {
    return this.transform.applyX((this.width - this.side) / 2 + value * this.side);
  }

  y(value) {
    return this.transform.applyY((this.height - this.side) / 2 + value * this.side);
  }

  draw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.drawn());
  }

  drawn() {
    this.frame = 0;
    if (!this.view || !this.width) return;
    const grown = Math.min(2.2, Math.sqrt(this.transform.k));
    const few = this.view.run.count > 6000 ? 2 : 3;
    drawPoints(this.raster, {
      ...this.view,
      ratio: this.ratio,
      radius: few * grown * this.ratio,
      screenX: (value) => this.x(value) * this.ratio,
      screenY: (value) => this.y(value) * this.ratio,
    });
    this.mark(this.view.current, few * grown + 5);
    if (this.path) this.outline();
  }

  mark(token, radius) {
    const { place, points, mode } = this.view;
    if (token < 0 || place.row[token] < 0) return;
    const g = this.context;
    g.lineWidth = 2.5 * this.ratio;
    g.strokeStyle = INK[mode];
    g.beginPath();
    const row = place.row[token];
    const at = [this.x(points.x[row]), this.y(points.y[row])].map((value) => value * this.ratio);
    g.arc(...at, radius * this.ratio, 0, 2 * Math.PI);
    g.stroke();
  }

  outline() {
    const g = this.context;
    g.lineWidth = 1.5 * this.ratio;
    g.strokeStyle = INK[this.view.mode];
    g.setLineDash([6 * this.ratio, 4 * this.ratio]);
    g.beginPath();
    this.path.forEach(([x, y]) => g.lineTo(x * this.ratio, y * this.ratio));
    g.closePath();
    g.stroke();
    g.setLineDash([]);
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  nearest([x, y]) {
    if (!this.view) return -1;
    const { run, place, points, mask } = this.view;
    if (!this.tree) {
      const shown = [];
      for (let i = 0; i < run.count; i++) if (mask[i] && place.row[i] >= 0) shown.push(i);
      this.tree = d3
        .quadtree()
        .x((i) => points.x[place.row[i]])
        .y((i) => points.y[place.row[i]])
        .addAll(shown);
    }
    const [u, v] = this.transform.invert([x, y]);
    const found = this.tree.find(
      (u - (this.width - this.side) / 2) / this.side,
      (v - (this.height - this.side) / 2) / this.side,
      REACH / this.transform.k / this.side
    );
    return found === undefined ? -1 : found;
  }

  moved(event) {
    if (this.path) {
      this.path.push(this.at(event));
      this.draw();
    } else if (!event.buttons) {
      this.on.hover(this.nearest(this.at(event)));
    }
  }

  pressed(event) {
    if (!event.isPrimary || event.button || !(this.lassoOn || event.shiftKey)) return;
    this.path = [this.at(event)];
    this.canvas.setPointerCapture(event.pointerId);
  }

  released(event) {
    if (!this.path) return;
    const path = outline(this.path);
    this.path = null;
    this.draw();
    if (path.length < 3 || Math.abs(d3.polygonArea(path)) < 20) return;
    this.swallow = true; // the click that follows
    this.on.lasso(this.inside(path), event.shiftKey, path);
  }

  cancelled() {
    this.path = null;
    this.draw();
  }

  inside(path) {
    if (!this.view) return [];
    const { run, place, points, mask } = this.view;
    const found = [];
    for (let i = 0; i < run.count; i++) {
      const row = place.row[i];
      if (row < 0 || !mask[i]) continue;
      if (d3.polygonContains(path, [this.x(points.x[row]), this.y(points.y[row])])) found.push(i);
    }
    return found;
  }

  clicked(event) {
    if (this.swallow) {
      this.swallow = false;
      return;
    }
    this.on.pick(this.nearest(this.at(event)), event.shiftKey);
  }

  setLasso(on) {
    this.lassoOn = on;
    this.canvas.classList.toggle("lasso", on);
  }

  scale(factor) {
    d3.select(this.canvas).call(this.zoom.scaleBy, factor);
  }

  reset() {
    d3.select(this.canvas).call(this.zoom.transform, d3.zoomIdentity);
  }

  // Move the view so that a token is on the screen.
  reveal(token) {
    if (!this.view) return;
    const { place, points } = this.view;
    const row = place.row[token];
    if (row < 0) return;
    const [x, y] = [this.x(points.x[row]), this.y(points.y[row])];
    const out = (value, size) => value < MARGIN || value > size - MARGIN;
    if (!out(x, this.width) && !out(y, this.height)) return;
    const by = [this.width / 2 - x, this.height / 2 - y].map((shift) => shift / this.transform.k);
    d3.select(this.canvas).call(this.zoom.translateBy, ...by);
  }

  // The shown token that is next in a direction on the screen, or the one in the middle.
  next(from, [right, down]) {
    if (!this.view) return from;
    const { run, place, points, mask } = this.view;
    const start = from >= 0 ? place.row[from] : -1;
    const [x0, y0] = start >= 0 ? [points.x[start], points.y[start]] : [0.5, 0.5];
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < run.count; i++) {
      const row = place.row[i];
      if (row < 0 || !mask[i] || i === from) continue;
      const dx = points.x[row] - x0;
      const dy = points.y[row] - y0;
      const ahead = start >= 0 ? dx * right + dy * down : 0;
      const aside = start >= 0 ? Math.abs(dx * down) + Math.abs(dy * right) : Math.hypot(dx, dy);
      if (start >= 0 && ahead <= 0) continue;
      const cost = ahead + 3 * aside;
      if (cost < least) [best, least] = [i, cost];
    }
    return best;
  }
}
