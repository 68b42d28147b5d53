"""A control: image vectors move as far as under the mean shift, in a random direction."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from keygap.align.maps.kind import (
    FitContext,
    HeadMap,
    as_long_as_the_mean_shift,
    control,
    shift_only,
)


@control
@shift_only
def random_direction(
    image: Float[np.ndarray, "n d"], text: Float[np.ndarray, "m d"], context: FitContext
) -> HeadMap:
    """Control: shift in a random direction, in each head as far as the mean shift.

    Directions are uniform on the sphere, and independent between heads and layers.

    Args:
        image: the image vectors of one head.
        text: its text vectors.
        context: the random generator.
    """
    direction = context.rng.normal(size=(image.shape[1],))
    return as_long_as_the_mean_shift(direction, image, text)
