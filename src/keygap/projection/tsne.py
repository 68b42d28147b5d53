"""t-SNE to the plane, by openTSNE: several times faster than scikit-learn's on the same data."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from openTSNE import TSNE

from keygap.errors import UserError

FEW = 1000  # points; below, threads wait for each other longer than they work


def tsne(
    array: Float[np.ndarray, "n d"], perplexity: float = 30.0, seed: int = 0
) -> Float[np.ndarray, "n 2"]:
    """Coordinates in the plane that keep neighbours (not lengths) as they are in ``array``.

    Raises:
        UserError: too few points for the perplexity.
    """
    if len(array) <= 3 * perplexity:
        raise UserError(
            f"{len(array)} tokens are too few for t-SNE with perplexity {perplexity:g}: more than "
            f"{3 * perplexity:g} are needed; extract more with --samples"
        )
    jobs = 1 if len(array) < FEW else -1
    model = TSNE(perplexity=perplexity, initialization="pca", random_state=seed, n_jobs=jobs)
    return np.asarray(model.fit(array))
