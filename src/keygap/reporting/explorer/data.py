"""What the explorer shows of each run, as compact JSON.

Numbers are typed arrays in base64. Coordinates have 16 bits, which is finer than any screen. Each
token, prompt and picture is there once, however many layers and sites show it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from keygap.reporting.explorer.words import readable
from keygap.reporting.run import Run
from keygap.store import Store
from keygap.tokens import MODALITIES, ROLES

STEPS = 2**16 - 1  # of a coordinate
KEY = ["sample_id", "position"]
METHODS = {"tsne": ("x", "y"), "pca": ("pc_1", "pc_2")}
SINCE = {"pc_1": "principal components", "attention": "the attention that tokens receive"}
PLACE = ("image", "frame", "patch_row", "patch_column")  # keygap 0.1 had no frames
GRID = ("rows", "columns", "top", "bottom", "left", "right")


class Pictures:
    """Pictures in base64, each once: the runs of a study often show the same images."""

    def __init__(self) -> None:
        self.encoded: dict[str, int] = {}

    def number(self, picture: bytes) -> int:
        """The number of a picture in the order of ``encoded``."""
        return self.encoded.setdefault(base64.b64encode(picture).decode(), len(self.encoded))


def as_json(value: Any) -> str:
    """JSON in ASCII that can stand between the tags of a script: no text in it ends the script."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def data_of(runs: Sequence[Run]) -> dict[str, Any] | None:
    """What the explorer shows of some runs; None if none of them was projected."""
    pictures = Pictures()
    found = [
        _run(run, run.store, run.projection, pictures)
        for run in runs
        if run.store is not None and run.projection is not None and not run.projection.empty
    ]
    if not found:
        return None
    return {
        "modalities": list(MODALITIES),
        "roles": list(ROLES),
        "runs": found,
        "pictures": list(pictures.encoded),
    }


def _run(run: Run, store: Store, projection: pd.DataFrame, pictures: Pictures) -> dict[str, Any]:
    frame = projection.astype({"sample_id": str})
    tokens = store.tokens.astype({"sample_id": str})
    tokens = tokens.assign(**{name: -1 for name in PLACE if name not in tokens})
    tokens = tokens[tokens["sample_id"].isin(set(frame["sample_id"]))].reset_index(drop=True)
    drawn = tokens.merge(frame[KEY].drop_duplicates(), on=KEY)
    ids = list(dict.fromkeys(tokens["sample_id"]))
    number = {name: place for place, name in enumerate(ids)}
    spelled = list(dict.fromkeys(tokens["token"]))
    word = {token: place for place, token in enumerate(spelled)}
    image = drawn[drawn["modality"] != "text"]
    return {
        "model": run.model,
        "benchmark": str(run.manifest["benchmark"]),
        "samples": ids,
        "words": spelled,
        "readable": {
            word[one]: text
            for one, text in zip(spelled, readable(spelled), strict=True)
            if text != one
        },
        "tokens": {
            "count": len(drawn),
            "sample": packed(drawn["sample_id"].map(number), "<u4"),
            "position": packed(drawn["position"], "<u4"),
            "word": packed(drawn["token"].map(word), "<u4"),
            **_codes(drawn),
            **{
                name: packed(drawn[column], "<i2")
                for name, column in (
                    *(("image", "image"), ("frame", "frame")),
                    *(("row", "patch_row"), ("column", "patch_column")),
                )
            },
        },
        "prompts": prompts_of(tokens, number, word),
        "places": [
            _place(part, drawn)
            for _, part in frame.groupby(["site", "layer"], sort=False, observed=True)
        ],
        "thumbnails": _thumbnails(store, number, pictures),
        "patches": bool((image["patch_row"] >= 0).any()),
        "missing": [what for column, what in SINCE.items() if column not in frame],
    }


def packed(values: Any, kind: str) -> str:
    """Numbers in base64, little-endian.

    Args:
        values: the numbers.
        kind: numpy's name of their type, such as ``<u4``. Integers beyond it become its last one.
    """
    array = np.asarray(values)
    if kind[1] in "iu":
        array = np.clip(array.astype(np.int64), np.iinfo(kind).min, np.iinfo(kind).max)
    return base64.b64encode(array.astype(kind).tobytes()).decode()


