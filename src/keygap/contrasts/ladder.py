"""The contrasts that keygap defines; together they make the ladder.

A gap between image and text means little next to two halves of one distribution, because almost
any two sets of tokens are farther apart than those. Each modality is therefore also compared with
itself: in two halves, and in parts that differ in kind. The gap is judged by its ratio to the
contrasts of rung ``kind``.

A new contrast is a function that selects two sides, a ``Contrast``, and one line in
``keygap.contrasts.CONTRASTS``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool

from keygap.contrasts.contrast import Contrast, Masks, NotMeasurable
from keygap.contrasts.labels import (
    SINK_SHARE,
    grid_ends,
    halves,
    is_image,
    is_sink,
    is_text,
    is_visual,
    rank,
    refuse_unknown_sinks,
)
from keygap.errors import UserError


def image_text(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """Select image tokens and text tokens of the given roles.

    Raises:
        NotMeasurable: all tokens of this layer are of one modality.
        UserError: there is no image token, or no text token of these roles.
    """
    if len(kinds := labels["modality"].unique()) == 1:
        raise NotMeasurable(
            f"image and text meet in cross-attention, and at this layer every token is {kinds[0]}: "
            "there is nothing to compare"
        )
    image, text = is_image(labels), is_text(labels, roles)
    if not image.any():
        raise UserError("the run has no image tokens to compare")
    if not text.any():
        present = sorted(labels["role"][labels["modality"] == "text"].unique())
        raise UserError(
            f"the run has no text tokens to compare: none of role {', '.join(roles)}, only of "
            f"{', '.join(present)}; choose with --text-roles (text_roles in an experiment)"
        )
    return image, text


def image_caption(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """Select image tokens, and the tokens of the text that says what the image shows.

    Question and image speak of different things, and a caption and its image of the same. What is
    left of a gap here is due to the modality and not to the content.

    Raises:
        NotMeasurable: there are no image tokens, or no captions.
    """
    image, caption = is_image(labels), is_text(labels, ["caption"])
    if not image.any():
        raise NotMeasurable("there are no image tokens")
    if not caption.any():
        raise NotMeasurable("no text says what the images show: extract with --captions")
    return image, caption


def image_image(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """Select image tokens of two halves of the samples."""
    return halves(labels, is_image(labels), seed)


def text_text(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """Select text tokens of two halves of the samples."""
    return halves(labels, is_text(labels, roles), seed)


def text_vocabulary(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """Select text tokens by two disjoint sets of words.

    In a seeded order, each word goes to the side that has fewer tokens so far.

    Raises:
        NotMeasurable: the text has a single word.
    """
    text = is_text(labels, roles)
    counts = labels["token_id"][text].value_counts()
    words: tuple[list[int], list[int]] = ([], [])
    totals = [0, 0]
    for token_id in sorted(counts.index, key=lambda item: rank(seed, item)):
        side = int(totals[0] > totals[1])
        words[side].append(token_id)
        totals[side] += int(counts[token_id])
    if not totals[1]:
        raise NotMeasurable("the text has a single word")
    first, second = (labels["token_id"].isin(side).to_numpy() for side in words)
    return text & first, text & second


def image_region(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """Select the upper and the lower half of each image's rows; a middle row is on neither side.

    The rows of a thumbnail are halved apart from those of its image.

    Raises:
        NotMeasurable: image tokens have no position in the image, or the images have a single row.
    """
    placed = is_image(labels) & (labels["patch_row"] >= 0).to_numpy()
    if not placed.any():
        raise NotMeasurable("the image tokens have no place in the image")
    first, last = grid_ends(labels, "patch_row")
    row = labels["patch_row"].to_numpy()
    upper = placed & (2 * row < first + last)
    lower = placed & (2 * row > first + last)
    if not upper.any() or not lower.any():
        raise NotMeasurable("the images have a single row of tokens")
    return upper, lower


def image_sink(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """Select image tokens that are attention sinks, and the other image tokens.

    Raises:
        NotMeasurable: no image token is a sink, or attention was not recorded.
    """
    return _sinks(labels, is_visual(labels), "image token")


def text_sink(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """Select text tokens that are attention sinks, and the other text tokens.

    Text of every role is used, because in a chat template the sink is usually a template token.

    Raises:
        NotMeasurable: no text token is a sink, or attention was not recorded.
    """
    return _sinks(labels, (labels["modality"] == "text").to_numpy(), "text token")


def _sinks(labels: pd.DataFrame, among: Bool[np.ndarray, " n"], kind: str) -> Masks:
    refuse_unknown_sinks(labels, among)
    sinks = is_sink(labels) & among
    if not sinks.any():
        raise NotMeasurable(f"no {kind} receives {SINK_SHARE:g} times its even share of attention")
    return sinks, among & ~sinks


def text_token(labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
    """Select one ordinary word, and all other text: a reference for ``text_sink``.

    The word is never a sink and occurs at most once in a sample, as the sink does: a word that
    occurs three times has three positions and lies nearer to the rest. Of such words, the one in
    most samples is taken, and of equally common ones the one with the lowest token id.

    Raises:
        NotMeasurable: there is no such word, or no other text; or attention was not recorded.
    """
    text = (labels["modality"] == "text").to_numpy()
    refuse_unknown_sinks(labels, text)
    sinks = labels["token_id"][text & is_sink(labels)]
    counts = labels[text].groupby(["token_id", "sample_id"], observed=True).size()
    words = counts.groupby(level="token_id").agg(["max", "size"]).drop(index=sinks.unique())
    once = words["size"][words["max"] == 1]
    if once.empty:
        raise NotMeasurable("no word that is no sink occurs once in a sample")
    commonest = min(once[once == once.max()].index)
    one = text & (labels["token_id"] == commonest).to_numpy()
    if one.sum() == text.sum():
        raise NotMeasurable("the text has a single word")
    return one, text & ~one


IMAGE_TEXT = Contrast(
    name="image_text",
    what="image tokens, text of the chosen roles",
    select=image_text,
    rung="between",
    pairing="within",
    required=True,
    with_confounds=True,
    sides=("image", "text"),
)
IMAGE_CAPTION = Contrast(
    name="image_caption",
    what="image tokens, text that says what the image shows",
    select=image_caption,
    rung="between",
    pairing="within",
    sides=("image", "caption"),
    needs_role="caption",
)
IMAGE_IMAGE = Contrast(
    name="image_image",
    what="image tokens of two halves of the samples",
    select=image_image,
    rung="same",
    pairing="between",
)
TEXT_TEXT = Contrast(
    name="text_text",
    what="text of the chosen roles of two halves of the samples",
    select=text_text,
    rung="same",
    pairing="between",
)
TEXT_VOCABULARY = Contrast(
    name="text_vocabulary",
    what="text of the chosen roles: two sets of words (the median of 9 random ones)",
    select=text_vocabulary,
    rung="kind",
    draws=9,
)
IMAGE_REGION = Contrast(
    name="image_region",
    what="image tokens: upper, lower patches",
    select=image_region,
    rung="kind",
)
IMAGE_SINK = Contrast(
    name="image_sink",
    what="image tokens: attention sinks, the others",
    select=image_sink,
    rung="kind",
)
TEXT_SINK = Contrast(
    name="text_sink",
    what="all text: attention sinks, the others; single where the sinks are one word",
    select=text_sink,
    rung="kind",
)
TEXT_TOKEN = Contrast(
    name="text_token",
    what="all text: one word that is no sink and occurs once in a sample, the others",
    select=text_token,
    rung="single",
)
