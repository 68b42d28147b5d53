"""Holm's adjustment of p-values for many tests at once, such as layers and heads.

Holm 1979, "A simple sequentially rejective multiple test procedure". It is valid under any
dependence between the tests and never weaker than Bonferroni. scipy offers adjustments for the
false discovery rate only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from keygap.errors import UserError


def holm(p_values: Sequence[float] | Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values of a family of tests. O(tests log tests).

    Args:
        p_values: One p-value per test.

    Returns:
        Adjusted p-values in the same order. Rejecting those at or below alpha keeps the
        probability of any false rejection at or below alpha.

    Raises:
        UserError: A value is not a probability.
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not ((p >= 0.0) & (p <= 1.0)).all():
        raise UserError("p-values must be one list of numbers between 0 and 1")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted
