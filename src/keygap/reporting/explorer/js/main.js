// The explorer: what is shown, and what keys and controls change of it.

const KEYS = {
  ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1],
};
const ABOUT = {
  tsne: "It keeps neighbours, not distances: how far apart two groups lie, how large or dense they are " +
    "and whether they touch measure nothing, and it finds groups in noise too. Coordinates of " +
    "different layers cannot be compared. The gap is in the tables.",
  pca: "Two components leave out most of the variance, so tokens that are far apart may lie together. " +
    "Coordinates of different layers cannot be compared. The gap is in the tables.",
};

class Explorer {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.runs = data.runs.map(() => null); // read when they are first looked at
    this.form = root.querySelector("form");
    this.find = (name) => root.querySelector(`[data-part="${name}"]`);
    this.state = { run: 0, place: 0, method: "tsne", colour: "modality", current: -1 };
    this.hover = -1;
    this.selected = new Set();
    this.plot = new Plot(this.find("plot"), {
      hover: (token) => this.hovered(token),
      pick: (token, add) => this.picked(token, add),
      lasso: (tokens, add, path) => this.lassoed(tokens, add, path),
      settled: () => this.settled(),
    });
    this.small = new this.Small(this.find("small"), (number) => this.goTo(number));
    this.wire();
    this.startRun(0);
    root.hidden = false;
  }

  // The small plots; a page that has not all places at once has none.
  get Small() {
    return SmallPlots;
  }

  // The view was moved. A page that has all tokens has nothing to do.
  settled() {}

  get run() {
    const { run } = this.state;
    if (!this.runs[run]) this.runs[run] = readRun(this.data.runs[run], this.data);
    return this.runs[run];
  }

  get place() {
    return this.run.places[this.state.place];
  }

  wire() {
    const { elements } = this.form;
    fill(elements.run, this.data.runs.map((run) => `${visible(run.model)} on ${visible(run.benchmark)}`));
    elements.run.addEventListener("change", () => this.startRun(Number(elements.run.value)));
    elements.place.addEventListener("change", () => this.goTo(Number(elements.place.value)));
    for (const name of ["method", "colour"]) {
      elements[name].addEventListener("change", () => {
        this.state[name] = elements[name].value;
        this.refresh();
      });
    }
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.find("filters").addEventListener("input", () => this.filtered());
    elements.word.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && elements.word.value.trim()) this.selectShown();
    });
    this.form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.clear();
    });
    const press = (name, act) => this.find(name).addEventListener("click", act);
    press("select", () => this.selectShown());
    press("clear", () => this.clear());
    press("all", () => this.showAll());
    press("export", () => this.exported());
    press("lasso", () => this.setLasso(!this.plot.lassoOn));
    press("closer", () => this.plot.scale(1.5));
    press("farther", () => this.plot.scale(1 / 1.5));
    press("whole", () => this.plot.reset());
    this.find("plot").addEventListener("keydown", (event) => this.key(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.refresh());
  }

  startRun(number) {
    this.state = { ...this.state, run: number, place: 0, current: -1 };
    this.selected = new Set();
    this.hover = -1;
    const { run, form } = this;
    form.elements.run.value = String(number);
    fill(form.elements.place, run.places.map((place) => place.name));
    fill(form.elements.modality, choicesOf(run, modalityOf), "all");
    fill(form.elements.role, choicesOf(run, roleName), "all");
    form.elements.method.querySelector('[value="pca"]').disabled = !run.places.some((one) => one.pca);
    const has = run.places.some((place) => place.attention);
    for (const option of form.elements.colour.options) {
      if (["attention", "sink"].includes(option.value)) option.disabled = !has;
      if (["row", "column"].includes(option.value)) option.disabled = !run.patches;
      if (option.disabled && option.selected) form.elements.colour.value = "modality";
    }
    this.state.colour = form.elements.colour.value;
    this.notes();
    this.small.start(run);
    this.plot.reset();
    this.filtered();
  }

  // What the run lacks, said once and above everything.
  notes() {
    const { run } = this;
    const notes = [];
    if (!run.patches) {
      notes.push("The image tokens of this model do not correspond to single patches: none can be outlined.");
    }
    if (!run.thumbnails) {
      notes.push("This run keeps no thumbnails: keygap extract keeps them unless --no-thumbnails is given.");
    }
    if (run.missing.length) {
      notes.push(`Its projection is of an earlier keygap, without ${run.missing.join(" and ")}: ` +
        "keygap project and keygap report add it.");
    }
    const box = this.find("notes");
    box.replaceChildren(...notes.map((note) => make("p", note)));
  }

  filtered() {
    this.filter = readFilter(this.form);
    this.refresh();
  }

  goTo(number) {
    if (number < 0 || number >= this.run.places.length) return;
    this.state.place = number;
    this.form.elements.place.value = String(number);
    this.refresh();
  }

  view(place) {
    const { run, state } = this;
    const mode = scheme();
    return {
      run, place, mode,
      points: place[state.method] || place.tsne,
      mask: place === this.place ? this.mask : maskOf(run, place, this.filter),
      colours: place === this.place ? this.colours : colouring(run, place, state.colour, mode),
      selected: this.selected,
      current: state.current,
    };
  }

  refresh() {
    const { run, place, state } = this;
    if (state.method === "pca" && !place.pca) {
      this.form.elements.method.value = state.method = "tsne";
    }
    this.mask = maskOf(run, place, this.filter);
    this.colours = colouring(run, place, state.colour, scheme());
    this.find("about").textContent = ABOUT[state.method];
    this.find("method-name").textContent = state.method === "tsne" ? "t-SNE" : "PCA";
    showLegend(this.find("legend"), run, place, this.colours);
    this.redraw();
  }

  redraw() {
    this.plot.show(this.view(this.place));
    this.small.show(this.state.place, (place) => this.view(place));
    showList(this.find("list"), this.run, this.place, this.selected, (token) => this.focus(token));
    this.find("export").disabled = !this.selected.size;
    this.card();
    this.count();
  }

  card() {
    const token = this.hover >= 0 ? this.hover : this.state.current;
    showCard(this.find("card"), this.run, this.place, token, this.selected);
  }

  count(extra = "") {
    let shown = 0;
    let all = 0;
    for (let i = 0; i < this.run.count; i++) {
      shown += this.mask[i];
      all += this.place.row[i] >= 0 ? 1 : 0;
    }
    const number = (value) => value.toLocaleString("en");
    this.find("count").textContent =
      `${number(shown)} of ${number(all)} tokens shown, ${number(this.selected.size)} selected${extra}`;
  }

  say(text) {
    this.find("status").textContent = text;
  }

  hovered(token) {
    if (token === this.hover) return;
    this.hover = token;
    this.find("plot").classList.toggle("over", token >= 0);
    this.card();
  }

  // A click on a point selects it, or with Shift adds it or takes it out; beside all points it clears.
  picked(token, add) {
    if (token < 0) {
      if (!add) this.clear();
      return;
    }
    this.state.current = token;
    if (!add) this.selected = new Set([token]);
    else this.toggle(token);
    this.redraw();
    this.say(summaryOf(this.run, this.place, token));
  }

  toggle(token) {
    if (!this.selected.delete(token)) this.selected.add(token);
  }

  focus(token) {
    if (token < 0) return;
    this.state.current = token;
    this.hover = -1;
    this.plot.show(this.view(this.place));
    this.plot.reveal(token);
    this.small.show(this.state.place, (place) => this.view(place));
    this.card();
    this.say(summaryOf(this.run, this.place, token));
  }

  select(tokens, add, how) {
    this.selected = new Set(add ? [...this.selected, ...tokens] : tokens);
    this.setLasso(false);
    this.redraw();
    this.say(`${tokens.length.toLocaleString("en")} tokens selected by ${how}`);
  }

  lassoed(tokens, add) {
    this.select(tokens, add, "lasso");
  }

  selectShown() {
    const shown = [];
    for (let i = 0; i < this.run.count; i++) if (this.mask[i]) shown.push(i);
    this.select(shown, false, "filter");
  }

  clear() {
    this.setLasso(false);
    this.selected = new Set();
    this.state.current = -1;
    this.hover = -1;
    this.redraw();
    this.say("Selection cleared");
  }

  showAll() {
    const { elements } = this.form;
    for (const element of this.find("filters").querySelectorAll("input, select")) element.value = "";
    elements.word.value = "";
    this.filtered();
    this.say("All tokens are shown");
  }

  setLasso(on) {
    this.plot.setLasso(on);
    this.find("lasso").setAttribute("aria-pressed", String(on));
  }

  exported() {
    const name = `keygap-${this.run.model}-tokens.csv`.replace(/[^\w.-]+/g, "-");
    download(name, csvOf(this.run, this.selected));
    this.say(`${this.selected.size.toLocaleString("en")} tokens exported as ${name}`);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = this.actionOf(event);
    if (!act) return;
    event.preventDefault();
    act();
  }

  actionOf({ key, shiftKey }) {
    const { current, place } = this.state;
    if (key in KEYS && !shiftKey) return () => this.focus(this.plot.next(current, KEYS[key]));
    return {
      ArrowRight: () => this.focus(this.inOrder(1)),
      ArrowLeft: () => this.focus(this.inOrder(-1)),
      PageDown: () => this.focus(this.ofSample(1)),
      PageUp: () => this.focus(this.ofSample(-1)),
      Home: () => this.focus(this.mask.indexOf(1)),
      End: () => this.focus(this.mask.lastIndexOf(1)),
      "]": () => this.goTo(place + 1),
      "[": () => this.goTo(place - 1),
      "+": () => this.plot.scale(1.5),
      "=": () => this.plot.scale(1.5),
      "-": () => this.plot.scale(1 / 1.5),
      0: () => this.plot.reset(),
      Enter: current < 0 ? null : () => this.entered(),
      " ": current < 0 ? null : () => this.entered(),
      Escape: () => this.clear(),
    }[key];
  }

  entered() {
    this.toggle(this.state.current);
    this.redraw();
    const is = this.selected.has(this.state.current) ? "selected" : "not selected";
    this.say(`${summaryOf(this.run, this.place, this.state.current)}; ${is}`);
  }

  // The next shown token in the order of the prompts; tokens are stored in it.
  inOrder(step) {
    const start = this.state.current < 0 ? (step > 0 ? -1 : this.run.count) : this.state.current;
    for (let i = start + step; i >= 0 && i < this.run.count; i += step) if (this.mask[i]) return i;
    return -1;
  }

  // The first shown token of the next sample that has one, or of the one before.
  ofSample(step) {
    const { sample } = this.run.tokens;
    const { current } = this.state;
    if (current < 0) return this.inOrder(step);
    let i = current;
    while (i >= 0 && i < this.run.count && (sample[i] === sample[current] || !this.mask[i])) i += step;
    if (i < 0 || i >= this.run.count) return -1;
    const found = sample[i];
    while (step < 0 && i > 0 && sample[i - 1] === found) i--;
    while (!this.mask[i]) i++;
    return i;
  }
}

