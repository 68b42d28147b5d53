"""Which tokens are text, image or attention sinks, and how samples are split in two halves."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from keygap.contrasts.contrast import Masks, NotMeasurable
from keygap.store.layer import with_grids

SINK_SHARE = 5.0  # a sink receives at least this many times the even share of attention


def is_text(labels: pd.DataFrame, roles: Sequence[str]) -> Bool[np.ndarray, " n"]:
    """Text tokens of the given roles."""
    return ((labels["modality"] == "text") & labels["role"].isin(list(roles))).to_numpy()


def is_drawn(labels: pd.DataFrame) -> Bool[np.ndarray, " n"]:
    """Tokens without the image tokens that are stored only because they are attention sinks.

    A selection by attention would bias a contrast. Without a column ``drawn``, that is all tokens.
    """
    if "drawn" not in labels:
        return np.ones(len(labels), dtype=bool)
    return labels["drawn"].to_numpy(dtype=bool)


def is_visual(labels: pd.DataFrame) -> Bool[np.ndarray, " n"]:
    """Tokens that show part of an image or of a video frame; separators and padding show none."""
    visual = labels["modality"].isin(["image", "video"])
    return (visual & ~labels["role"].isin(["separator", "padding"])).to_numpy()


def is_image(labels: pd.DataFrame) -> Bool[np.ndarray, " n"]:
    """Visual tokens, without those that were kept because they are sinks."""
    return is_visual(labels) & is_drawn(labels)


def grid_ends(
    labels: pd.DataFrame, column: str
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The first and the last row or column of the grid of patches that each token belongs to.

    Where a store keeps only some tokens of an image, it adds both (``store.layer.with_grids``).

    Args:
        labels: of tokens.
        column: ``patch_row`` or ``patch_column``.
    """
    known = labels if f"{column}_first" in labels else with_grids(labels)
    return known[f"{column}_first"].to_numpy(), known[f"{column}_last"].to_numpy()


def is_sink(labels: pd.DataFrame) -> Bool[np.ndarray, " n"]:
    """Tokens that receive at least ``SINK_SHARE`` times the even share of attention."""
    return (labels["attention"] >= SINK_SHARE).to_numpy()


def refuse_unknown_sinks(labels: pd.DataFrame, among: Bool[np.ndarray, " n"]) -> None:
    """Refuse to tell sinks from other tokens where no attention was recorded.

    Raises:
        NotMeasurable: none of these tokens has a share of attention.
    """
    if among.any() and labels["attention"][among].isna().all():
        raise NotMeasurable(
            "the run does not say how much attention these tokens receive, so sinks are unknown"
        )


def rank(seed: int, item: object) -> bytes:
    """Sort key of a random order that depends on the seed and on nothing else.

    It is the same on every machine, and unrelated to the order in which samples were chosen.
    """
    return hashlib.sha256(f"contrast:{seed}:{item}".encode()).digest()


def halves(labels: pd.DataFrame, selected: Bool[np.ndarray, " n"], seed: int) -> Masks:
    """Split selected tokens in two halves of the samples.

    A split by token would put tokens of one image on both sides.

    Args:
        labels: n labelled tokens.
        selected: (n,), the tokens to split.
        seed: of the random order of the samples.

    Returns:
        The masks of both halves, each (n,).
    """
    ids = sorted(labels["sample_id"][selected].unique(), key=lambda item: rank(seed, item))
    first = labels["sample_id"].isin(ids[: len(ids) // 2]).to_numpy()
    return selected & first, selected & ~first
