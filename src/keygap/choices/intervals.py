"""Jackknife intervals of numbers that were computed again without each group of samples."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats

LEVEL = 0.95  # of every interval over samples


def jackknife_error(values: Float[np.ndarray, "... 1+G"]) -> Float[np.ndarray, ...]:
    """Standard error of the observed values, from those without each group of samples.

    It is sqrt((G - 1) / G * sum over groups of (value without it - their mean)^2), the delete-group
    jackknife (Shao and Tu 1995, "The Jackknife and Bootstrap", section 2.3).

    Args:
        values: observed first, then without each group, along the last axis.
    """
    left_out = values[..., 1:]
    return np.sqrt((left_out.shape[-1] - 1) * left_out.var(-1))


def half_width(n_groups: int, level: float) -> float:
    """Standard errors from an estimate to the end of its interval, by Student's t."""
    return float(stats.t.ppf((1 + level) / 2, n_groups - 1))
