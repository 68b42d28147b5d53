"""Modality gap of means: distance of the two centroids of vectors scaled to length 1.

    gap = | mean of x / |x|  -  mean of y / |y| |        (0 to 2; no unit)

Liang et al. 2022, "Mind the Gap". The plain norm is never 0, not even for two halves of one
distribution. So the result also has its mean under label swaps, and the unbiased distance (the root
of a linear-kernel MMD^2 of the unit vectors) with its interval.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from keygap import random_streams
from keygap.errors import UserError
from keygap.gap.core.cautions import cautions
from keygap.gap.core.described import Described
from keygap.gap.core.inputs import Array, Groups, check_level, two_sides
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import PairTotals, drawn_swaps, p_value, root_or_zero
from keygap.gap.core.statistic import Statistic


@dataclass(frozen=True, repr=False)
class ModalityGapResult(Described, title="Modality gap of unit vectors"):
    """Distance of the centroids of unit vectors.

    Attributes:
        gap: The plain norm, as published.
        unbiased: Root of the unbiased squared distance, 0 where that is negative.
        ci: Confidence interval of ``unbiased``.
        level: Confidence level of the interval.
        p_value: Permutation p-value of ``gap``; 1 without permutations.
        null: Mean of ``gap`` under label swaps; 0 without permutations.
        paired: Whether both sides hold the same samples.
        n_x: Number of vectors of x.
        n_y: Number of vectors of y.
        n_permutations: Number of label swaps.
        seed: Seed of the swaps.
        cautions: What makes interval or p-value doubtful (see ``core.cautions``).
    """

    gap: float
    unbiased: float
    ci: tuple[float, float]
    level: float
    p_value: float
    null: float
    paired: bool
    n_x: int
    n_y: int
    n_permutations: int
    seed: int
    cautions: tuple[str, ...] = ()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The norm as published with its null, and the unbiased distance."""
        return (
            Reading(
                "modality_gap",
                self.gap,
                "distance of the means of the vectors scaled to length 1",
                null=self.null if self.n_permutations else None,
                p_value=self.p_value if self.n_permutations else None,
                settings={"n_permutations": self.n_permutations},
            ),
            Reading(
                "modality_gap_unbiased",
                self.unbiased,
                "distance of the means of the vectors scaled to length 1, by the unbiased estimate "
                "of its square",
                ci=self.ci,
                settings={"level": self.level},
            ),
        )


def modality_gap(
    x: Array,
    y: Array,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    paired: bool | None = None,
    n_permutations: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> ModalityGapResult:
    """Gap of means between two sides, with equal weight for the samples of a side.

    Its cost is O((n + m) d + permutations * S * d) for S samples.

    Args:
        x: Vectors of the first side, shape (n, d), numpy or torch.
        y: Vectors of the second side, shape (m, d).
        groups_x: Sample id of each row of ``x``; None: every row is a sample of its own.
        groups_y: Sample id of each row of ``y``.
        paired: Whether both sides hold the same samples; None: decided by the ids, as in ``mmd``.
        n_permutations: Number of label swaps.
        level: Confidence level of the interval, a jackknife over samples.
        seed: Seed of the swaps.

    Returns:
        The gap, its null and the unbiased distance.

    Raises:
        UserError: Bad vectors or ids (see ``core.inputs.two_sides``), or a vector of length zero.
    """
    check_level(level)
    given = two_sides(x, y, groups_x, groups_y, paired)
    sides = replace(given, x=_unit("x", given.x), y=_unit("y", given.y))
    means_x, means_y = sides.by_sample(sides.x, sides.y)
    totals = PairTotals.of_means(means_x, means_y, sides.paired)
    low, high = totals.interval(level)
    gap = float(np.linalg.norm(means_x.mean(0) - means_y.mean(0)))
    null = _null(
        means_x,
        means_y,
        sides.paired,
        n_permutations,
        random_streams.generator(seed, "modality_gap", "label swaps"),
    )
    return ModalityGapResult(
        cautions=cautions(given),
        gap=gap,
        unbiased=root_or_zero(totals.statistic()),
        ci=(root_or_zero(low), root_or_zero(high)),
        level=level,
        p_value=p_value(gap, null),
        null=float(null.mean()) if n_permutations else 0.0,
        paired=sides.paired,
        n_x=len(sides.x),
        n_y=len(sides.y),
        n_permutations=n_permutations,
        seed=seed,
    )


def _null(
    means_x: Float[np.ndarray, "s d"],
    means_y: Float[np.ndarray, "t d"],
    paired: bool,
    n_permutations: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, " permutations"]:
    """The gap under label swaps of whole samples."""
    s, t = len(means_x), len(means_y)
    if paired:
        vectors, shift = (means_x - means_y) / s, 0.0
    else:  # a sample on x counts 1 / s and one on y -1 / t
        both = np.concatenate([means_x, means_y])
        vectors, shift = both * (1.0 / s + 1.0 / t), both.sum(0) / t
    drawn = drawn_swaps(s, t, paired, n_permutations, rng)
    gaps = [np.linalg.norm(swaps @ vectors - shift, axis=1) for swaps in drawn]
    return np.concatenate([np.empty(0), *gaps])


def _unit(side: str, values: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    values = values.astype(np.float64)
    norms = np.linalg.norm(values, axis=1)
    if not norms.all():
        row = int(np.flatnonzero(norms == 0.0)[0])
        raise UserError(f"row {row} of {side} has length zero: it has no direction, drop it")
    return values / norms[:, None]


STATISTIC = Statistic(
    what="distance of the means of the vectors scaled to length 1",
    compute=lambda x, y, sides: modality_gap(
        x, y, *sides.groups, n_permutations=sides.n_permutations, seed=sides.seed
    ),
    coordinates="raw",
)
