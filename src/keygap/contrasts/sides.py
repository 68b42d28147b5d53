"""From labelled vectors to the two arrays of a contrast, as it is and with each confound.

Statistics take arrays and sample ids, not labels. Here a contrast's tokens are selected, each side
is limited to a number of tokens per sample, and samples that lack one side are left out. If the
vectors do not have the contrast, an exception says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from keygap import random_streams
from keygap.contrasts import limits
from keygap.contrasts.confounds import Confound
from keygap.contrasts.contrast import Contrast, Masks, Rung, TooFewSamples
from keygap.contrasts.limits import drawn_samples, drawn_tokens
from keygap.errors import UserError
from keygap.store import LabelledVectors

MIN_SAMPLES = 4  # on each side; fewer give no interval and a test without power
NARROW = 0.05  # a side at most this wide, over the other side's width, counts as one vector


class Layer(Protocol):
    """The labelled vectors of a site and layer, in memory or on disk."""

    @property
    def labels(self) -> pd.DataFrame:
        """One row per token, as in ``LabelledVectors``."""

    @property
    def shape(self) -> tuple[int, int]:
        """Heads and dimensions of a head."""

    def where_each(self, masks: Sequence[Bool[np.ndarray, " n"]]) -> list[LabelledVectors]:
        """The rows where each of several masks is true, in memory."""

    def not_finite(self) -> Bool[np.ndarray, " n"]:
        """Find the vectors with a NaN or an infinite value."""


@dataclass(frozen=True)
class Case:
    """The two sides of a contrast in one layer.

    Attributes:
        contrast: the contrast.
        selection: the seed of the selection of its sides.
        confound: the name of the confound that was removed; empty for the contrast as it is.
        a: the vectors of the first side.
        b: the vectors of the second side.
        kept: (heads, head_dim), the dimensions that are compared.
        left_out: the number of samples with one side only, which are not used.
        limited: how much of large sides is used, in words; empty if all of it.
    """

    contrast: Contrast
    selection: int
    confound: str
    a: LabelledVectors
    b: LabelledVectors
    kept: Bool[np.ndarray, "heads head_dim"]
    left_out: int
    limited: str

    @cached_property
    def rung(self) -> Rung:
        """The contrast's rung, or ``single`` instead of ``kind`` if one side is a single word.

        A point is far from a cloud wherever it lies, so a gap is not compared with it.
        """
        if self.contrast.rung != "kind":
            return self.contrast.rung
        return "single" if _is_one(self.a, self.b) or _is_one(self.b, self.a) else "kind"


@dataclass(frozen=True)
class Selector:
    """Selects the sides of contrasts from the vectors of one site and layer.

    Attributes:
        vectors: all labelled vectors of the layer.
        text_roles: what counts as text.
        tokens_per_sample: a side keeps at most this many tokens of a sample, drawn at random, and
            of large sides fewer (see ``keygap.contrasts.limits``); None keeps all. Samples are
            the unit and weigh the same, so more tokens of one sample cost much and add little.
        seed: of every draw.
    """

    vectors: Layer
    text_roles: Sequence[str]
    tokens_per_sample: int | None
    seed: int

    def case(self, contrast: Contrast, draw: int = 0) -> Case:
        """Select the two sides of a contrast.

        Args:
            contrast: the contrast.
            draw: which of the contrast's seeded selections.

        Raises:
            NotMeasurable: these tokens do not have the contrast.
            UserError: no layer of the run can have the contrast.
        """
        seed = random_streams.integer(self.seed, "contrast", contrast.name, draw)
        masks = contrast.select(self.vectors.labels, self.text_roles, seed)
        a, b, left_out, limited = self._sides(contrast, masks)
        return Case(contrast, seed, "", a, b, self._all_dimensions(), left_out, limited)

    def without(self, confound: Confound, case: Case) -> Case:
        """Select the sides of a case again, without a confound.

        Raises:
            NotMeasurable: these tokens do not have the confound.
        """
        a, b, kept, left_out, limited = case.a, case.b, case.kept, case.left_out, case.limited
        if confound.select is not None:
            few, limited = self._samples_of_pairs(case) if confound.by_pair else (None, "")
            masks = confound.select(
                _as_selected(case, few),
                self.vectors.labels,
                self.text_roles,
                random_streams.integer(self.seed, "confound", confound.name),
            )
            if confound.by_pair:
                a, b = self._pairs_of_tokens(masks)
            else:
                a, b, left_out, limited = self._sides(case.contrast, masks)
        if confound.excluded is not None:
            kept = ~confound.excluded(np.concatenate([a.array, b.array]))
        return replace(
            case, confound=confound.name, a=a, b=b, kept=kept, left_out=left_out, limited=limited
        )

    def _sides(
        self, contrast: Contrast, masks: Masks
    ) -> tuple[LabelledVectors, LabelledVectors, int, str]:
        """Both sides, how many samples have one of them only, and what the limits leave of them.

        Raises:
            TooFewSamples: there are fewer than ``MIN_SAMPLES`` on a side.
            UserError: whole samples are to be dealt to the sides, and some are on both.
        """
        sample = self.vectors.labels["sample_id"]
        ids = [set(sample[mask].unique()) for mask in masks]
        both = ids[0] & ids[1]
        if both and contrast.pairing == "between":
            raise UserError(
                f"the contrast {contrast.name!r} is paired between samples, and {len(both)} "
                "samples are on both of its sides: pair it within samples"
            )
        left_out = 0
        if contrast.pairing == "within" or both:
            ids, left_out = [both, both], len(ids[0] ^ ids[1])
        _refuse_few(*map(len, ids))
        drawn = drawn_tokens(sample, masks, ids, self.tokens_per_sample, self.seed)
        a, b = self.vectors.where_each(drawn.masks)
        return a, b, left_out, drawn.limited

    def _samples_of_pairs(self, case: Case) -> tuple[Bool[np.ndarray, " n"] | None, str]:
        """The tokens of the samples in which pairs are looked for, and what these are in words.

        Each pair takes two samples. All samples are used if all tokens are, or if they are few.
        """
        if self.tokens_per_sample is None:
            return None, ""
        sample, most = self.vectors.labels["sample_id"], 2 * limits.MAX_SAMPLES
        a, b = case.contrast.select(self.vectors.labels, self.text_roles, case.selection)
        names = sample[a | b].unique()
        if len(names) <= most:
            return None, ""
        drawn = sample.isin(drawn_samples(names, self.seed, most))
        return drawn.to_numpy(), f"pairs among {most:,} of {len(names):,} samples"

    def _pairs_of_tokens(self, masks: Masks) -> tuple[LabelledVectors, LabelledVectors]:
        """The sides of tokens that were matched one to one; each pair is a sample.

        Raises:
            TooFewSamples: there are fewer than ``MIN_SAMPLES`` pairs.
        """
        _refuse_few(int(masks[0].sum()))
        rows = [self._by_position(mask) for mask in masks]
        a, b = (
            _one_sample_per_token(side, np.argsort(np.argsort(own)))
            for side, own in zip(self.vectors.where_each(masks), rows, strict=True)
        )
        return a, b

    def _by_position(self, mask: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " k"]:
        """The rows of the layer where a mask is true, in the order of their positions."""
        rows = np.flatnonzero(mask)
        positions = self.vectors.labels["position"].to_numpy()[rows]
        return rows[np.argsort(positions, kind="stable")]

    def _all_dimensions(self) -> Bool[np.ndarray, "heads head_dim"]:
        return np.ones(self.vectors.shape, dtype=bool)


def refuse_non_finite(vectors: Layer, site: str, layer: int) -> None:
    """Refuse a layer with a NaN or an infinite value.

    Raises:
        UserError: there is one; names the first.
    """
    bad = vectors.not_finite()
    if bad.any():
        first = vectors.labels.iloc[int(np.argmax(bad))]
        raise UserError(
            f"{int(bad.sum())} vectors of {site} at layer {layer} are NaN or infinite, the "
            f"first in sample {first['sample_id']} at position {first['position']}; extract again "
            "with --dtype float32 or bfloat16"
        )


def _as_selected(case: Case, few: Bool[np.ndarray, " n"] | None = None) -> Contrast:
    """The contrast of a case, selecting with the seed of the case whatever seed it is given.

    Args:
        case: the case.
        few: the tokens that it may select among; None: all.
    """

    def select(labels: pd.DataFrame, roles: Sequence[str], _seed: int) -> Masks:
        a, b = case.contrast.select(labels, roles, case.selection)
        return (a, b) if few is None else (a & few, b & few)

    return replace(case.contrast, select=select)


def _one_sample_per_token(side: LabelledVectors, order: Int[np.ndarray, " k"]) -> LabelledVectors:
    """One side of matched pairs, in the order of the pairs, with the pair as the sample.

    Labels are then swapped inside a pair, and products of the two tokens of a pair, which would
    compare a position with itself, are left out.

    Args:
        side: the tokens of the pairs.
        order: which of them belongs to each pair.
    """
    pairs = [f"pair {number}" for number in range(len(order))]
    return LabelledVectors(side.array[order], side.labels.iloc[order].assign(sample_id=pairs))


def _refuse_few(*samples: int) -> None:
    if min(samples) < MIN_SAMPLES:
        raise TooFewSamples(f"{min(samples)} samples on a side, {MIN_SAMPLES} are needed")


def _is_one(side: LabelledVectors, other: LabelledVectors) -> bool:
    """Whether a side is one word of the text, or nearly the same vector every time."""
    labels = side.labels
    if (labels["modality"] == "text").all() and labels["token_id"].nunique() == 1:
        return True
    own, others = _variances(side.array), _variances(other.array)
    varies = own + others > 0
    return bool(varies.any()) and float((own[varies] / (own + others)[varies]).mean()) < NARROW**2


def _variances(array: Float[np.ndarray, "n heads head_dim"]) -> Float[np.ndarray, " d"]:
    """Variance of every dimension, one head at a time: a float64 copy of all heads is large."""
    heads = range(array.shape[1])
    return np.concatenate([array[:, head].astype(np.float64).var(0) for head in heads])
