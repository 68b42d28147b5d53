// Which tokens are shown: what the controls say, as a mask over the tokens of a run.

const SINKS = { sinks: "sink", others: "no sink" };
const RANGES = ["position", "row", "column", "attention"];

// Empty controls filter nothing.
function readFilter(form) {
  const value = (name) => form.elements[name].value.trim();
  const number = (name) => (value(name) === "" ? null : Number(value(name)));
  const filter = {
    word: value("word").toLowerCase(),
    modality: value("modality"),
    role: value("role"),
    sink: value("sink"),
    sample: value("sample").toLowerCase(),
    ranges: {},
  };
  for (const name of RANGES) {
    const ends = [number(`${name}-from`), number(`${name}-to`)];
    if (ends.some((end) => end !== null && !Number.isNaN(end))) filter.ranges[name] = ends;
  }
  return filter;
}

function maskOf(run, place, filter) {
  const words = filter.word && run.text.map((text) => text.toLowerCase().includes(filter.word));
  const samples = filter.sample && run.samples.map((id) => id.toLowerCase().includes(filter.sample));
  const { word, sample } = run.tokens;
  const mask = new Uint8Array(run.count);
  for (let i = 0; i < run.count; i++) {
    if (place.row[i] < 0) continue;
    if (words && !(isText(run, i) && words[word[i]])) continue;
    if (samples && !samples[sample[i]]) continue;
    if (filter.modality && modalityOf(run, i) !== filter.modality) continue;
    if (filter.role && roleName(run, i) !== filter.role) continue;
    if (filter.sink && sinkName(run, place, i) !== SINKS[filter.sink]) continue;
    if (!Object.entries(filter.ranges).every(([by, ends]) => within(run, place, by, ends, i))) continue;
    mask[i] = 1;
  }
  return mask;
}

function within(run, place, by, [from, to], token) {
  const value = numberOf(run, place, by, token);
  return !Number.isNaN(value) && (from === null || value >= from) && (to === null || value <= to);
}

const roleName = (run, token) => roleOf(run, token) || (isText(run, token) ? "no role" : "patch");

// The choices of a menu: the values that the tokens of a run have.
function choicesOf(run, nameOf) {
  const found = new Set();
  for (let i = 0; i < run.count; i++) found.add(nameOf(run, i));
  return [...found];
}
