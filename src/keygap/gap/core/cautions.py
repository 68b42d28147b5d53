"""Cautions: what makes the interval or the p-value of a comparison doubtful.

Intervals and tests count samples. With few samples they are rough, and copies of a sample are
counted as further evidence: eight copies of one question give an interval that is much too narrow,
and no statistic can see it in its own numbers.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from keygap import random_streams
from keygap.gap.core.inputs import CheckedSides

FEW_SAMPLES = 20  # the fewest with which the intervals and tests were checked (docs/statistics.md)
COPIES = 0.1  # share of samples or vectors that may equal another one without a caution
_EQUAL = 1e-4  # in units of the deviation; batches differ by 1e-6
_PROJECTIONS = 4
_ROWS = 8192  # at a time in float64

Points = Float[np.ndarray, "n p"]


def cautions(sides: CheckedSides, name_x: str = "x", name_y: str = "y") -> tuple[str, ...]:
    """What to be careful about in any statistic of two sides. O((n + m) d).

    Args:
        sides: Both sides.
        name_x: What to call the first side.
        name_y: What to call the second side.

    Returns:
        One line for each: fewer than 20 samples; a side whose vectors are all equal, or of which
        more than a tenth of the samples or of the vectors are copies.
    """
    found = []
    counts = (sides.n_samples_x, sides.n_samples_y)
    if min(counts) < FEW_SAMPLES:
        found.append(
            f"{min(counts)} samples, fewer than {FEW_SAMPLES}: intervals and p-values are rough"
        )
    of_x, of_y = _projected(sides)
    for name, points, samples, n_samples in (
        (name_x, of_x, sides.sample_x, sides.n_samples_x),
        (name_y, of_y, sides.sample_y, sides.n_samples_y),
    ):
        found += _copies(name, points, samples, n_samples)
    return tuple(found)


def _copies(name: str, points: Points, samples: Int[np.ndarray, " n"], n_samples: int) -> list[str]:
    different = _number_of_different(points)
    if different == 1:
        return [f"{name}: all {len(points)} vectors are equal"]
    counts = np.bincount(samples, minlength=n_samples)[:, None]
    means = np.stack(
        [np.bincount(samples, weights=column, minlength=n_samples) for column in points.T], axis=1
    )
    different_samples = _number_of_different(means / counts)
    if different_samples < (1 - COPIES) * n_samples:
        return [
            f"{name}: {n_samples} samples, only {different_samples} of them different: copies "
            "count as evidence, so intervals and p-values may be too small"
        ]
    if different < (1 - COPIES) * len(points):
        return [f"{name}: {len(points)} vectors, only {different} of them different"]
    return []


def _projected(sides: CheckedSides) -> tuple[Points, Points]:
    """Random projections in which equal vectors, and hardly any others, fall together."""
    rng = random_streams.generator(0, "cautions")
    directions = rng.standard_normal((sides.x.shape[1], _PROJECTIONS))
    of_x, of_y = (
        np.concatenate([side[n : n + _ROWS] @ directions for n in range(0, len(side), _ROWS)])
        for side in (sides.x, sides.y)
    )
    middle = 0.5 * (of_x.mean(0) + of_y.mean(0))
    size = np.sqrt(0.5 * (((of_x - middle) ** 2).mean(0) + ((of_y - middle) ** 2).mean(0)))
    size = np.maximum(size, 1e-300)
    return (of_x - middle) / size, (of_y - middle) / size


def _number_of_different(points: Points) -> int:
    return len(np.unique(np.round(points / _EQUAL), axis=0))
