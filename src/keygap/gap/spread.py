"""Ball and cloud: how wide each side is, and in how many dimensions.

"Image keys form a tight ball and text keys a cloud" (or the reverse) is a claim about two numbers
of each side, and about the distance of the two centres in units of their width:

    spread               root mean squared distance of a vector to the centre of its side
    effective dimension  participation ratio (sum of variances)^2 / sum of variances^2 over
                         principal axes: d for a round ball, 1 for a line
    separation           distance of the centres / root mean squared spread

Both are plug-in numbers: with few samples the effective dimension is too small, which is why each
stands beside its interval. Participation ratio: e.g. Gao et al. 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from keygap.errors import UserError
from keygap.gap.frechet import weighted_moments
from keygap.gap.inputs import Groups, TwoSides, Vectors, check_level, sample_weights, two_sides

_PARTS = 20  # leave-out parts of the jackknife


@dataclass(frozen=True)
class SpreadResult:
    """Width and effective dimension of each side; intervals leave out samples."""

    spread_x: float  # units of the vectors
    spread_y: float
    spread_ratio: float  # x over y
    spread_ratio_ci: tuple[float, float]
    effective_dimension_x: float
    effective_dimension_y: float
    dimension_ratio: float  # x over y
    dimension_ratio_ci: tuple[float, float]
    separation: float
    separation_ci: tuple[float, float]
    level: float


def spread(
    x: Vectors,
    y: Vectors,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    paired: bool | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> SpreadResult:
    """Spread and effective dimension of x (n, d) and y (m, d), samples weighing the same.

    Intervals: jackknife over 20 parts of the samples (fewer samples: one part each), on the log
    scale. Raises UserError: bad vectors or ids (see `inputs.two_sides`), a side whose vectors are
    all equal. O(20 (n + m) d^2).
    """
    check_level(level)
    sides = two_sides(x, y, groups_x, groups_y, paired)
    for name, values in (("x", sides.x), ("y", sides.y)):
        if not np.ptp(values, axis=0).any():
            raise UserError(f"all vectors of {name} are equal: it has no spread")
    rng = np.random.default_rng(seed)
    parts = min(_PARTS, sides.n_samples_x, sides.n_samples_y)
    part_x = rng.permutation(np.arange(sides.n_samples_x) % parts)
    part_y = part_x if sides.paired else rng.permutation(np.arange(sides.n_samples_y) % parts)

    everything = _numbers(sides, np.ones(len(sides.x)), np.ones(len(sides.y)))
    without = np.array(
        [
            _numbers(sides, part_x[sides.sample_x] != part, part_y[sides.sample_y] != part)
            for part in range(parts)
        ]
    )
    logs = np.log(_ratios(without))
    error = np.sqrt((parts - 1) * logs.var(axis=0))
    half = float(stats.t.ppf((1 + level) / 2, parts - 1)) * error
    ratios = _ratios(everything[None])[0]
    low, high = ratios * np.exp(-half), ratios * np.exp(half)
    return SpreadResult(
        spread_x=float(everything[0]),
        spread_y=float(everything[1]),
        spread_ratio=float(ratios[0]),
        spread_ratio_ci=(float(low[0]), float(high[0])),
        effective_dimension_x=float(everything[2]),
        effective_dimension_y=float(everything[3]),
        dimension_ratio=float(ratios[1]),
        dimension_ratio_ci=(float(low[1]), float(high[1])),
        separation=float(ratios[2]),
        separation_ci=(float(low[2]), float(high[2])),
        level=level,
    )


def _numbers(
    sides: TwoSides, keep_x: Float[np.ndarray, " n"], keep_y: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " 5"]:
    """Spreads, effective dimensions, distance of the centres."""
    weights_x = sample_weights(sides.sample_x, sides.n_samples_x) * keep_x
    weights_y = sample_weights(sides.sample_y, sides.n_samples_y) * keep_y
    mean_x, cov_x = weighted_moments(sides.x, weights_x / weights_x.sum())
    mean_y, cov_y = weighted_moments(sides.y, weights_y / weights_y.sum())
    total_x, total_y = np.trace(cov_x), np.trace(cov_y)
    return np.array(
        [
            np.sqrt(total_x),
            np.sqrt(total_y),
            total_x**2 / (cov_x**2).sum(),  # sum of squared eigenvalues = squared entries
            total_y**2 / (cov_y**2).sum(),
            np.linalg.norm(mean_x - mean_y),
        ]
    )


def _ratios(numbers: Float[np.ndarray, "b 5"]) -> Float[np.ndarray, "b 3"]:
    spread_x, spread_y, dimension_x, dimension_y, distance = numbers.T
    width = np.sqrt(0.5 * (spread_x**2 + spread_y**2))
    return np.column_stack([spread_x / spread_y, dimension_x / dimension_y, distance / width])
