"""Holm's adjustment of p-values for many tests at once (layers, heads).

Holm 1979, "A simple sequentially rejective multiple test procedure": valid under any dependence,
never weaker than Bonferroni. scipy adjusts for the false discovery rate only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from keygap.errors import UserError


def holm(p_values: Sequence[float] | Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values, in the order given: reject where one is at most alpha.

    Raises UserError where a value is no probability. O(tests log tests).
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not ((p >= 0.0) & (p <= 1.0)).all():
        raise UserError("p-values must be one list of numbers between 0 and 1")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted
