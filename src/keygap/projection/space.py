"""Coordinates in which two sets of vectors are compared or drawn: standardised, then PCA."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler


def standardise(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    """Every column to mean 0 and deviation 1 over both sides, each side weighing the same.

    A few dimensions of attention keys are orders larger than the rest and would be all that a
    distance sees. A constant column becomes 0.
    """
    both = np.concatenate([x, y])
    weight = np.repeat([0.5 / len(x), 0.5 / len(y)], [len(x), len(y)]) * len(both)
    scaled = StandardScaler().fit(both.astype(np.float64), sample_weight=weight).transform(both)
    return scaled[: len(x)].astype(np.float32), scaled[len(x) :].astype(np.float32)


def principal_components(
    array: Float[np.ndarray, "n d"], dim: int, seed: int
) -> Float[np.ndarray, "n k"]:
    """The first ``dim`` principal components (or as many as there are)."""
    most = min(dim, *array.shape)
    return PCA(most, random_state=seed).fit_transform(array)
