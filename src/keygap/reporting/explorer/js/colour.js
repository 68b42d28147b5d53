// Colours of points: a few for categories, a ramp for numbers, one set for each colour scheme.

// Okabe and Ito's palette, which colour-blind readers can tell apart; lighter on a dark page.
const CATEGORIES = {
  light: ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933",
    "#332288", "#6F4E37"],
  dark: ["#56B4E9", "#FF9248", "#2FC79B", "#E59AC2", "#F2B83B", "#9AD4F5", "#D07BA6", "#C6C65A",
    "#A69BE8", "#C79A7A"],
};
const FAINT = { light: "#DCDCE4", dark: "#3A3A45" };
const PAPER = { light: "#FFFFFF", dark: "#17171C" };
const INK = { light: "#15151A", dark: "#FFFFFF" };
// Cividis, without the end that a dark page swallows, and without the one that a light page does.
const RAMP = {
  light: ["#00224E", "#1F386B", "#434E6C", "#61646F", "#7D7C78", "#9B9476", "#BBAE6C", "#D0BE5D"],
  dark: ["#4F6A9C", "#6B7C99", "#868D8F", "#A29F84", "#BFB278", "#D8C565", "#EDD852", "#FEE838"],
};
const NUMBERS = {
  position: "position in the prompt",
  row: "row of the patch",
  column: "column of the patch",
  attention: "attention received, times the even share",
};

const scheme = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

function numberOf(run, place, by, token) {
  if (by === "attention") return attentionOf(place, token);
  const value = run.tokens[by][token];
  return value < 0 || (by !== "position" && isText(run, token)) ? NaN : value;
}

// The colour of every token of a run, as numbers of a list of colours, and what they mean.
function colouring(run, place, by, mode) {
  const index = new Uint8Array(run.count);
  if (by in NUMBERS) return ramp(run, place, by, mode, index);
  const palette = CATEGORIES[mode];
  if (by === "sample") {
    for (let i = 0; i < run.count; i++) index[i] = run.tokens.sample[i] % palette.length;
    const n = run.samples.length;
    const note = n > palette.length ? `${n} samples; colours repeat` : `${n} samples`;
    return { colours: palette, index, entries: [], note };
  }
  const names = new Map();
  const nameOf = {
    modality: (i) => modalityOf(run, i),
    role: (i) => roleOf(run, i) || (isText(run, i) ? "no role" : "patch"),
    sink: (i) => sinkName(run, place, i),
  }[by];
  // What is on both sides of the gap has the same colours in each of these.
  const first = { modality: ["text", "image"], role: ["question", "patch"], sink: ["no sink", "sink"] };
  first[by].forEach((name, i) => names.set(name, i));
  for (let i = 0; i < run.count; i++) {
    const name = nameOf(i);
    if (!names.has(name)) names.set(name, names.size);
    index[i] = names.get(name) % palette.length;
  }
  const used = new Set(index);
  const entries = [...names].filter(([, i]) => used.has(i % palette.length)).map(([name, i]) => ({ name, colour: palette[i % palette.length] }));
  return { by, colours: palette, index, entries, note: "" };
}

function isSink(run, place, token) {
  return attentionOf(place, token) >= run.data.sink_share;
}

// Where attention is not known, a token is neither.
function sinkName(run, place, token) {
  if (Number.isNaN(attentionOf(place, token))) return "not known";
  return isSink(run, place, token) ? "sink" : "no sink";
}

// Attention is spread over orders of magnitude, so its colours are steps of a logarithm.
function ramp(run, place, by, mode, index) {
  const scale = by === "attention" ? (value) => Math.log10(Math.max(value, 1e-3)) : (value) => value;
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < run.count; i++) {
    const value = scale(numberOf(run, place, by, i));
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const steps = RAMP[mode];
  const none = steps.length;
  let missing = false;
  for (let i = 0; i < run.count; i++) {
    const value = scale(numberOf(run, place, by, i));
    const part = high > low ? (value - low) / (high - low) : 0;
    index[i] = Number.isNaN(value) ? none : Math.min(none - 1, Math.floor(part * none));
    missing = missing || Number.isNaN(value);
  }
  const ends = low > high ? null : [low, high].map((end) => (by === "attention" ? 10 ** end : end));
  const grey = mode === "dark" ? "#77778A" : "#A6A6B2";
  return {
    colours: [...steps, grey],
    index,
    entries: missing ? [{ name: ends ? "has none" : "not known", colour: grey }] : [],
    ends,
    steps,
    note: NUMBERS[by],
  };
}
