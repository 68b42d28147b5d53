"""Logistic regression by Newton's method, without the checks that make many small fits slow.

One estimate of the JSD fits some thirty logistic regressions to a few thousand rows. At that size
the input validation of scikit-learn takes longer than the arithmetic. The objective is the same as
that of ``sklearn.linear_model.LogisticRegression``.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import linalg
from scipy.special import expit

_MAX_STEPS = 50
_TOLERANCE = 1e-4  # of a coefficient; Newton's steps shrink quadratically
_LEAST = np.float32(1e-30)  # probability
_FLAT = 1e-9  # added to the diagonal of the Hessian, which is nearly 0 if the sides are separable


def logistic_regression(
    features: Float[np.ndarray, "n k"],
    label: Bool[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"],
    ridge: float = 1.0,
) -> Float[np.ndarray, " k+1"]:
    """Coefficients that minimise sum(weight * log loss) + ridge / 2 * |coefficients|^2.

    Args:
        features: One row for each vector.
        label: Whether each row is on side x.
        weight: Weight of each row.
        ridge: Penalty, which leaves out the intercept.

    Returns:
        The coefficient of each feature, then the intercept.
    """
    n, k = features.shape
    # The Hessian costs n k^2 and only steers the steps, so float32 is enough.
    rows = np.ones((n, k + 1), dtype=np.float32)
    rows[:, :k] = features
    penalty = np.full(k + 1, ridge)
    penalty[k] = 0.0
    found, loss = np.zeros(k + 1), np.inf
    step = np.zeros(k + 1)
    for _ in range(_MAX_STEPS):
        p = expit(rows @ found.astype(np.float32))
        right = np.maximum(np.where(label, p, 1.0 - p), _LEAST)
        new_loss = float(0.5 * penalty @ found**2 - weight @ np.log(right))
        if new_loss > loss + 1e-6 * abs(loss):  # the step was too long
            step = 0.5 * step
            found = found + step
            continue
        loss = new_loss
        gradient = (weight * (p - label)) @ rows + penalty * found
        scaled = rows * np.sqrt(weight * p * (1.0 - p)).astype(np.float32)[:, None]
        hessian = (scaled.T @ scaled).astype(np.float64)
        hessian[np.diag_indices(k + 1)] += penalty + _FLAT
        step = linalg.solve(hessian, gradient, assume_a="pos")
        found = found - step
        if np.abs(step).max() < _TOLERANCE:
            break
    return found