def _codes(tokens: pd.DataFrame) -> dict[str, str]:
    return {
        name: packed(pd.Categorical(tokens[name].astype(str), known).codes, "<u1")
        for name, known in (("modality", MODALITIES), ("role", ROLES))
    }


def prompts_of(
    tokens: pd.DataFrame, number: dict[str, int], word: dict[str, int]
) -> dict[str, str | int]:
    """The words of each prompt, with one entry for all positions in a row that show one image.

    ``length`` is the number of these positions, and 0 for a word.

    Args:
        tokens: every token of some samples, in the order of a store.
        number: the number of each sample.
        word: the number of each spelling of a token.
    """
    sample = tokens["sample_id"].map(number).to_numpy()
    image = tokens["image"].to_numpy()
    inside = ((tokens["modality"] != "text") | (tokens["role"] == "separator")).to_numpy()
    same = (np.diff(sample, prepend=-1) == 0) & (np.diff(image, prepend=-2) == 0)
    goes_on = inside & np.roll(inside, 1) & same
    goes_on[:1] = False
    first = np.flatnonzero(~goes_on)
    length = np.diff(np.append(first, len(tokens)))
    rows = tokens.iloc[first]
    return {
        "count": len(first),
        "sample": packed(sample[first], "<u4"),
        "position": packed(rows["position"], "<u4"),
        "word": packed(rows["token"].map(word), "<u4"),
        "role": _codes(rows)["role"],
        "image": packed(image[first], "<i2"),
        "length": packed(np.where(inside[first], length, 0), "<u4"),
    }


def _place(part: pd.DataFrame, drawn: pd.DataFrame) -> dict[str, Any]:
    """One site and layer: which tokens it has, where they lie, and what attention they receive."""
    known = pd.Series(np.arange(len(drawn)), index=pd.MultiIndex.from_frame(drawn[KEY]))
    part = part.drop_duplicates(KEY).set_index(KEY)
    at = known.loc[part.index].to_numpy()
    order = np.argsort(at)
    part, at = part.iloc[order], at[order]
    return {
        "site": str(part["site"].iloc[0]),
        "layer": int(part["layer"].iloc[0]),
        "at": None if len(at) == len(drawn) else packed(at, "<u4"),
        **{
            method: coordinates(part[list(columns)].to_numpy(float)) if columns[0] in part else None
            for method, columns in METHODS.items()
        },
        "attention": packed(part["attention"], "<f4") if "attention" in part else None,
    }


def coordinates(points: np.ndarray) -> dict[str, Any]:
    """Points, (n, 2), as whole steps of 16 bits between their least and greatest coordinates."""
    if not len(points):
        return {"x": "", "y": "", "low": [0.0, 0.0], "step": [0.0, 0.0]}
    low, high = points.min(axis=0), points.max(axis=0)
    extent = np.where(high > low, high - low, 1.0)
    steps = np.rint((points - low) / extent * STEPS)
    return {
        "x": packed(steps[:, 0], "<u2"),
        "y": packed(steps[:, 1], "<u2"),
        "low": low.tolist(),
        "step": (extent / STEPS).tolist(),
    }


def _thumbnails(store: Store, number: dict[str, int], pictures: Pictures) -> dict[str, Any] | None:
    """The pictures that the samples show and the grids of their patches; None if none are kept."""
    return None if store.thumbnails is None else thumbnails_of(store.thumbnails, number, pictures)


def thumbnails_of(kept: pd.DataFrame, number: dict[str, int], pictures: Pictures) -> dict[str, Any]:
    """Pictures of samples, and the grids of their patches.

    Args:
        kept: rows of ``Store.thumbnails``.
        number: the number of each sample; rows of others are left out.
        pictures: where the pictures go.
    """
    kept = kept.astype({"sample_id": str})
    grids: dict[str, int] = {}
    rows = []
    for row in kept[kept["sample_id"].isin(number)].to_dict("records"):
        found: list[int | None] = []
        for prefix in ("grid", "coarse"):
            values = [row[f"{prefix}_{name}"] for name in GRID]
            known = not pd.isna(values).any()
            found.append(grids.setdefault(json.dumps(values), len(grids)) if known else None)
        shown = pictures.number(row["picture"])
        rows.append([number[row["sample_id"]], row["image"], row["frame"], shown, *found])
    return {"grids": [json.loads(grid) for grid in grids], "rows": rows}
