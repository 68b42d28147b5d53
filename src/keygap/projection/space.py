"""Principal components, the coordinates that t-SNE starts from."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA


def principal_components(
    array: Float[np.ndarray, "n d"], dim: int, seed: int
) -> Float[np.ndarray, "n k"]:
    """The first ``dim`` principal components (or as many as there are)."""
    most = min(dim, *array.shape)
    return PCA(most, random_state=seed).fit_transform(array)
