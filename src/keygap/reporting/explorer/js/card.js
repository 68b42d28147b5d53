// One token: what it is, its word in its prompt, and its patch on the image.

const MOST_PICTURES = 4; // that are shown for a token of text
const MOST_WORDS = 1500; // of a prompt that are shown around its token

// An element with text. Text of a dataset reaches the page through here alone, as text.
function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function kindOf(run, token) {
  const role = roleOf(run, token);
  const modality = modalityOf(run, token);
  if (modality === "text") return role ? `text token, role ${role}` : "text token";
  if (role === "thumbnail") return `${modality} token of the coarser view`;
  if (role) return `${modality} token, ${role}`;
  return run.tokens.row[token] < 0 ? `${modality} token` : `${modality} patch`;
}

function attentionText(run, place, token) {
  const value = attentionOf(place, token);
  if (Number.isNaN(value)) return place.row[token] < 0 ? "not in this layer" : "not known";
  return `${value.toFixed(2)} × the even share${isSink(run, place, token) ? ", a sink" : ""}`;
}

// A line that says which token it is, for the status line that screen readers read.
function summaryOf(run, place, token) {
  const { sample, position, row, column } = run.tokens;
  const patch = row[token] < 0 ? "" : `, row ${row[token]}, column ${column[token]}`;
  const name = isText(run, token) ? `“${visible(wordOf(run, token), 40)}”, ` : "";
  return `${name}${kindOf(run, token)}${patch}, position ${position[token]} of sample ` +
    `${visible(run.samples[sample[token]], 60)}; attention ${attentionText(run, place, token)}`;
}

function showCard(card, run, place, token, selected) {
  card.replaceChildren();
  if (token < 0) {
    card.append(
      make("p", "Point at a token, or move to one with the arrow keys, to see its prompt and image.",
        { class: "hint" })
    );
    return;
  }
  const text = isText(run, token);
  const title = make("h3");
  title.append(make("bdi", text ? `“${visible(wordOf(run, token))}”` : kindOf(run, token)));
  card.append(title, facts(run, place, token), prompt(run, token), pictures(run, token, selected));
  if (run.places.length > 1) card.append(elsewhere(run, place, token));
}

function facts(run, place, token) {
  const { sample, position, row, column, frame } = run.tokens;
  const list = make("dl");
  const add = (name, value) => {
    const cell = make("dd");
    cell.append(make("bdi", value));
    list.append(make("dt", name), cell);
  };
  if (isText(run, token)) add("kind", kindOf(run, token));
  add("sample", visible(run.samples[sample[token]]));
  add("position", String(position[token]));
  if (row[token] >= 0) add("patch", `row ${row[token]}, column ${column[token]} (from 0)`);
  if (frame[token] >= 0) add("frame", String(frame[token]));
  add("attention", attentionText(run, place, token));
  return list;
}

// The entry of a prompt that holds a token.
function entryOf(run, token) {
  const { position, length } = run.prompts;
  const sample = run.tokens.sample[token];
  const at = run.tokens.position[token];
  for (let i = run.start[sample]; i < run.start[sample + 1]; i++) {
    if (at >= position[i] && at < position[i] + Math.max(1, length[i])) return i;
  }
  return -1;
}

function prompt(run, token) {
  const { role, word, image, length } = run.prompts;
  const sample = run.tokens.sample[token];
  const here = entryOf(run, token);
  const first = Math.max(run.start[sample], here - MOST_WORDS / 2);
  const last = Math.min(run.start[sample + 1], first + MOST_WORDS);
  const box = make("div", undefined, {
    class: "prompt", role: "group", "aria-label": "The prompt", tabindex: 0, // it may scroll
  });
  if (first > run.start[sample]) box.append(make("span", "… "));
  let group = null;
  let known = null;
  let mark = null;
  for (let i = first; i < last; i++) {
    const name = length[i] ? "image" : run.data.roles[role[i]] || "no role";
    if (name !== known || length[i]) {
      known = name;
      group = make("span", undefined, { class: "group", "data-role": name });
      group.append(make("small", name), " ");
      box.append(group);
    }
    const shown = length[i]
      ? `${image[i] < 0 ? "" : image[i] + 1} (${length[i].toLocaleString("en")} positions)`
      : visible(run.text[word[i]], 200);
    const element = make(i === here ? "mark" : "span", undefined, { class: "word" });
    element.append(make("bdi", shown));
    if (i === here) mark = element;
    group.append(element);
  }
  if (last < run.start[sample + 1]) box.append(make("span", " …"));
  if (mark) requestAnimationFrame(() => (box.scrollTop = Math.max(0, mark.offsetTop - 60)));
  return box;
}

