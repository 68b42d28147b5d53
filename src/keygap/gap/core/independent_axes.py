"""Independent component analysis: axes on which the pooled vectors are least Gaussian.

Among many components, a difference in shape usually lies in a few directions: the plane of a ring,
an axis with two modes. Most projections of vectors in many dimensions are close to Gaussian
(Diaconis and Freedman 1984), and those with structure are not. So the directions in which a shape
lies can be found from the pooled vectors without their labels, like principal components, and no
fold has to be left out of the search.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_STEPS = 60
_TOLERANCE = 1e-4  # of the cosine between an axis and itself one step before
_LOG_COSH_OF_GAUSSIAN = 0.37457  # E log cosh of N(0, 1)


def independent_axes(
    z: Float[np.ndarray, "n k"],
) -> tuple[Float[np.ndarray, "k k"], Float[np.ndarray, " k"]]:
    """Rotation found by symmetric FastICA with log cosh as contrast (Hyvarinen 1999).

    It starts at the given axes, so it needs no random numbers. Axes that are all Gaussian never
    settle, and the search stops after 60 steps. O(60 n k^2).

    Args:
        z: Whitened vectors, which have the same weight (see ``core.components``).

    Returns:
        The axes as columns, least Gaussian first, and by how much the mean of log cosh on each axis
        differs from that of N(0, 1).
    """
    rows = z.astype(np.float32)
    share = np.float32(1.0 / len(rows))
    covariance = rows.T @ (share * rows)  # nearly I; the difference must not pass for a shape
    axes = np.eye(z.shape[1], dtype=np.float32)
    for _ in range(_STEPS):
        bent = np.tanh(rows @ axes)
        slope = (share * (1.0 - bent**2)).sum(0)
        left, _, right = np.linalg.svd(rows.T @ (share * bent) - covariance @ axes * slope)
        before, axes = axes, left @ right
        if np.abs((before * axes).sum(0)).min() > 1.0 - _TOLERANCE:
            break
    scores = np.abs(rows @ axes)
    log_cosh = scores + np.log1p(np.exp(-2.0 * scores)) - np.log(2.0, dtype=np.float32)
    strength = np.abs((share * log_cosh).sum(0) - _LOG_COSH_OF_GAUSSIAN)
    order = np.argsort(-strength)
    return axes[:, order].astype(np.float64), strength[order].astype(np.float64)
