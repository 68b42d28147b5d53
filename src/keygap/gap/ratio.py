"""How many times one gap is another, and how certain that is.

Two contrasts of one run share samples and often tokens, so their MMD^2 vary together, and the error
of their ratio is not that of two unrelated numbers. The interval is therefore a jackknife that
leaves the same sample out of both contrasts at once, on the log scale because a ratio is skewed:

    log ratio +- t(m - 1) * sqrt((S - 1) / S * sum over samples of (log ratio without s - mean)^2)

S counts the samples of either contrast, and m those of the contrast that has fewer: if it has few,
they alone say how certain the ratio is. The coverage is measured by
bench/statistics/ratio_coverage.py. Quantiles of ratios of bootstraps cover as well, but they are
wider where a gap is weak, and they are joint draws only if both contrasts have exactly the same
samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from keygap.errors import UserError
from keygap.gap.core.described import Described
from keygap.gap.core.inputs import check_level
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import log_jackknife_interval
from keygap.gap.mmd import MMDResult


@dataclass(frozen=True, repr=False)
class RatioResult(Described, title="Ratio of two gaps"):
    """MMD^2 over MMD^2 (no unit).

    Attributes:
        ratio: The ratio.
        ci: Confidence interval; (0, infinity) if either MMD^2 is not positive once some sample is
            left out.
        level: Confidence level of the interval.
        n_samples: Number of samples that are in either contrast.
        cautions: Those of both contrasts.
    """

    ratio: float
    ci: tuple[float, float]
    level: float
    n_samples: int
    cautions: tuple[str, ...] = ()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """``ratio``; the sides differ equally where it is 1."""
        what = "MMD squared of the first contrast over that of the second, no unit"
        settings = {"level": self.level}
        return (Reading("ratio", self.ratio, what, ci=self.ci, settings=settings),)


def mmd_ratio(gap: MMDResult, other: MMDResult, *, level: float = 0.95) -> RatioResult:
    """MMD^2 of one contrast over that of another with the same samples or some of them. O(S).

    Args:
        gap: MMD of a paired contrast.
        other: MMD of another paired contrast.
        level: Confidence level of the interval.

    Returns:
        The ratio and its interval. The interval is (0, infinity) if one of the two gaps is not
        positive without some sample, because the logarithm does not exist there.

    Raises:
        UserError: A contrast is unpaired, the two have no sample in common, they differ in kernel
            or estimator, or one of the gaps is not positive, so that a ratio to it says nothing.
    """
    check_level(level)
    if not gap.without or not other.without:
        raise UserError("the ratio of two gaps needs paired contrasts: each sample on both sides")
    if not gap.without.keys() & other.without.keys():
        raise UserError("the two gaps have no sample in common: their ratio compares two data sets")
    for what in ("kernel", "estimator"):
        of_gap, of_other = getattr(gap, what), getattr(other, what)
        if of_gap != of_other:
            raise UserError(
                f"the two gaps have different {what}s, {of_gap} and {of_other}: give them the same"
            )
    if gap.mmd2 <= 0.0 or other.mmd2 <= 0.0:
        raise UserError(
            f"MMD^2 values are {gap.mmd2:.3g} and {other.mmd2:.3g}: "
            "a ratio needs two positive values"
        )
    samples = dict.fromkeys((*gap.without, *other.without))  # each once, in a fixed order
    left_out = np.array(
        [(gap.without.get(s, gap.mmd2), other.without.get(s, other.mmd2)) for s in samples]
    )
    ratio = gap.mmd2 / other.mmd2
    doubts = tuple(dict.fromkeys((*gap.cautions, *other.cautions)))
    if not (left_out > 0.0).all():
        return RatioResult(ratio, (0.0, math.inf), level, len(samples), doubts)
    degrees = min(len(gap.without), len(other.without)) - 1
    low, high = log_jackknife_interval(ratio, left_out[:, 0] / left_out[:, 1], level, degrees)
    return RatioResult(ratio, (float(low), float(high)), level, len(samples), doubts)
