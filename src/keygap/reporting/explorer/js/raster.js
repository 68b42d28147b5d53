// Points as pixels. Twenty thousand points are drawn faster this way than by any call of the
// canvas for each of them, and without a graphics card.

// A colour as the four bytes of a pixel on a machine that stores the lowest byte first.
function pixelOf(colour) {
  const value = parseInt(colour.slice(1), 16);
  return (0xff000000 | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
}

// How much of each pixel around its centre a shape covers, from 0 to 255.
const STAMPS = new Map();
function stamp(shape, radius) {
  const key = `${shape}${radius}`;
  if (STAMPS.has(key)) return STAMPS.get(key);
  const reach = Math.ceil(radius);
  const inside = {
    circle: (x, y) => x * x + y * y <= radius * radius,
    square: (x, y) => Math.max(Math.abs(x), Math.abs(y)) <= radius * 0.86,
    diamond: (x, y) => Math.abs(x) + Math.abs(y) <= radius * 1.2,
  }[shape];
  const made = { dx: [], dy: [], cover: [], reach };
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      let hits = 0;
      for (let a = -3; a <= 3; a += 2) {
        for (let b = -3; b <= 3; b += 2) hits += inside(dx + a / 8, dy + b / 8) ? 1 : 0;
      }
      if (!hits) continue;
      made.dx.push(dx);
      made.dy.push(dy);
      made.cover.push(Math.round((255 * hits) / 16));
    }
  }
  STAMPS.set(key, made);
  return made;
}

const MOST_RIMS = 6000; // points
const SHAPES = { text: "circle", image: "square", video: "diamond", audio: "diamond" };

class Raster {
  constructor(context) {
    this.context = context;
    this.image = null;
  }

  clear() {
    const { width, height } = this.context.canvas;
    if (!this.image || this.image.width !== width || this.image.height !== height) {
      this.image = this.context.createImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    } else {
      this.pixels.fill(0);
    }
  }

  point(x, y, made, pixel) {
    const { width, height } = this.image;
    const { dx, dy, cover, reach } = made;
    const left = Math.round(x);
    const top = Math.round(y);
    if (left < reach || top < reach || left >= width - reach || top >= height - reach) return;
    const pixels = this.pixels;
    const base = top * width + left;
    for (let i = 0; i < dx.length; i++) {
      const at = base + dy[i] * width + dx[i];
      pixels[at] = cover[i] === 255 ? pixel : mixed(pixels[at], pixel, cover[i]);
    }
  }

  show() {
    this.context.putImageData(this.image, 0, 0);
  }
}

// A pixel under another that covers part of it.
function mixed(under, over, cover) {
  const alpha = under >>> 24;
  if (!alpha) return ((over & 0xffffff) | (cover << 24)) >>> 0;
  const part = cover / 255;
  const channel = (shift) => {
    const a = (under >>> shift) & 255;
    return Math.round(a + (((over >>> shift) & 255) - a) * part) << shift;
  };
  const solid = Math.round(alpha + (255 - alpha) * part);
  return ((solid << 24) | channel(16) | channel(8) | channel(0)) >>> 0;
}

// The points of a place, from the back: those that a filter leaves out, the others, then the
// selected ones with an outline.
function drawPoints(raster, view) {
  const { run, place, points, colours, mask, selected, radius, screenX, screenY, mode } = view;
  const stamps = run.data.modalities.map((name) => stamp(SHAPES[name], radius));
  const around = (width) =>
    run.data.modalities.map((name) => stamp(SHAPES[name], radius + width * view.ratio));
  const outlines = around(2);
  const rims = run.count > MOST_RIMS ? null : around(0.8); // tell points apart that overlap
  const paper = pixelOf(PAPER[mode]);
  const faint = pixelOf(FAINT[mode]);
  const ink = pixelOf(INK[mode]);
  const pixels = colours.colours.map(pixelOf);
  const { modality } = run.tokens;
  raster.clear();
  for (const wanted of [0, 1]) {
    for (let i = 0; i < run.count; i++) {
      const row = place.row[i];
      if (row < 0 || mask[i] !== wanted) continue;
      const pixel = wanted ? pixels[colours.index[i]] : faint;
      const x = screenX(points.x[row]);
      const y = screenY(points.y[row]);
      if (rims && wanted) raster.point(x, y, rims[modality[i]], paper);
      raster.point(x, y, stamps[modality[i]], pixel);
    }
  }
  for (const i of selected) {
    const row = place.row[i];
    if (row < 0) continue;
    const x = screenX(points.x[row]);
    const y = screenY(points.y[row]);
    raster.point(x, y, outlines[modality[i]], ink);
    raster.point(x, y, stamps[modality[i]], pixels[colours.index[i]]);
  }
  raster.show();
}
