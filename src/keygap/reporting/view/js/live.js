// The explorer over a whole store. The server has all tokens and answers with some of them: those
// of the part of the plane that is in view. A token keeps its number of the store ("id") in every
// answer; its number here is its place in the answer that is shown.

const REST = 150; // milliseconds without a change before the server is asked
const LOOK = 60; // milliseconds over a token before its prompt is asked for
const AGAIN = 300; // milliseconds before the server is asked again for what it prepares
const MOST_KEPT = 2000; // selected tokens that stay while the view moves
const MOST_KNOWN = 60; // samples whose prompts are kept
const CLOSEST = 4000; // times that the plane can be enlarged
const EDGE = 0.25; // of the window, that is asked for around it

class NoSmallPlots { start() {} show() {} }

async function answerOf(path, parameters) {
  const query = new URLSearchParams(parameters);
  const response = await fetch(`/api/${path}?${query}`, { cache: "no-store" });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// Points of an answer as shares of the whole plane, y down; their own steps are finer than those of
// the plane where the window is small.
function pointsOf(answer) {
  const { points, low, high } = answer;
  const unit = Math.max(high[0] - low[0], high[1] - low[1]) || 1;
  const left = (1 - (high[0] - low[0]) / unit) / 2;
  const top = (1 - (high[1] - low[1]) / unit) / 2;
  const steps = [unpack(points.x, Uint16Array), unpack(points.y, Uint16Array)];
  const value = (i) => [0, 1].map((axis) => points.low[axis] + steps[axis][i] * points.step[axis]);
  const count = steps[0].length;
  const out = { x: new Float32Array(count), y: new Float32Array(count), value };
  for (let i = 0; i < count; i++) {
    const [x, y] = value(i);
    out.x[i] = left + (x - low[0]) / unit;
    out.y[i] = 1 - top - (y - low[1]) / unit;
  }
  // The coordinates of a share of the plane.
  out.plane = (x, y) => [low[0] + (x - left) * unit, low[1] + (1 - top - y) * unit];
  return out;
}

const NOWHERE = { tsne: null, pca: null, attention: null };

// The run with the tokens of an answer. Words and samples are added to those that are known.
function runOf(before, answer) {
  learn(before, answer);
  const tokens = arrays(answer.tokens);
  const { count } = tokens;
  const none = new Int32Array(count).fill(-1);
  const places = before.places.map((place, number) => {
    if (number !== answer.place) return { ...place, ...NOWHERE, row: none };
    return {
      ...place,
      ...NOWHERE,
      row: Int32Array.from(none, (_, i) => i),
      [answer.method]: pointsOf(answer),
      attention: unpack(answer.attention, Float32Array),
    };
  });
  return { ...before, count, tokens, places };
}

function learn(run, answer) {
  for (const [number, name] of Object.entries(answer.samples)) run.samples[number] = name;
  for (const [number, word] of Object.entries(answer.words)) {
    run.words[number] = word;
    run.text[number] = number in answer.readable ? answer.readable[number] : word;
  }
}

class LiveExplorer extends Explorer {
  constructor(root, data) {
    super(root, data);
    this.known = new Map(); // prompts and pictures of samples
    this.plot.zoom.scaleExtent([0.8, CLOSEST]);
    this.started = true;
    this.addWords();
    this.ask(0);
  }

  get Small() { return NoSmallPlots; }

  // The place that is shown; another one may be on its way.
  get place() {
    return this.run.places[this.answer ? this.answer.place : this.state.place];
  }

  startRun(number) {
    this.state.method = "pca"; // of all tokens; t-SNE is of those that were drawn for it
    super.startRun(number);
    const { form, data, run } = this;
    run.samples.length = data.n_samples;
    form.elements.method.value = "pca";
    const names = (nameOf) => [...new Set(data.pairs.map(nameOf))];
    fill(form.elements.modality, names(([modality]) => data.modalities[modality]), "all");
    const roles = names(([modality, role]) => data.roles[role] || (modality ? "patch" : "no role"));
    fill(form.elements.role, roles, "all");
    for (const option of form.elements.colour.options) {
      option.disabled = ["row", "column"].includes(option.value) && !run.patches;
    }
    this.methods();
  }

  methods() {
    const has = this.data.methods[this.state.place];
    const { method } = this.form.elements;
    for (const option of method.options) option.disabled = !has.includes(option.value);
    if (!has.includes(this.state.method)) method.value = this.state.method = "pca";
  }

  get isShown() {
    const { answer, state } = this;
    return answer && answer.place === state.place && answer.method === state.method;
  }

  refresh() {
    if (this.isShown) super.refresh();
    else this.ask(0);
  }

  filtered() { super.filtered(); this.ask(REST); }

  goTo(number) {
    if (number < 0 || number >= this.run.places.length) return;
    this.state.place = number;
    this.form.elements.place.value = String(number);
    this.methods();
    this.refresh();
  }

  settled() { this.ask(REST); }

  // Ask for what is in view, once nothing has changed for a while.
  ask(rest) {
    if (!this.started) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.asked(), rest);
  }

  async asked() {
    const number = (this.latest = (this.latest || 0) + 1);
    try {
      const answer = await answerOf("points", this.question());
      if (number !== this.latest) return;
      if ("preparing" in answer) {
        const place = this.run.places[this.state.place];
        this.find("count").textContent =
          `Reading ${place.name}: ${Math.floor(100 * answer.preparing)} % of its tokens`;
        this.ask(AGAIN);
      } else {
        this.answered(answer);
      }
    } catch (error) {
      if (number === this.latest) this.failed(error);
    }
  }

  failed(error) {
    const gone = error instanceof TypeError; // no answer at all
    this.find("count").textContent = gone
      ? "The server does not answer: keygap view has ended."
      : visible(error.message, 400);
    this.say(this.find("count").textContent);
  }

  question() {
    const { state, run } = this;
    const ids = run.tokens.id;
    const keep = [...this.selected].slice(0, MOST_KEPT);
    if (state.current >= 0) keep.push(state.current);
    const asked = { place: state.place, method: state.method, keep: keep.map((i) => ids[i]).join(",") };
    if (state.current >= 0) asked.sample = run.tokens.sample[state.current];
    return Object.assign(asked, this.window(), this.filters());
  }

  // What is looked for, as the server reads it.
  filters() {
    const { form } = this;
    const asked = {};
    const names = { word: "word", sample: "of", modality: "modality", role: "role", sink: "sink" };
    for (const [name, parameter] of Object.entries(names)) {
      const value = form.elements[name].value.trim();
      if (value) asked[parameter] = value.slice(0, 500);
    }
    for (const [name, ends] of Object.entries(this.filter.ranges)) {
      ["from", "to"].forEach((end, i) => {
        if (ends[i] !== null && !Number.isNaN(ends[i])) asked[`${name}-${end}`] = ends[i];
      });
    }
    return asked;
  }

  // What is in view, and some of what is around it; nothing if the plane is not known yet.
  window() {
    const { plot } = this;
    if (!this.isShown || !plot.width) return {};
    const [left, top] = this.coordinates([-EDGE * plot.width, -EDGE * plot.height]);
    const [right, bottom] = this.coordinates([(1 + EDGE) * plot.width, (1 + EDGE) * plot.height]);
    return { left, right, bottom, top };
  }

  // The coordinates in the plane of a point of the canvas.
  coordinates([x, y]) {
    const { plot } = this;
    const [u, v] = plot.transform.invert([x, y]);
    const { plane } = this.place[this.answer.method];
    return plane((u - (plot.width - plot.side) / 2) / plot.side, (v - (plot.height - plot.side) / 2) / plot.side);
  }

  // Show an answer; the selection and the current token are found again by their ids.
  answered(answer) {
    const before = this.run;
    const run = runOf(before, answer);
    const at = new Map();
    run.tokens.id.forEach((id, i) => at.set(id, i));
    const now = (token) => (token < 0 || !at.has(before.tokens.id[token]) ? -1 : at.get(before.tokens.id[token]));
    this.state.current = now(this.state.current);
    this.hover = now(this.hover);
    this.selected = new Set([...this.selected].map(now).filter((token) => token >= 0));
    this.runs[0] = run;
    this.answer = answer;
    super.refresh();
  }

  count() {
    const { answer } = this;
    if (!answer) return;
    const number = (value) => value.toLocaleString("en");
    let shown = 0;
    for (let i = 0; i < this.run.count; i++) shown += this.mask[i];
    const some = answer.found < answer.total;
    const found = some ? `, ${number(answer.found)} match` : "";
    let more = "";
    if (this.held) {
      const { drawn, inside } = this.held;
      more = ` · ${number(inside)} tokens lie inside the lasso, and ${number(drawn)} of them are drawn: ` +
        "only those are selected. Zoom in to select the others.";
    } else if (answer.matching > shown) {
      more = ` · ${number(answer.matching)} matching tokens are in view, too many to draw at once: ` +
        "zoom in to see the others.";
    } else if (some && answer.found && !answer.matching) {
      more = " · No matching token is in view: press “Whole plot” to see them.";
    }
    this.find("count").textContent =
      `${number(shown)} of ${number(answer.total)} tokens shown${found}, ${number(this.selected.size)} selected${more}`;
  }

  // The lasso selects what is drawn. Where that is not all, the server counts what lies inside.
  async lassoed(tokens, add, path) {
    const { answer } = this;
    super.lassoed(tokens, add, path);
    if (!this.isShown || answer.window <= this.run.count) return;
    const corners = path.flatMap((point) => this.coordinates(point).map((value) => value.toPrecision(9)));
    const asked = { place: answer.place, method: answer.method, corners: corners.join(","), ...this.filters() };
    const selection = this.selected;
    try {
      const { inside } = await answerOf("inside", asked);
      if (selection !== this.selected || inside <= tokens.length) return;
      this.held = { drawn: tokens.length, inside };
      this.count();
      this.say(this.find("count").textContent);
    } catch (error) {
      this.failed(error);
    }
  }

  clear() { this.held = null; super.clear(); }

  select(tokens, add, how) {
    this.held = null;
    super.select(tokens, add, how);
    const all = this.answer && this.answer.matching > tokens.length;
    const some = all ? ", of those that are drawn" : "";
    const kept = this.selected.size > MOST_KEPT
      ? `; ${MOST_KEPT.toLocaleString("en")} of them stay selected when the view moves`
      : "";
    this.say(`${tokens.length.toLocaleString("en")} tokens selected by ${how}${some}${kept}`);
  }

  // The current token's sample is asked for whole, so that keys can walk through its prompt.
  focus(token) {
    super.focus(token);
    if (token >= 0) this.withSample();
  }

  picked(token, add) { super.picked(token, add); if (token >= 0) this.withSample(); }

  withSample() {
    const sample = this.run.tokens.sample[this.state.current];
    if (sample !== this.whole) this.ask(REST);
    this.whole = sample;
  }

  card() {
    const token = this.hover >= 0 ? this.hover : this.state.current;
    clearTimeout(this.look);
    if (token < 0) {
      super.card();
      return;
    }
    const { run } = this;
    const sample = run.tokens.sample[token];
    const known = this.known.get(sample);
    const before = this.find("card").querySelector(".elsewhere");
    const open = before && before.open;
    run.prompts = known ? known.prompts : { position: [], length: [] };
    run.start = { [sample]: 0, [sample + 1]: known ? known.prompts.count : 0 };
    if (run.thumbnails && known) run.thumbnails.set(sample, known.thumbnails);
    super.card();
    const box = this.find("card");
    const pictures = box.querySelector(".pictures");
    if (!known) {
      pictures.replaceChildren(make("p", "Asking for the prompt and the images", { class: "hint" }));
      this.look = setTimeout(() => this.learnSample(sample), LOOK);
    }
    const places = box.querySelector(".elsewhere");
    if (places) {
      places.querySelector("ul").replaceChildren(make("li", "…"));
      places.addEventListener("toggle", () => this.elsewhere(places, run.tokens.id[token]));
      places.open = open; // an open list stays open, for the next token too
    }
  }

  async learnSample(sample) {
    try {
      const answer = await answerOf("sample", { sample });
      learn(this.run, answer);
      const first = this.data.pictures.length;
      this.data.pictures.push(...answer.pictures);
      const thumbnails = readThumbnails(answer.thumbnails);
      const own = (thumbnails && thumbnails.get(sample)) || [];
      own.forEach((one) => (one.picture += first));
      this.known.set(sample, { prompts: arrays(answer.prompts), thumbnails: own });
      if (this.known.size > MOST_KNOWN) this.forget();
      this.card();
    } catch (error) {
      this.failed(error);
    }
  }

  forget() {
    const [oldest] = this.known.keys();
    const { thumbnails } = this.known.get(oldest);
    thumbnails.forEach((one) => (this.data.pictures[one.picture] = ""));
    if (this.run.thumbnails) this.run.thumbnails.delete(oldest);
    this.known.delete(oldest);
  }

  // The same token at the other sites and layers, read from the store when somebody asks.
  async elsewhere(details, id) {
    if (!details.open) return;
    const { places } = this.run;
    const items = [];
    try {
      while (items.length < places.length && details.isConnected) {
        const { attention } = await answerOf("elsewhere", { token: id, first: items.length });
        items.push(...attention.map((value, i) => this.attentionAt(places[items.length + i], value)));
        details.querySelector("ul").replaceChildren(...items);
      }
    } catch (error) {
      this.failed(error);
    }
  }

  attentionAt(place, value) {
    const sink = value >= this.data.sink_share ? ", a sink" : "";
    const text = value === null ? "not known there" : `${value.toFixed(2)} × the even share${sink}`;
    const item = make("li", `${place.name}: attention ${text}`);
    if (place.name === this.place.name) item.setAttribute("aria-current", "true");
    return item;
  }

  // Words of the store that contain what is typed, the most frequent first.
  addWords() {
    const list = make("datalist", undefined, { id: "words-of-the-store" });
    const field = this.form.elements.word;
    field.after(list);
    field.setAttribute("list", list.id);
    field.addEventListener("input", () => {
      clearTimeout(this.typed);
      this.typed = setTimeout(async () => {
        const word = field.value.trim();
        if (!word) return;
        try {
          const { most } = await answerOf("words", { word: word.slice(0, 500) });
          list.replaceChildren(...most.map(([text, count]) =>
            make("option", `${count.toLocaleString("en")} tokens`, { value: visible(text).trim() })));
        } catch (error) {
          this.failed(error);
        }
      }, REST);
    });
  }
}

const root = document.getElementById("explorer-view");
new LiveExplorer(root, JSON.parse(document.getElementById("explorer-data").textContent));
