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
from jaxtyping import Float, Int
from scipy import stats

from keygap.errors import UserError
from keygap.gap.core.inputs import Groups, Vectors, check_level, sample_weights, two_sides
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import mean_by_sample
from keygap.gap.core.statistic import Statistic

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

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Width and effective dimension of each side, their ratios (x over y), the separation."""
        width = "root mean squared distance of a vector to the centre of its side"
        dimension = "effective dimension: 1 for a line, the number of columns for a round ball"
        apart = "distance of the two centres over the sides' spread"
        over = "first over second"

        def with_interval(name: str, value: float, what: str, ci: tuple[float, float]) -> Reading:
            return Reading(name, value, what, ci=ci, settings={"level": self.level})

        return (
            Reading("spread", self.spread_x, width, side="x"),
            Reading("spread", self.spread_y, width, side="y"),
            with_interval("spread_ratio", self.spread_ratio, over, self.spread_ratio_ci),
            Reading("effective_dimension", self.effective_dimension_x, dimension, side="x"),
            Reading("effective_dimension", self.effective_dimension_y, dimension, side="y"),
            with_interval(
                "effective_dimension_ratio", self.dimension_ratio, over, self.dimension_ratio_ci
            ),
            with_interval("separation", self.separation, apart, self.separation_ci),
        )


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
    all equal. O((n + m) d^2 + 20 d^2) time, O(d^2) memory.
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

    # About one centre for both, so that sums of squares are no larger than they need be.
    centre = 0.5 * (_mean(sides.x, sides.sample_x) + _mean(sides.y, sides.sample_y))
    of_x = _each_left_out(sides.x, sides.sample_x, part_x, centre)
    of_y = _each_left_out(sides.y, sides.sample_y, part_y, centre)
    numbers = np.array([_numbers(*both) for both in zip(of_x, of_y, strict=True)])
    everything, without = numbers[0], numbers[1:]
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


@dataclass(frozen=True)
class _Moments:
    """What is needed of a mean and a covariance."""

    mean: Float[np.ndarray, " d"]
    trace: float
    squares: float  # sum of the covariance's squared entries = of its squared eigenvalues


def _mean(values: Float[np.ndarray, "n d"], sample: Int[np.ndarray, " n"]) -> np.ndarray:
    """Mean, samples weighing the same."""
    return mean_by_sample(values, sample, int(sample.max()) + 1).mean(0)


def _each_left_out(
    values: Float[np.ndarray, "n d"],
    sample: Int[np.ndarray, " n"],
    part: Int[np.ndarray, " s"],
    centre: Float[np.ndarray, " d"],
) -> list[_Moments]:
    """The moments of all samples, then of all but each part.

    The sums of a part are made twice: those of all parts together would be 20 matrices of d x d.
    """
    weights = sample_weights(sample, len(part))

    def sums(p: int) -> tuple[float, Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
        mine = part[sample] == p
        rows, shares = values[mine] - centre, weights[mine]
        scaled = rows * np.sqrt(shares)[:, None]
        return float(shares.sum()), shares @ rows, scaled.T @ scaled

    parts = range(int(part.max()) + 1)
    weight, first, second = sums(0)
    for p in parts[1:]:
        more = sums(p)
        weight, first = weight + more[0], first + more[1]
        second += more[2]
    found = [_moments(weight, first, second.copy())]
    for p in parts:
        less = sums(p)
        rest = np.subtract(second, less[2], out=less[2])
        found.append(_moments(weight - less[0], first - less[1], rest))
    return found


def _moments(
    weight: float, first: Float[np.ndarray, " d"], second: Float[np.ndarray, "d d"]
) -> _Moments:
    """Of weighted sums; `second` is overwritten."""
    mean = first / weight
    second /= weight
    second -= np.outer(mean, mean)
    return _Moments(mean, float(np.trace(second)), float(np.vdot(second, second)))


def _numbers(x: _Moments, y: _Moments) -> Float[np.ndarray, " 5"]:
    """Spreads, effective dimensions, distance of the centres."""
    return np.array(
        [
            np.sqrt(x.trace),
            np.sqrt(y.trace),
            x.trace**2 / x.squares,
            y.trace**2 / y.squares,
            np.linalg.norm(x.mean - y.mean),
        ]
    )


def _ratios(numbers: Float[np.ndarray, "b 5"]) -> Float[np.ndarray, "b 3"]:
    spread_x, spread_y, dimension_x, dimension_y, distance = numbers.T
    width = np.sqrt(0.5 * (spread_x**2 + spread_y**2))
    return np.column_stack([spread_x / spread_y, dimension_x / dimension_y, distance / width])


STATISTIC = Statistic(
    what="width and effective dimension of each side, and the distance of the centres over them",
    compute=lambda x, y, sides: spread(x, y, *sides.groups, seed=sides.seed),
)
