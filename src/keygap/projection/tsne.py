"""t-SNE to two dimensions.

openTSNE is used because it is several times faster than scikit-learn on the same data.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from openTSNE import TSNE

from keygap import random_streams
from keygap.arguments import real
from keygap.defaults import PERPLEXITY
from keygap.errors import UserError

MOST_PERPLEXITY = 1000.0  # each point has three times as many neighbours in memory
FEW = 1000  # below this many points, threads cost more than they save
JOBS = 4  # threads above that, on any machine: coordinates depend on their number


def tsne(
    array: Float[np.ndarray, "n d"], perplexity: float = PERPLEXITY, seed: int = 0
) -> Float[np.ndarray, "n 2"]:
    """Find two coordinates per point that keep its neighbours, though not its distances.

    Args:
        array: (n, d), one point a row.
        perplexity: the effective number of neighbours of a point.
        seed: of the initialisation and the optimiser.

    Returns:
        Coordinates, (n, 2), without a unit.

    Raises:
        UserError: the perplexity is not above 1 and at most 1,000, or there are at most three times
            ``perplexity`` points.
    """
    perplexity = real(perplexity, "perplexity", 1, MOST_PERPLEXITY)
    if len(array) <= 3 * perplexity:
        raise UserError(
            f"{len(array)} tokens are too few for t-SNE with perplexity {perplexity:g}: more than "
            f"{3 * perplexity:g} are needed; raise --tokens, extract more with --samples, or lower "
            "the perplexity"
        )
    jobs = 1 if len(array) < FEW else JOBS
    model = TSNE(
        perplexity=perplexity,
        initialization="pca",
        random_state=random_streams.integer(seed, "t-SNE"),
        n_jobs=jobs,
    )
    return np.asarray(model.fit(array))
