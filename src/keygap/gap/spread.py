"""Ball and cloud: how wide each side is, and in how many dimensions.

"Image keys form a tight ball and text keys a cloud" (or the reverse) is a claim about two numbers
of each side. A third number relates the distance of the two centres to their width:

    spread               root mean squared distance of a vector to the centre of its side
    effective dimension  participation ratio (sum of variances)^2 / sum of variances^2 over
                         principal axes: d for a round ball, 1 for a line
    separation           distance of the centres / root mean squared spread

These are plug-in estimates. The effective dimension is too small if there are few vectors, so both
sides are used with as many vectors as each other. The separation is above 0 even if the centres are
equal, and its interval does not correct for that. For the participation ratio see for example Gao
et al. 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from keygap import random_streams
from keygap.gap.core.cautions import cautions
from keygap.gap.core.described import Described
from keygap.gap.core.inputs import (
    Array,
    CheckedSides,
    Groups,
    check_level,
    check_varies,
    two_sides,
    with_equal_numbers,
)
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import log_jackknife_interval
from keygap.gap.core.statistic import Statistic

_BATCHES = 20  # that the jackknife leaves out
_NO_SPREAD = 1e-6  # share of a side's spread; what is left of it by rounding alone is less
_NO_DISTANCE = 1e-12  # in units of the spread


@dataclass(frozen=True, repr=False)
class SpreadResult(Described, title="Width and effective dimension of two sides"):
    """Width and effective dimension of each side, and the separation of the sides.

    Attributes:
        spread_x: Spread of x, in units of the vectors.
        spread_y: Spread of y.
        spread_ratio: Spread of x over that of y.
        spread_ratio_ci: Its confidence interval; like the other two, (0, infinity) if the number is
            0 or undefined once some samples are left out.
        effective_dimension_x: Effective dimension of x.
        effective_dimension_y: Effective dimension of y.
        dimension_ratio: Effective dimension of x over that of y.
        dimension_ratio_ci: Its confidence interval.
        separation: Distance of the centres over the root mean squared spread, without a unit.
        separation_ci: Its confidence interval.
        level: Confidence level of the intervals.
        cautions: What makes interval or p-value doubtful (see ``core.cautions``).
    """

    spread_x: float
    spread_y: float
    spread_ratio: float
    spread_ratio_ci: tuple[float, float]
    effective_dimension_x: float
    effective_dimension_y: float
    dimension_ratio: float
    dimension_ratio_ci: tuple[float, float]
    separation: float
    separation_ci: tuple[float, float]
    level: float
    cautions: tuple[str, ...] = ()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Width and effective dimension of each side, their ratios, and the separation."""
        width = "root mean squared distance of a vector to the centre of its side"
        dimension = "effective dimension: 1 for a line, the number of columns for a round ball"
        apart = "distance of the two centres over the sides' spread"
        divided = "of the first side divided by that of the second"

        def with_interval(name: str, value: float, what: str, ci: tuple[float, float]) -> Reading:
            return Reading(name, value, what, ci=ci, settings={"level": self.level})

        return (
            Reading("spread", self.spread_x, width, side="x"),
            Reading("spread", self.spread_y, width, side="y"),
            with_interval(
                "spread_ratio", self.spread_ratio, f"spread {divided}", self.spread_ratio_ci
            ),
            Reading("effective_dimension", self.effective_dimension_x, dimension, side="x"),
            Reading("effective_dimension", self.effective_dimension_y, dimension, side="y"),
            with_interval(
                "effective_dimension_ratio",
                self.dimension_ratio,
                f"effective dimension {divided}",
                self.dimension_ratio_ci,
            ),
            with_interval("separation", self.separation, apart, self.separation_ci),
        )


