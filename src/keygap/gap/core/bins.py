"""Bins of equal width, which every estimate from histograms counts in.

The edges come from both sides together, so that a label swap leaves them as they are.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from keygap.errors import UserError


def check_bins(bins: int) -> None:
    """Check the number of bins of a column.

    Args:
        bins: Number of bins.

    Raises:
        UserError: There are fewer than two.
    """
    if bins < 2:
        raise UserError(f"bins is {bins}: give at least 2")


def equal_width_bins(values: Float[np.ndarray, "n k"], bins: int) -> Int[np.ndarray, "n k"]:
    """Bin of each value, of bins of equal width between the ends of its column.

    Args:
        values: Pooled values, in float64. All values of a constant column are in its first bin.
        bins: Number of bins of each column.

    Returns:
        Indices in [0, bins). The largest value of a column is in its last bin.
    """
    low, width = values.min(0), np.ptp(values, axis=0)
    places = bins * (values - low) / np.where(width > 0.0, width, 1.0)
    return np.minimum(places.astype(int), bins - 1)
