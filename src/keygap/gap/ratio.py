"""How many times one gap is another, and how sure that is.

Two contrasts of one run share samples, often tokens too, so their MMD^2 go up and down together and
the error of their ratio is not that of two unrelated numbers. Hence a jackknife that leaves the
same sample out of both at once, wherever it takes part, on the log scale:

    log ratio +- t(S - 1) * sqrt((S - 1) / S * sum over samples of (log ratio without s - mean)^2)

On the log scale because a ratio is skewed; its coverage is measured by
bench/statistics/ratio_coverage.py. Quantiles of ratios of bootstraps cover as well but are wider
where a gap is weak, and are joint draws only where both contrasts have the very same samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from keygap.errors import UserError
from keygap.gap.core.inputs import check_level
from keygap.gap.mmd import MMDResult


@dataclass(frozen=True)
class RatioResult:
    """MMD^2 over MMD^2 (no unit). An end at infinity: the second gap is not told from none."""

    ratio: float
    ci: tuple[float, float]
    level: float
    n_samples: int  # that take part in either


def mmd_ratio(gap: MMDResult, other: MMDResult, *, level: float = 0.95) -> RatioResult:
    """MMD^2 of `gap` over that of `other`, of the same samples or of some of them.

    Where one of the two is not positive without some sample, there is no logarithm and the interval
    is (0, infinity). Raises UserError: an unpaired contrast, no sample in common, one of the gaps
    not positive (a ratio to no gap says nothing). O(S).
    """
    check_level(level)
    if not gap.without or not other.without:
        raise UserError("the ratio of two gaps needs paired contrasts: each sample on both sides")
    if not gap.without.keys() & other.without.keys():
        raise UserError("the two gaps have no sample in common: their ratio compares two data sets")
    if gap.mmd2 <= 0.0 or other.mmd2 <= 0.0:
        raise UserError(f"MMD^2 of {gap.mmd2:.3g} over {other.mmd2:.3g}: there is no gap in one")
    samples = dict.fromkeys((*gap.without, *other.without))  # each once, in a settled order
    left_out = np.array(
        [(gap.without.get(s, gap.mmd2), other.without.get(s, other.mmd2)) for s in samples]
    )
    ratio = gap.mmd2 / other.mmd2
    if not (left_out > 0.0).all():
        return RatioResult(ratio, (0.0, math.inf), level, len(samples))
    logs = np.log(left_out[:, 0] / left_out[:, 1])
    error = math.sqrt((len(logs) - 1) * float(logs.var()))
    half = float(stats.t.ppf((1 + level) / 2, len(logs) - 1)) * error
    return RatioResult(
        ratio, (ratio * math.exp(-half), ratio * math.exp(half)), level, len(samples)
    )
