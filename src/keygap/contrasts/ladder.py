"""Contrasts: two selections of labelled tokens, compared. Together they make the ladder.

A gap between image and text means little beside two halves of one distribution, which nothing real
could fail to beat. So each modality is also contrasted with itself in ways that differ in kind, and
`image_text` is read against those. A new contrast is one function and one line in ``CONTRASTS``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from keygap.errors import UserError, unknown

SINK_SHARE = 5.0  # a sink receives this many times the even share of attention

Masks = tuple[np.ndarray, np.ndarray]
Rung = Literal["between", "same", "kind", "single", "own"]


class NotMeasurable(ValueError):
    """A contrast that these tokens do not have; the reason is for the reader of the table."""


@dataclass(frozen=True)
class Contrast:
    """Two selections of one table of labelled tokens.

    Attributes:
        name: the column's value.
        rung: ``between`` the modalities; the ``same`` distribution twice (the paper's baseline); a
            difference in ``kind`` inside one modality; a ``single`` word against a cloud, which is
            far by construction (a contrast of kind becomes one where its tokens make it so, see
            ``Case.rung``); the user's ``own``.
        what: one line for the reader.
        select: (labels, text roles, seed) -> two boolean masks over the labels' rows.
        draws: how many seeded selections stand behind it; the median one is measured, because a
            single random split of a small vocabulary can read twice what the next one reads.
    """

    name: str
    rung: Rung
    what: str
    select: Callable[[pd.DataFrame, Sequence[str], int], Masks]
    draws: int = 1


def is_text(labels: pd.DataFrame, roles: Sequence[str]) -> np.ndarray:
    """Text tokens of some roles."""
    return ((labels["modality"] == "text") & labels["role"].isin(list(roles))).to_numpy()


def is_image(labels: pd.DataFrame) -> np.ndarray:
    """Tokens of images and of videos' frames; a learned row end holds nothing of one."""
    visual = labels["modality"].isin(["image", "video"])
    return (visual & (labels["role"] != "separator")).to_numpy()


def is_sink(labels: pd.DataFrame) -> np.ndarray:
    """Tokens that receive at least ``SINK_SHARE`` times the even share of attention."""
    return (labels["attention"] >= SINK_SHARE).to_numpy()


def _rank(seed: int, item: object) -> bytes:
    """A seeded order that is the same on every machine, and not the one samples were chosen by."""
    return hashlib.sha256(f"contrast:{seed}:{item}".encode()).digest()


def halves(labels: pd.DataFrame, selected: np.ndarray, seed: int) -> Masks:
    """Two halves by sample: a split by token would leak one image into both."""
    ids = sorted(labels["sample_id"][selected].unique(), key=lambda item: _rank(seed, item))
    first = labels["sample_id"].isin(ids[: len(ids) // 2]).to_numpy()
    return selected & first, selected & ~first


def image_text(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    return is_image(labels), is_text(labels, roles)


def image_image(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    return halves(labels, is_image(labels), seed)


def text_text(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    return halves(labels, is_text(labels, roles), seed)


def text_vocabulary(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """Words dealt to two sides in a seeded order, each to the side with fewer tokens so far."""
    text = is_text(labels, roles)
    counts = labels["token_id"][text].value_counts()
    sides: tuple[list[int], list[int]] = ([], [])
    totals = [0, 0]
    for token_id in sorted(counts.index, key=lambda item: _rank(seed, item)):
        side = int(totals[0] > totals[1])
        sides[side].append(token_id)
        totals[side] += int(counts[token_id])
    if not totals[1]:
        raise NotMeasurable("the text has a single word")
    first, second = (labels["token_id"].isin(side).to_numpy() for side in sides)
    return text & first, text & second


def image_region(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """Upper against lower half of each image's rows, without the middle one of an odd number."""
    placed = is_image(labels) & (labels["patch_row"] >= 0).to_numpy()
    if not placed.any():
        raise NotMeasurable("the image tokens have no place in the image")
    rows = labels[placed].groupby(["sample_id", "image"], observed=True)["patch_row"]
    last = rows.transform("max").reindex(labels.index).to_numpy()
    row = labels["patch_row"].to_numpy()
    upper = placed & (2 * row < last)
    lower = placed & (2 * row > last)
    if not upper.any() or not lower.any():
        raise NotMeasurable("the images have a single row of tokens")
    return upper, lower


def _sinks(labels: pd.DataFrame, among: np.ndarray, whose: str) -> Masks:
    sinks = is_sink(labels) & among
    if not sinks.any():
        raise NotMeasurable(f"no {whose} receives {SINK_SHARE:g} times its even share of attention")
    return sinks, among & ~sinks


def image_sink(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    return _sinks(labels, is_image(labels), "image token")


def text_sink(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """Of all text: in a chat template the sink is usually a template token."""
    return _sinks(labels, (labels["modality"] == "text").to_numpy(), "text token")


def text_token(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """One word against all other text: what any one word reads, to read ``text_sink`` against.

    The word is no sink anywhere and stands once in a sample, as the sink does: three line breaks of
    a template are three places, and nearer to the rest. Of those, the one of most samples.
    """
    text = (labels["modality"] == "text").to_numpy()
    sinks = labels["token_id"][text & is_sink(labels)]
    counts = labels[text].groupby(["token_id", "sample_id"], observed=True).size()
    words = counts.groupby(level="token_id").agg(["max", "size"]).drop(index=sinks.unique())
    once = words["size"][words["max"] == 1]
    if once.empty:
        raise NotMeasurable("no word that is no sink stands once in a sample")
    commonest = min(once[once == once.max()].index)
    one = text & (labels["token_id"] == commonest).to_numpy()
    if one.sum() == text.sum():
        raise NotMeasurable("the text has a single word")
    return one, text & ~one


CONTRASTS = {
    contrast.name: contrast
    for contrast in (
        Contrast("image_text", "between", "image tokens, text of the chosen roles", image_text),
        Contrast("image_image", "same", "image tokens of two halves of the samples", image_image),
        Contrast(
            "text_text",
            "same",
            "text of the chosen roles of two halves of the samples",
            text_text,
        ),
        Contrast(
            "text_vocabulary",
            "kind",
            "text of the chosen roles: two sets of words (the median of 9 random ones)",
            text_vocabulary,
            draws=9,
        ),
        Contrast("image_region", "kind", "image tokens: upper, lower patches", image_region),
        Contrast("image_sink", "kind", "image tokens: attention sinks, the others", image_sink),
        Contrast(
            "text_sink",
            "kind",
            "all text: attention sinks, the others; single where the sinks are one word",
            text_sink,
        ),
        Contrast(
            "text_token",
            "single",
            "all text: one word that is no sink and stands once in a sample, the others",
            text_token,
        ),
    )
}


def refuse_one_sided(labels: pd.DataFrame, roles: Sequence[str]) -> None:
    """Refuse tokens of which image and text cannot be compared: one side is empty.

    Raises:
        NotMeasurable: all tokens of a layer are of one modality.
        UserError: no image token, or no text token of these roles; names the roles that there are.
    """
    if len(kinds := labels["modality"].unique()) == 1:
        raise NotMeasurable(
            f"image and text meet in cross-attention, and at this layer every token is {kinds[0]}: "
            "there is nothing to compare"
        )
    if not is_image(labels).any():
        raise UserError("the run has no image tokens to compare")
    if not is_text(labels, roles).any():
        there = sorted(labels["role"][labels["modality"] == "text"].unique())
        raise UserError(
            f"the run has no text tokens to compare: none of role {', '.join(roles)}, only of "
            f"{', '.join(there)}; choose with --text-roles (text_roles in an experiment)"
        )


def contrast_of(name: str | Contrast) -> Contrast:
    """The contrast of a name; one that is a contrast already stays as it is.

    Raises:
        UserError: there is none.
    """
    if isinstance(name, Contrast):
        return name
    if name not in CONTRASTS:
        raise unknown("contrast", name, CONTRASTS)
    return CONTRASTS[name]
