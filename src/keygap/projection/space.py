"""Principal components, from which t-SNE starts."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA


def principal_components(
    array: Float[np.ndarray, "n d"], dim: int, seed: int
) -> Float[np.ndarray, "n k"]:
    """Project vectors to their first principal components.

    Args:
        array: (n, d), one vector a row.
        dim: the number of components k; if n or d is smaller, k is that.
        seed: of the randomised solver, which large arrays use.

    Returns:
        Centred scores, (n, k), in the units of the vectors, components by falling variance.
    """
    most = min(dim, *array.shape)
    return PCA(most, random_state=seed).fit_transform(array)
