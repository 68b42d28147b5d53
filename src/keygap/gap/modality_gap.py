"""Modality gap of means: how far apart the two centroids of unit-length vectors are.

    gap = | mean of x / |x|  -  mean of y / |y| |        (0 to 2; no unit)

Liang et al. 2022, "Mind the Gap". The plain norm is never 0, not even for two halves of one
distribution, so the unbiased squared distance (a linear-kernel MMD of the unit vectors), its
interval and its null stand beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from keygap.errors import UserError
from keygap.gap.core.inputs import Groups, Vectors, check_level, two_sides
from keygap.gap.core.kernels import linear_means
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import PairSums, mean_by_sample, p_value
from keygap.gap.core.statistic import Statistic


@dataclass(frozen=True)
class ModalityGapResult:
    """Distance of the centroids on the unit sphere."""

    gap: float  # as published: the plain norm
    unbiased: float  # root of the unbiased squared distance, 0 where that is negative
    ci: tuple[float, float]  # of the unbiased distance
    level: float
    p_value: float
    null: float  # mean of the plain norm under label swaps
    paired: bool
    n_x: int
    n_y: int
    n_permutations: int
    seed: int

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The norm as published, beside what it reads without a gap, and the unbiased distance."""
        return (
            Reading(
                "modality_gap",
                self.gap,
                "distance of the means of the vectors scaled to length 1",
                null=self.null,
                p_value=self.p_value,
            ),
            Reading(
                "modality_gap_unbiased",
                self.unbiased,
                "the same without what sampling adds",
                ci=self.ci,
                settings={"level": self.level},
            ),
        )


def modality_gap(
    x: Vectors,
    y: Vectors,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    paired: bool | None = None,
    n_permutations: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> ModalityGapResult:
    """Gap of means between x (n, d) and y (m, d), samples of a side weighing the same.

    Raises UserError: bad vectors or ids (see `inputs.two_sides`), a vector of length zero.
    O((n + m) d + S^2 d + permutations S^2).
    """
    check_level(level)
    given = two_sides(x, y, groups_x, groups_y, paired)
    sides = replace(given, x=_unit("x", given.x), y=_unit("y", given.y))
    sums = PairSums.from_cells(linear_means(sides), sides)
    low, high = sums.interval(level)
    means_x = mean_by_sample(sides.x, sides.sample_x, sides.n_samples_x)
    means_y = mean_by_sample(sides.y, sides.sample_y, sides.n_samples_y)
    gap = float(np.linalg.norm(means_x.mean(0) - means_y.mean(0)))
    null = _null(means_x, means_y, sides.paired, n_permutations, np.random.default_rng(seed))
    return ModalityGapResult(
        gap=gap,
        unbiased=math.sqrt(max(sums.statistic(), 0.0)),
        ci=(math.sqrt(max(low, 0.0)), math.sqrt(max(high, 0.0))),
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
    """The gap with labels swapped within samples, or dealt to samples."""
    s, t = len(means_x), len(means_y)
    if paired:
        signs = rng.choice([-1.0, 1.0], size=(n_permutations, s))
        return np.linalg.norm(signs @ (means_x - means_y) / s, axis=1)
    shares = np.tile(np.repeat([1.0 / s, -1.0 / t], [s, t]), (n_permutations, 1))
    dealt = rng.permuted(shares, axis=1)
    return np.linalg.norm(dealt @ np.concatenate([means_x, means_y]), axis=1)


def _unit(side: str, values: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    values = values.astype(np.float64)
    norms = np.linalg.norm(values, axis=1)
    if not norms.all():
        row = int(np.flatnonzero(norms == 0.0)[0])
        raise UserError(f"row {row} of {side} has length zero: it has no direction, drop it")
    return values / norms[:, None]


STATISTIC = Statistic(
    what="distance of the means of the vectors scaled to length 1",
    compute=lambda x, y, sides: modality_gap(x, y, *sides.groups, seed=sides.seed),
    coordinates="raw",
)
