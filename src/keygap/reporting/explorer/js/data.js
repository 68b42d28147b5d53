// The page's data, decoded. Everything else reads runs in this form and changes nothing in them.

function unpack(text, Type) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Type(bytes.buffer);
}

// Text of a dataset for one line of the page: what does not print is escaped, and a text of a
// hundred thousand characters is cut. Nothing else in it is interpreted.
function visible(text, longest = 120) {
  const all = String(text);
  const shown = all
    .slice(0, longest)
    .replace(/\n/g, "↵")
    .replace(/\t/g, "⇥")
    .replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu, (one) => {
      if (one === "\u200c" || one === "\u200d") return one; // part of the spelling of some scripts
      return `\\u{${one.codePointAt(0).toString(16)}}`;
    });
  return all.length > longest ? `${shown}… (${all.length.toLocaleString("en")} characters)` : shown;
}

// Coordinates between 0 and 1, x to the right and y down, one unit for both axes.
function coordinates(raw) {
  if (!raw) return null;
  const x = unpack(raw.x, Uint16Array);
  const y = unpack(raw.y, Uint16Array);
  const unit = 65535 * Math.max(raw.step[0], raw.step[1]);
  const left = (1 - (65535 * raw.step[0]) / unit) / 2;
  const top = (1 - (65535 * raw.step[1]) / unit) / 2;
  const out = { x: new Float32Array(x.length), y: new Float32Array(x.length) };
  for (let i = 0; i < x.length; i++) {
    out.x[i] = left + (x[i] * raw.step[0]) / unit;
    out.y[i] = 1 - top - (y[i] * raw.step[1]) / unit;
  }
  out.value = (i) => [raw.low[0] + x[i] * raw.step[0], raw.low[1] + y[i] * raw.step[1]];
  return out;
}

// A site and layer; row[token] is the token's row in its arrays, or -1.
function readPlace(raw, count) {
  const at = raw.at && unpack(raw.at, Uint32Array);
  const row = new Int32Array(count);
  if (at) {
    row.fill(-1);
    at.forEach((token, i) => (row[token] = i));
  } else {
    for (let i = 0; i < count; i++) row[i] = i;
  }
  return {
    name: `${raw.site}, layer ${raw.layer}`,
    site: raw.site,
    layer: raw.layer,
    row,
    tsne: coordinates(raw.tsne),
    pca: coordinates(raw.pca),
    attention: raw.attention && unpack(raw.attention, Float32Array),
  };
}

// The first entry of each sample's prompt, and one past the last.
function startsOf(samples, count) {
  const start = new Uint32Array(count + 1);
  for (const sample of samples) start[sample + 1]++;
  for (let i = 0; i < count; i++) start[i + 1] += start[i];
  return start;
}

function readThumbnails(raw) {
  if (!raw) return null;
  const found = new Map();
  for (const [sample, image, frame, picture, grid, coarse] of raw.rows) {
    const own = found.get(sample) || [];
    own.push({ image, frame, picture, grid: raw.grids[grid], coarse: raw.grids[coarse] });
    found.set(sample, own);
  }
  return found;
}

const KINDS = {
  id: Uint32Array, sample: Uint32Array, position: Uint32Array, word: Uint32Array,
  modality: Uint8Array, role: Uint8Array, image: Int16Array, frame: Int16Array, row: Int16Array,
  column: Int16Array, length: Uint32Array,
};

function arrays(from) {
  return Object.fromEntries(
    Object.entries(from).map(([key, value]) =>
      [key, key === "count" ? value : unpack(value, KINDS[key])]
    )
  );
}

function readRun(raw, data) {
  const tokens = arrays(raw.tokens);
  const prompts = arrays(raw.prompts);
  return {
    model: raw.model,
    benchmark: raw.benchmark,
    samples: raw.samples,
    words: raw.words,
    text: raw.words.map((word, i) => (i in raw.readable ? raw.readable[i] : word)),
    count: tokens.count,
    tokens,
    prompts,
    start: startsOf(prompts.sample, raw.samples.length),
    places: raw.places.map((place) => readPlace(place, tokens.count)),
    thumbnails: readThumbnails(raw.thumbnails),
    patches: raw.patches,
    missing: raw.missing,
    data,
  };
}

const modalityOf = (run, token) => run.data.modalities[run.tokens.modality[token]];
const roleOf = (run, token) => run.data.roles[run.tokens.role[token]];
const isText = (run, token) => modalityOf(run, token) === "text";
const wordOf = (run, token) => run.text[run.tokens.word[token]];

// The attention that a token receives at a place, over its even share; NaN if it is not known.
function attentionOf(place, token) {
  const row = place.row[token];
  return row < 0 || !place.attention ? NaN : place.attention[row];
}

// The thumbnail of a token's image and frame, and the grid of its patch if it is known.
function pictureOf(run, token) {
  const { sample, image, frame } = run.tokens;
  const own = (run.thumbnails && run.thumbnails.get(sample[token])) || [];
  const found =
    own.find((one) => one.image === image[token] && one.frame === frame[token]) ||
    own.find((one) => one.image === image[token]);
  if (!found) return null;
  return { ...found, grid: roleOf(run, token) === "thumbnail" ? found.coarse : found.grid };
}

// Where a patch lies on its image: left, top, width and height as shares of it, none outside it.
function patchBox(grid, row, column) {
  const [rows, columns, top, bottom, left, right] = grid;
  const edge = (from, to, part) => Math.min(1, Math.max(0, from + (to - from) * part));
  const x = edge(left, right, column / columns);
  const y = edge(top, bottom, row / rows);
  return {
    left: x,
    top: y,
    width: edge(left, right, (column + 1) / columns) - x,
    height: edge(top, bottom, (row + 1) / rows) - y,
  };
}
