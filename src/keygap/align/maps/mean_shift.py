"""The mean of the image vectors moves onto that of the text vectors; everything else stays."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from keygap.align.maps.kind import FitContext, HeadMap, mean_difference, shift_only


@shift_only
def mean_shift(
    image: Float[np.ndarray, "n d"], text: Float[np.ndarray, "m d"], context: FitContext
) -> HeadMap:
    """Shift image vectors by the difference of the two means.

    Args:
        image: the image vectors of one head.
        text: its text vectors.
        context: not used.
    """
    return HeadMap(mean_difference(image, text))