function fill(select, names, all) {
  const options = names.map((name, i) => make("option", name, { value: all === undefined ? i : name }));
  if (all !== undefined) options.unshift(make("option", all, { value: "" }));
  select.replaceChildren(...options);
}

function showLegend(box, run, place, colours) {
  box.replaceChildren();
  const add = (colour, name, shape) => {
    const item = make("span", undefined, { class: "entry" });
    const swatch = make("i", undefined, { class: `swatch ${shape || ""}` });
    if (colour) swatch.style.background = colour;
    item.append(swatch, name);
    box.append(item);
  };
  if (colours.note) box.append(make("span", colours.note, { class: "entry" }));
  if (colours.ends) {
    const bar = make("span", undefined, { class: "entry" });
    const ramp = make("i", undefined, { class: "ramp" });
    ramp.style.background = `linear-gradient(to right, ${colours.steps.join(", ")})`;
    const [low, high] = colours.ends.map((end) => end.toLocaleString("en", { maximumSignificantDigits: 3 }));
    bar.append(low, ramp, high);
    box.append(bar);
  }
  const shapes = choicesOf(run, modalityOf);
  if (colours.by !== "modality") shapes.forEach((name) => add("", name, SHAPES[name]));
  colours.entries.forEach(({ name, colour }) => {
    add(colour, name, colours.by === "modality" ? SHAPES[name] : "");
  });
}
