"""Principal components of both sides together, found without the labels.

Distances between distributions in many dimensions saturate, so they are computed in a few. Those
few must not be chosen by the difference that is then measured. Components are therefore fitted to
the pooled vectors without their labels, and every vector has the same weight: a vector draws the
components towards itself by its weight, so that heavier vectors of a smaller side could be told by
that alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import linalg
from scipy.sparse.linalg import eigsh

from keygap.errors import UserError
from keygap.gap.core.inputs import CheckedSides

_RANK = 1e-10  # share of the first variance below which a component is float32 rounding
_ROWS = 8192  # at a time in float64, which of all of them is large
_LANCZOS_FROM = 1000  # columns above which a few components are found without all of them


@dataclass(frozen=True)
class Components:
    """Scores of the pooled vectors on the leading components.

    Attributes:
        scores: Coordinates of the vectors of x, then of y; each component has variance 1.
        variance: Variance of each component before that scaling, in squared units of the vectors.
        explained: Share of the pooled variance in each component.
        available: Number of components with variance, at most the number that was asked for.
    """

    scores: Float[np.ndarray, "n+m k"]
    variance: Float[np.ndarray, " k"]
    explained: Float[np.ndarray, " k"]
    available: int


def pooled_components(
    sides: CheckedSides, dims: int | None, *, allow_fewer: bool = False
) -> Components:
    """The leading principal components of the pooled vectors. O((n + m) d^2 + d^3).

    Args:
        sides: Both sides.
        dims: Number of components; None: as many as have variance.
        allow_fewer: Return fewer components if the vectors vary in fewer directions.

    Returns:
        The components, in descending order of variance.

    Raises:
        UserError: ``dims`` exceeds what the vectors have (their number less one, their columns, or
            the directions in which they vary), or all vectors are equal.
    """
    pooled = sides.pooled
    n, d = pooled.shape
    _check_dims(dims, *pooled.shape)
    if not np.ptp(pooled, axis=0).any():
        raise UserError("all vectors are equal, on both sides: nothing to compare")
    parts = [slice(start, start + _ROWS) for start in range(0, n, _ROWS)]
    mean = pooled.mean(0, dtype=np.float64)
    covariance = np.zeros((d, d))
    for rows in parts:
        centred = pooled[rows] - mean
        covariance += centred.T @ centred / n
    total = float(np.trace(covariance))
    wanted = d if dims is None else dims
    if d > _LANCZOS_FROM and wanted < d // 10:
        values, axes = eigsh(covariance, k=wanted, v0=np.ones(d))
    else:
        values, axes = linalg.eigh(covariance, subset_by_index=[d - wanted, d - 1])
    values, axes = values[::-1], axes[:, ::-1]
    available = int((values > _RANK * values[0]).sum())
    if dims is not None and available < dims and not allow_fewer:
        raise UserError(
            f"{dims} components, and the vectors vary in {available} directions only "
            f"(constant or dependent columns): ask for at most {available}"
        )
    values, axes = values[:available], axes[:, :available]
    scaled = axes / np.sqrt(values)
    return Components(
        scores=np.concatenate([(pooled[rows] - mean) @ scaled for rows in parts]),
        variance=values,
        explained=values / total,
        available=available,
    )


def _check_dims(dims: int | None, n: int, d: int) -> None:
    if dims is None:
        return
    if dims < 1:
        raise UserError(f"dims is {dims}: give at least 1")
    if dims > d:
        raise UserError(f"{dims} components of vectors with {d} columns: ask for at most {d}")
    if dims > n - 1:
        raise UserError(
            f"{dims} components from {n} vectors: ask for at most {n - 1}, or give more vectors"
        )
