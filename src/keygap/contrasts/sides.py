"""From labelled vectors to two arrays: a contrast, and each of its confounds, as cases to measure.

``gap`` knows no labels. Here a contrast is resolved: its tokens are selected, samples that lack one
side are left out, and what cannot be measured says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from keygap import gap
from keygap.contrasts.confounds import CONFOUNDS, SELECTIONS, massive_dimensions
from keygap.contrasts.ladder import (
    CONTRASTS,
    Contrast,
    Masks,
    NotMeasurable,
    Rung,
    refuse_one_sided,
)
from keygap.errors import UserError
from keygap.gap.core.standardise import standardise
from keygap.store import Vectors

MIN_SAMPLES = 4  # of a side; fewer give no interval and a test without power
NARROW = 0.05  # of the other side's width: a side this narrow is one vector, repeated


@dataclass(frozen=True)
class Case:
    """Two sides to compare.

    Attributes:
        contrast: which.
        confound: what was switched off or on, empty for the contrast as it is.
        a, b: the vectors of the two sides.
        kept: (heads, head_dim), the dimensions that count.
    """

    contrast: Contrast
    confound: str
    a: Vectors
    b: Vectors
    kept: np.ndarray

    @cached_property
    def rung(self) -> Rung:
        """The contrast's; ``single`` instead of ``kind`` where one side is one word, or one vector.

        A point against a cloud is far whatever the point is, so it is no rung to stand on.
        """
        if self.contrast.rung != "kind":
            return self.contrast.rung
        return "single" if _is_one(self.a, self.b) or _is_one(self.b, self.a) else "kind"

    def by_head(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """All heads together, then each head where there are several: standardised (n, d)."""
        yield "all", *standardise(self.a.array[:, self.kept], self.b.array[:, self.kept])
        heads = self.a.array.shape[1]
        if heads > 1 and not self.confound:
            for head in range(heads):
                yield str(head), *standardise(self.a.array[:, head], self.b.array[:, head])


def cases(
    vectors: Vectors,
    contrasts: Sequence[Contrast],
    roles: Sequence[str],
    tokens_per_sample: int | None,
    seed: int,
) -> Iterator[Case | str]:
    """Every contrast, and every confound of ``image_text``; a string where one is not there.

    A side has at most ``tokens_per_sample`` tokens of a sample, drawn by the seed: samples are the
    unit and weigh the same, so more tokens of one cost much and add little.

    Raises:
        UserError: ``image_text`` itself cannot be measured.
    """
    everything = np.ones(vectors.array.shape[1:], dtype=bool)
    for contrast in contrasts:
        try:
            a, b, alone = _median_draw(vectors, contrast, roles, tokens_per_sample, seed)
        except (NotMeasurable, UserError) as reason:
            if contrast.rung == "between" and isinstance(reason, UserError):
                raise
            yield f"no {contrast.name}: {reason}"
            continue
        if alone and contrast.name not in CONTRASTS:
            yield f"{contrast.name}: {alone} samples have one of its sides only and are left out"
        yield Case(contrast, "", a, b, everything)
        if contrast.rung != "between":
            continue
        for confound in CONFOUNDS:
            try:
                if confound in SELECTIONS:
                    masks = SELECTIONS[confound](vectors.labels, roles, seed)
                    if confound == "position_matched":
                        sides = _position_pairs(vectors, masks)
                    else:
                        masks = _thinned(vectors.labels, masks, tokens_per_sample, seed)
                        sides = _paired(*(vectors.where(mask) for mask in masks))
                    yield Case(contrast, confound, *sides, everything)
                else:
                    both = np.concatenate([a.array, b.array])
                    yield Case(contrast, confound, a, b, ~massive_dimensions(both))
            except NotMeasurable as reason:
                yield f"no {contrast.name} {confound}: {reason}"


def _is_one(side: Vectors, other: Vectors) -> bool:
    """Whether a side is one word of the text, or one vector again and again."""
    labels = side.labels
    if (labels["modality"] == "text").all() and labels["token_id"].nunique() == 1:
        return True
    own, others = (_variances(part.array) for part in (side, other))
    varies = own + others > 0
    return bool(varies.any()) and float((own[varies] / (own + others)[varies]).mean()) < NARROW**2


def _variances(array: Float[np.ndarray, "n heads head_dim"]) -> Float[np.ndarray, " d"]:
    """Of every dimension, a head at a time: a copy in float64 of all of them is large."""
    heads = range(array.shape[1])
    return np.concatenate([array[:, head].astype(np.float64).var(0) for head in heads])


def _thinned(labels: pd.DataFrame, masks: Masks, limit: int | None, seed: int) -> Masks:
    """Of each side, at most so many tokens of each sample."""
    rng = np.random.default_rng(seed)
    kept = []
    for mask in masks:
        rows = rng.permutation(np.flatnonzero(mask))
        turn = labels["sample_id"].iloc[rows].groupby(labels["sample_id"], observed=True).cumcount()
        thin = np.zeros(len(mask), dtype=bool)
        thin[rows if limit is None else rows[turn.to_numpy() < limit]] = True
        kept.append(thin)
    return kept[0], kept[1]


def _median_draw(
    vectors: Vectors,
    contrast: Contrast,
    roles: Sequence[str],
    tokens_per_sample: int | None,
    seed: int,
) -> tuple[Vectors, Vectors, int]:
    """The sides, samples left out; of several draws, the one whose MMD squared is the median."""
    draws = []
    for draw in range(contrast.draws):
        masks = contrast.select(vectors.labels, roles, seed + draw)
        masks = _thinned(vectors.labels, masks, tokens_per_sample, seed)
        sides = a, b, _ = _sides(vectors, contrast, masks, roles)
        if contrast.draws == 1:
            return sides
        flat = (side.array.reshape(len(side), -1) for side in (a, b))
        options: dict[str, Any] = {"n_permutations": 0, "n_bootstraps": 0, "seed": seed}
        size = gap.mmd(*standardise(*flat), a.sample_ids, b.sample_ids, **options).mmd2
        draws.append((size, draw, sides))
    return sorted(draws, key=lambda row: row[:2])[len(draws) // 2][2]


def _sides(
    vectors: Vectors, contrast: Contrast, masks: Masks, roles: Sequence[str]
) -> tuple[Vectors, Vectors, int]:
    """The two sides, and how many samples have one of them only and are left out.

    Sides that share no sample (two languages, two subjects) are compared as they are: whole samples
    are then dealt to the sides, as for the halves.
    """
    a, b = (vectors.where(mask) for mask in masks)
    ids = set(a.sample_ids), set(b.sample_ids)
    if contrast.rung == "same" or (contrast.rung != "between" and ids[0].isdisjoint(ids[1])):
        return *_enough(a, b), 0
    if contrast.rung == "between":
        refuse_one_sided(vectors.labels, roles)
    try:
        return *_paired(a, b), len(ids[0] ^ ids[1])
    except NotMeasurable as reason:
        if contrast.rung == "between":
            raise UserError(f"too few samples to measure: {reason}; extract more") from reason
        raise


def _paired(a: Vectors, b: Vectors) -> tuple[Vectors, Vectors]:
    """Both sides, of the samples that have both."""
    both = set(a.sample_ids) & set(b.sample_ids)
    return _enough(*(side.where(side.labels["sample_id"].isin(both).to_numpy()) for side in (a, b)))


def _position_pairs(vectors: Vectors, masks: Masks) -> tuple[Vectors, Vectors]:
    """One token of a sample each, at the same positions: two at one position are the pair.

    The pair is the unit, and takes the sample's place: labels are swapped within a position, and
    the products that would set a position against itself across the sides are left out.
    """
    sides = []
    for side in (vectors.where(mask) for mask in masks):
        order = np.argsort(side.positions, kind="stable")
        pairs = [f"pair {number}" for number in range(len(side))]
        sides.append(Vectors(side.array[order], side.labels.iloc[order].assign(sample_id=pairs)))
    return _enough(*sides)


def _enough(a: Vectors, b: Vectors) -> tuple[Vectors, Vectors]:
    least = min(side.labels["sample_id"].nunique() for side in (a, b))
    if least < MIN_SAMPLES:
        raise NotMeasurable(f"{least} samples on a side, {MIN_SAMPLES} are needed")
    return a, b
