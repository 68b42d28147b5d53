"""Principal components of both sides together, found without looking at the labels.

Distances between distributions in many dimensions saturate, so they are taken in a few; and those
few must not be chosen by the very difference that is then measured. Hence: pooled vectors, sides
balanced and samples weighing the same, and no labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import linalg
from scipy.sparse.linalg import eigsh

from keygap.errors import UserError
from keygap.gap.core.inputs import TwoSides

_RANK = 1e-10  # variance of a component, over the first one's, that float32 rounding can reach
_LANCZOS_FROM = 1000  # columns above which a few components are found without all of them


@dataclass(frozen=True)
class Components:
    """Scores of the pooled vectors on the leading components, each with unit weighted variance."""

    scores: Float[np.ndarray, "n+m k"]
    variance: Float[np.ndarray, " k"]  # of each component before scaling
    explained: Float[np.ndarray, " k"]  # share of the pooled variance
    available: int  # components with variance at all, as far as they were asked for


def pooled_components(
    sides: TwoSides, dims: int | None, *, allow_fewer: bool = False
) -> Components:
    """The first `dims` components (None: as many as have variance). O((n + m) d^2 + d^3).

    Raises UserError where fewer vectors, columns or varying directions exist than `dims`
    (`allow_fewer`: than one).
    """
    pooled, weights = sides.pooled.astype(np.float64), sides.weights
    n, d = pooled.shape
    wanted = d if dims is None else dims
    if wanted < 1:
        raise UserError(f"dims is {dims}: give at least 1")
    if dims is not None and dims > d:
        raise UserError(f"{dims} components of vectors with {d} columns: ask for at most {d}")
    if dims is not None and dims > n - 1:
        raise UserError(
            f"{dims} components from {n} vectors: ask for at most {n - 1}, or give more vectors"
        )
    if not np.ptp(pooled, axis=0).any():
        raise UserError("all vectors are equal, on both sides: nothing to compare")
    pooled -= weights @ pooled
    covariance = pooled.T @ (pooled * weights[:, None])
    total = float(np.trace(covariance))
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
    return Components(
        scores=pooled @ (axes / np.sqrt(values)),
        variance=values,
        explained=values / total,
        available=available,
    )
