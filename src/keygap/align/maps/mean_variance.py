"""Each dimension of the image vectors gets the mean and the deviation that it has over text."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from keygap.align.maps.kind import FitContext, HeadMap
from keygap.errors import UserError


def mean_variance(
    image: Float[np.ndarray, "n d"], text: Float[np.ndarray, "m d"], context: FitContext
) -> HeadMap:
    """Match mean and standard deviation of each dimension; correlations stay those of the image.

    Args:
        image: the image vectors of one head.
        text: its text vectors.
        context: not used.

    Raises:
        UserError: a dimension does not vary over the image vectors.
    """
    deviation = image.std(0)
    if (constant := np.flatnonzero(deviation == 0)).size:
        raise UserError(
            f"{len(image)} image tokens do not vary in dimension {constant[0]}, which cannot be "
            "scaled: use mean-shift, or fit on more samples"
        )
    scale = text.std(0) / deviation
    return HeadMap(text.mean(0) - image.mean(0) * scale, scale=scale)