def spread(
    x: Array,
    y: Array,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    paired: bool | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> SpreadResult:
    """Spread and effective dimension of two sides, with equal weight for the samples of a side.

    The intervals are a jackknife on the log scale over 20 batches of samples, or over as many as a
    side has samples. The interval of a number is (0, infinity) if it is 0 or undefined without some
    batch, because the logarithm does not exist there. Time is O((n + m) d^2 + 20 d^2), memory
    O(d^2).

    Args:
        x: Vectors of the first side, shape (n, d), numpy or torch.
        y: Vectors of the second side, shape (m, d).
        groups_x: Sample id of each row of ``x``; None: every row is a sample of its own.
        groups_y: Sample id of each row of ``y``.
        paired: Whether both sides hold the same samples; None: decided by the ids, as in ``mmd``.
        level: Confidence level of the intervals.
        seed: Seed of the batches, and of the vectors that are used of the larger side.

    Returns:
        The estimates and their intervals.

    Raises:
        UserError: Bad vectors or ids (see ``core.inputs.two_sides``), or a side whose vectors are
            all equal.
    """
    check_level(level)
    given = two_sides(x, y, groups_x, groups_y, paired)
    sides = with_equal_numbers(given, max(len(given.x), len(given.y)), seed)
    check_varies(sides, "it has no spread")
    numbers = _numbers_left_out(sides, random_streams.generator(seed, "spread", "samples left out"))
    ratios = _ratios(numbers)
    ends = _intervals(ratios, level)
    return SpreadResult(
        cautions=cautions(sides),
        spread_x=float(numbers[0, 0]),
        spread_y=float(numbers[0, 1]),
        spread_ratio=float(ratios[0, 0]),
        spread_ratio_ci=ends[0],
        effective_dimension_x=float(numbers[0, 2]),
        effective_dimension_y=float(numbers[0, 3]),
        dimension_ratio=float(ratios[0, 1]),
        dimension_ratio_ci=ends[1],
        separation=float(ratios[0, 2]),
        separation_ci=ends[2],
        level=level,
    )


@dataclass(frozen=True)
class _Moments:
    """What is needed of a mean and a covariance."""

    mean: Float[np.ndarray, " d"]
    trace: float
    squares: float  # sum of the squared entries of the covariance, equal to that of its eigenvalues

    @classmethod
    def of_sums(
        cls, weight: float, first: Float[np.ndarray, " d"], second: Float[np.ndarray, "d d"]
    ) -> _Moments:
        """From weighted sums of vectors and of their outer products; overwrites ``second``."""
        mean = first / weight
        second /= weight
        second -= np.outer(mean, mean)
        return cls(mean, float(np.trace(second)), float(np.vdot(second, second)))


def _numbers_left_out(
    sides: CheckedSides, rng: np.random.Generator
) -> Float[np.ndarray, "1+batches 5"]:
    """Spreads, effective dimensions and distance of the centres: of all, and without each batch."""
    batches = min(_BATCHES, sides.n_samples_x, sides.n_samples_y)
    batch_x = rng.permutation(np.arange(sides.n_samples_x) % batches)
    batch_y = batch_x if sides.paired else rng.permutation(np.arange(sides.n_samples_y) % batches)
    # Sums of squares are smallest about the centre of a side, and round least.
    centre_x, centre_y = (means.mean(0) for means in sides.by_sample(sides.x, sides.y))
    of_x = _moments_left_out(sides.x, sides.weights_x, batch_x[sides.sample_x], centre_x)
    of_y = _moments_left_out(sides.y, sides.weights_y, batch_y[sides.sample_y], centre_y)
    apart = centre_x - centre_y
    numbers = np.array([_numbers(*both, apart) for both in zip(of_x, of_y, strict=True)])
    lost = numbers[:, :2] <= _NO_SPREAD * numbers[0, :2]
    numbers[:, :2][lost], numbers[:, 2:4][lost] = 0.0, np.nan
    return numbers


def _moments_left_out(
    values: Float[np.ndarray, "n d"],
    weights: Float[np.ndarray, " n"],
    batch: Int[np.ndarray, " n"],
    centre: Float[np.ndarray, " d"],
) -> Iterator[_Moments]:
    """The moments about ``centre`` of all vectors, then of all but each batch.

    The sums of a batch are computed twice, because keeping those of all batches would take 20
    matrices of d x d.
    """

    def sums(b: int) -> tuple[float, Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
        rows, shares = values[batch == b] - centre, weights[batch == b]
        scaled = rows * np.sqrt(shares)[:, None]
        return float(shares.sum()), shares @ rows, scaled.T @ scaled

    batches = range(int(batch.max()) + 1)
    weight, first, second = sums(0)
    for b in batches[1:]:
        more = sums(b)
        weight, first = weight + more[0], first + more[1]
        second += more[2]
    yield _Moments.of_sums(weight, first, second.copy())
    for b in batches:
        less = sums(b)
        rest = np.subtract(second, less[2], out=less[2])
        yield _Moments.of_sums(weight - less[0], first - less[1], rest)


def _numbers(x: _Moments, y: _Moments, apart: Float[np.ndarray, " d"]) -> Float[np.ndarray, " 5"]:
    """Spreads, effective dimensions, and distance of the centres, which the means are about."""
    return np.array(
        [
            np.sqrt(max(x.trace, 0.0)),
            np.sqrt(max(y.trace, 0.0)),
            x.trace**2 / x.squares if x.squares else np.nan,
            y.trace**2 / y.squares if y.squares else np.nan,
            np.linalg.norm(apart + (x.mean - y.mean)),
        ]
    )


def _ratios(numbers: Float[np.ndarray, "b 5"]) -> Float[np.ndarray, "b 3"]:
    """Ratio of the spreads, ratio of the effective dimensions, separation."""
    spread_x, spread_y, dimension_x, dimension_y, distance = numbers.T
    width = np.sqrt(0.5 * (spread_x**2 + spread_y**2))
    distance = np.where(distance <= _NO_DISTANCE * width, 0.0, distance)
    with np.errstate(divide="ignore", invalid="ignore"):  # a side may have lost its spread
        return np.column_stack([spread_x / spread_y, dimension_x / dimension_y, distance / width])


def _intervals(ratios: Float[np.ndarray, "b 3"], level: float) -> list[tuple[float, float]]:
    """Interval of each ratio, (0, infinity) where a logarithm does not exist."""
    usable = (np.isfinite(ratios) & (ratios > 0.0)).all(0)
    low, high = np.zeros(len(usable)), np.full(len(usable), np.inf)
    used = ratios[:, usable]
    low[usable], high[usable] = log_jackknife_interval(used[0], used[1:], level)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


STATISTIC = Statistic(
    what="width and effective dimension of each side, and the distance of the centres over them",
    compute=lambda x, y, sides: spread(x, y, *sides.groups, seed=sides.seed),
)
