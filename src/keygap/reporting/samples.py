"""Some samples of a run as a person sees them: image, question, answers, gap and attention.

Numbers over 200 samples hide what the model was asked. A few samples are shown, wrong answers
first, drawn by the run's seed; the others are in ``samples.parquet`` and ``answers.csv``.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from keygap import random_streams
from keygap.bias.separation import separation
from keygap.reporting.run import Run
from keygap.store import Store
from keygap.store.reading import read_csv
from keygap.store.results import is_recorded, result_checksums
from keygap.store.run import ANSWERS

SHOWN = 12
ANSWER_COLUMNS = ("sample_id", "chosen", "answer", "correct")
LONGEST = 400  # characters of a question


@dataclass(frozen=True)
class Samples:
    """What the report shows of single samples.

    Attributes:
        rows: one dictionary per sample: ``id``, ``pictures`` (data URLs), ``question``, ``chosen``,
            ``answer``, ``correct`` (None: not scored), ``gap``, ``attention``.
        total: number of samples that were read.
        where: site and layer that ``gap`` is of.
        pictures: whether the run keeps thumbnails.
    """

    rows: list[dict[str, Any]]
    total: int
    where: str
    pictures: bool


def samples_of(run: Run, attention: pd.DataFrame | None) -> Samples | None:
    """Choose samples and collect what is known of each; None for a run without a store.

    Args:
        run: the run.
        attention: rows of ``attention.parquet``; None if attention was not measured.

    Raises:
        UserError: a file of the run is damaged.
    """
    store = run.store
    if store is None:
        return None
    read = store.samples[store.samples["failure"].isna()]
    answers = _answers(store)
    chosen = _chosen(read, answers, int(run.manifest.get("seed", 0)))
    site = store.sites[0]
    layers = store.layers(site)
    layer = layers[len(layers) // 2]
    gap = separation(store.vectors(site, layer), run.table.settings["text_roles"])
    gaps = gap.groupby("sample_id", observed=True)["separation"].mean()
    shares = _image_attention(attention)
    pictures = _pictures(store, chosen["sample_id"].astype(str).tolist())
    rows = []
    for row in chosen.to_dict("records"):
        name = str(row["sample_id"])
        scored = None if answers is None or name not in answers.index else answers.loc[name]
        question = str(row.get("question") or "")
        rows.append({
            "id": name,
            "pictures": pictures.get(name, []),
            "question": question if len(question) <= LONGEST else f"{question[:LONGEST]}…",
            "chosen": "" if scored is None else scored["chosen"],
            "answer": row.get("answer") or "",
            "correct": None if scored is None else _truth(str(scored["correct"])),
            "gap": float(gaps.get(name, math.nan)),
            "attention": float(shares.get(name, math.nan)),
        })  # fmt: skip
    return Samples(rows, len(read), f"{site}, layer {layer}", store.thumbnails is not None)


def _answers(store: Store) -> pd.DataFrame | None:
    if not is_recorded(store.root, ANSWERS):
        return None
    remedy = "repeat the keygap run or kg.answer that wrote it"
    text = ("sample_id", "chosen", "answer", "correct")
    checksums = result_checksums(store.root, ANSWERS, remedy)
    options: Any = {"dtype": dict.fromkeys(text, str), "keep_default_na": False}
    frame = read_csv(store.root / ANSWERS, remedy, ANSWER_COLUMNS, text, checksums, **options)
    return frame.set_index("sample_id")


def _truth(text: str) -> bool | None:
    """Whether an answer was right; None if it was not scored."""
    return {"True": True, "False": False}.get(text)


def _chosen(read: pd.DataFrame, answers: pd.DataFrame | None, seed: int) -> pd.DataFrame:
    """The samples that are shown: half wrong answers, if there are that many, in a random order."""
    rng = random_streams.generator(seed, "samples of a report")
    order = read.iloc[rng.permutation(len(read))]
    if answers is None:
        return order.head(SHOWN)
    wrong_ids = answers.index[answers["correct"] == "False"]
    wrong = order["sample_id"].astype(str).isin(wrong_ids)
    first = order[wrong].head(SHOWN // 2)
    return pd.concat([first, order[~wrong].head(SHOWN - len(first))])


def _image_attention(attention: pd.DataFrame | None) -> pd.Series:
    """Share of attention that the last position of a prompt gives to its image, by sample."""
    if attention is None:
        return pd.Series(dtype=float)
    last = attention[(attention["queries"] == "last")]
    image = last["mass"].where(last["modality"].isin(["image", "video"]), 0.0)
    by_head = image.groupby([last["sample_id"], last["layer"], last["head"]], observed=True).sum()
    return by_head.groupby("sample_id", observed=True).mean()


def _pictures(store: Store, names: list[str]) -> dict[str, list[str]]:
    """Thumbnails of some samples as data URLs, by sample."""
    table = store.thumbnails
    if table is None:
        return {}
    own = table[table["sample_id"].astype(str).isin(names)]
    found: dict[str, list[str]] = {}
    for row in own.to_dict("records"):
        data = base64.b64encode(row["picture"]).decode()
        found.setdefault(str(row["sample_id"]), []).append(f"data:image/webp;base64,{data}")
    return found