function pictures(run, token, selected) {
  const box = make("div", undefined, { class: "pictures" });
  const sample = run.tokens.sample[token];
  const own = run.thumbnails && run.thumbnails.get(sample);
  const text = isText(run, token);
  if (!own || !own.length) {
    const why = run.thumbnails ? "This sample has no thumbnail" : "This run keeps no thumbnails";
    box.append(make("p", `${why}: its images cannot be shown.`, { class: "hint" }));
  } else if (text) {
    own.slice(0, MOST_PICTURES).forEach((one) => box.append(picture(run, one, sample, [])));
    const more = own.length - MOST_PICTURES;
    if (more > 0) box.append(make("p", `and ${more} more images`, { class: "hint" }));
  } else {
    const found = pictureOf(run, token);
    const inside = [...selected].filter((one) => one !== token && sharesPicture(run, one, token));
    if (found) box.append(picture(run, found, sample, [token, ...inside]));
  }
  if (!text && run.tokens.row[token] < 0) {
    const why = run.patches
      ? "This position shows no single patch, so none is outlined."
      : "The image tokens of this model do not correspond to single patches (its connector mixes them, or their " +
        "layout is not known), so none is outlined.";
    box.append(make("p", why, { class: "hint" }));
  }
  return box;
}

function sharesPicture(run, one, other) {
  const { sample, image, frame } = run.tokens;
  return !isText(run, one) && roleOf(run, one) === roleOf(run, other) &&
    [sample, image, frame].every((labels) => labels[one] === labels[other]);
}

// An image with the patches of some tokens outlined, the first of them as the one that is meant.
function picture(run, one, sample, tokens) {
  const figure = make("figure");
  const frame = make("div", undefined, { class: "frame" });
  const where = one.frame < 0 ? "" : `, frame ${one.frame}`;
  const name = `image ${one.image + 1}${where}`;
  frame.append(
    make("img", undefined, {
      src: `data:image/webp;base64,${run.data.pictures[one.picture]}`,
      alt: `${name} of sample ${visible(run.samples[sample], 60)}`,
    })
  );
  const { row, column } = run.tokens;
  const known = tokens.filter((token) => row[token] >= 0);
  if (one.grid) known.reverse().forEach((token) => frame.append(patch(run, one.grid, token, tokens[0])));
  const caption = make("figcaption", name);
  if (known.includes(tokens[0])) {
    const size = one.grid ? ` of ${one.grid[0]} × ${one.grid[1]} patches` : "";
    const lost = one.grid ? "" : "; where it lies on the image is not known";
    caption.textContent = `${name}: row ${row[tokens[0]]}, column ${column[tokens[0]]}${size}${lost}`;
  }
  figure.append(frame, caption);
  return figure;
}

function patch(run, grid, token, meant) {
  const box = patchBox(grid, run.tokens.row[token], run.tokens.column[token]);
  const element = make("div", undefined, { class: token === meant ? "patch" : "patch other" });
  for (const [side, share] of Object.entries(box)) element.style[side] = `${100 * share}%`;
  return element;
}

// The same token at the other sites and layers.
function elsewhere(run, place, token) {
  const details = make("details", undefined, { class: "elsewhere" });
  details.append(make("summary", "The same token elsewhere"));
  const list = make("ul");
  for (const one of run.places) {
    const item = make("li", `${one.name}: attention ${attentionText(run, one, token)}`);
    if (one === place) item.setAttribute("aria-current", "true");
    list.append(item);
  }
  details.append(list);
  return details;
}
