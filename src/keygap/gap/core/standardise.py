"""Both sides of a comparison in common units: every column standardised over the two together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from sklearn.preprocessing import StandardScaler

_COLUMNS = 64  # at a time: float64 of all of them is large


def standardise(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    """Scale every column to mean 0 and deviation 1 over both sides, with equal weight for each.

    A few dimensions of attention keys are orders of magnitude larger than the others and would
    otherwise dominate any distance.

    Args:
        x: Vectors of the first side, shape (n, d).
        y: Vectors of the second side, shape (m, d).

    Returns:
        Both sides in float32. A constant column becomes 0.
    """
    weight = np.repeat([0.5 / len(x), 0.5 / len(y)], [len(x), len(y)]) * (len(x) + len(y))
    scaled = np.empty(x.shape, np.float32), np.empty(y.shape, np.float32)
    for start in range(0, x.shape[1], _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        both = np.concatenate([x[:, columns], y[:, columns]])
        # Rounding can leave a constant column a variance below 0. The scaler then divides it by 1.
        with np.errstate(invalid="ignore"):
            scaler = StandardScaler().fit(both.astype(np.float64), sample_weight=weight)
        found = scaler.transform(both)
        scaled[0][:, columns], scaled[1][:, columns] = found[: len(x)], found[len(x) :]
    return scaled
