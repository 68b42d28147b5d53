"""From labelled vectors to two arrays: a contrast, and each of its confounds, as cases to measure.

``gap`` knows no labels. Here a contrast is resolved: its tokens are selected, samples that lack one
side are left out, and what cannot be measured says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from keygap import gap
from keygap.confounds import CONFOUNDS, SELECTIONS, massive_dimensions
from keygap.contrasts import Contrast, Masks, NotMeasurable, refuse_one_sided
from keygap.errors import UserError
from keygap.projection import standardise
from keygap.store import Vectors

MIN_SAMPLES = 4  # of a side; fewer give no interval and a test without power


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
            a, b = _median_draw(vectors, contrast, roles, tokens_per_sample, seed)
        except NotMeasurable as reason:
            yield f"no {contrast.name}: {reason}"
            continue
        yield Case(contrast, "", a, b, everything)
        if contrast.rung != "between":
            continue
        for confound in CONFOUNDS:
            try:
                if confound in SELECTIONS:
                    masks = SELECTIONS[confound](vectors.labels, roles, seed)
                    if confound != "position_matched":  # what it matches must not be thinned
                        masks = _thinned(vectors.labels, masks, tokens_per_sample, seed)
                    yield Case(contrast, confound, *_paired(vectors, masks), everything)
                else:
                    both = np.concatenate([a.array, b.array])
                    yield Case(contrast, confound, a, b, ~massive_dimensions(both))
            except NotMeasurable as reason:
                yield f"no {contrast.name} {confound}: {reason}"


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
) -> tuple[Vectors, Vectors]:
    """The two sides; of a contrast of several draws, those whose MMD squared is the median."""
    draws = []
    for draw in range(contrast.draws):
        masks = contrast.select(vectors.labels, roles, seed + draw)
        masks = _thinned(vectors.labels, masks, tokens_per_sample, seed)
        a, b = _sides(vectors, contrast, masks, roles)
        if contrast.draws == 1:
            return a, b
        flat = (side.array.reshape(len(side), -1) for side in (a, b))
        options: dict[str, Any] = {"n_permutations": 0, "n_bootstraps": 0, "seed": seed}
        size = gap.mmd(*standardise(*flat), a.sample_ids, b.sample_ids, **options).mmd2
        draws.append((size, draw, a, b))
    _, _, a, b = sorted(draws, key=lambda row: row[:2])[len(draws) // 2]
    return a, b


def _sides(
    vectors: Vectors, contrast: Contrast, masks: Masks, roles: Sequence[str]
) -> tuple[Vectors, Vectors]:
    if contrast.rung == "same":
        return _enough(*(vectors.where(mask) for mask in masks))
    if contrast.rung == "between":
        refuse_one_sided(vectors.labels, roles)
    try:
        return _paired(vectors, masks)
    except NotMeasurable as reason:
        if contrast.rung == "between":
            raise UserError(f"too few samples to measure: {reason}; extract more") from reason
        raise


def _paired(vectors: Vectors, masks: Masks) -> tuple[Vectors, Vectors]:
    """Both sides, of the samples that have both."""
    a, b = (vectors.where(mask) for mask in masks)
    both = set(a.sample_ids) & set(b.sample_ids)
    return _enough(*(side.where(side.labels["sample_id"].isin(both).to_numpy()) for side in (a, b)))


def _enough(a: Vectors, b: Vectors) -> tuple[Vectors, Vectors]:
    least = min(side.labels["sample_id"].nunique() for side in (a, b))
    if least < MIN_SAMPLES:
        raise NotMeasurable(f"{least} samples on a side, {MIN_SAMPLES} are needed")
    return a, b
