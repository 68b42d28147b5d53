"""The image vectors get the mean norm of the text vectors; their directions stay."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from keygap.align.maps.kind import FitContext, HeadMap
from keygap.errors import UserError


def norms(
    image: Float[np.ndarray, "n d"], text: Float[np.ndarray, "m d"], context: FitContext
) -> HeadMap:
    """Scale image vectors by one factor to the mean norm of text vectors.

    Args:
        image: the image vectors of one head.
        text: its text vectors.
        context: not used.

    Raises:
        UserError: all image vectors are zero.
    """
    size = np.linalg.norm(image, axis=1).mean()
    if not size > 0:
        raise UserError("all image vectors are zero, and zero has no norm to scale: use mean-shift")
    dimensions = image.shape[1]
    factor = np.linalg.norm(text, axis=1).mean() / size
    return HeadMap(np.zeros(dimensions), scale=np.full(dimensions, factor))
