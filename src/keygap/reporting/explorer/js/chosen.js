// The selected tokens: a list of them, and a CSV file.

const MOST_LISTED = 100;
const COLUMNS = ["model", "benchmark", "site", "layer", "sample_id", "position", "token", "modality",
  "role", "image", "frame", "patch_row", "patch_column", "attention", "sink", "tsne_x", "tsne_y",
  "pc_1", "pc_2"];

function showList(list, run, place, selected, pick) {
  list.replaceChildren();
  const all = [...selected].sort((a, b) => a - b);
  for (const token of all.slice(0, MOST_LISTED)) {
    const button = make("button", undefined, { type: "button" });
    const { sample, position, row, column } = run.tokens;
    const name = isText(run, token)
      ? visible(wordOf(run, token), 40)
      : row[token] < 0 ? kindOf(run, token) : `patch ${row[token]}, ${column[token]}`;
    button.append(make("bdi", name, { class: "word" }), " ", make("small"));
    const role = isText(run, token) ? roleOf(run, token) : modalityOf(run, token);
    button.lastChild.append(
      make("bdi", visible(run.samples[sample[token]], 40)), ` · ${position[token]} · ${role}`
    );
    button.addEventListener("click", () => pick(token));
    const item = make("li");
    item.append(button);
    list.append(item);
  }
  if (all.length > MOST_LISTED) {
    const more = (all.length - MOST_LISTED).toLocaleString("en");
    list.append(make("li", `and ${more} more, all of them in the CSV file`));
  }
}

// One row for each selected token at each site and layer.
function csvOf(run, selected) {
  const lines = [COLUMNS.join(",")];
  const tokens = [...selected].sort((a, b) => a - b);
  for (const place of run.places) {
    for (const token of tokens) {
      if (place.row[token] >= 0) lines.push(rowOf(run, place, token).map(quoted).join(","));
    }
  }
  return lines.join("\r\n") + "\r\n";
}

function rowOf(run, place, token) {
  const { sample, position, word, image, frame, row, column } = run.tokens;
  const attention = attentionOf(place, token);
  const known = !Number.isNaN(attention);
  const at = place.row[token];
  const pair = (points) => (points ? points.value(at).map((value) => value.toPrecision(6)) : ["", ""]);
  return [
    run.model, run.benchmark, place.site, place.layer, run.samples[sample[token]], position[token],
    run.words[word[token]], modalityOf(run, token), roleOf(run, token), image[token], frame[token],
    row[token], column[token], known ? attention : "", known ? isSink(run, place, token) : "",
    ...pair(place.tsne), ...pair(place.pca),
  ];
}

function quoted(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  const link = make("a", undefined, { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
