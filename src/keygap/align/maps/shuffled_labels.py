"""A control: the mean difference of two groups whose labels say nothing of modality.

Whole samples are dealt to two groups at random, and the difference is taken between the groups
inside each modality, then averaged over both. So the two groups have the same shares of image and
text. Labels that are shuffled freely, over tokens or inside samples, do not keep these shares: a
group has a few more image tokens by chance, and where the gap is the largest difference in the
data, the direction between the groups is then mostly that of the gap itself, with a random sign.
"""

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
from keygap.contrasts.labels import rank
from keygap.errors import UserError


@control
@shift_only
def shuffled_labels(
    image: Float[np.ndarray, "n d"], text: Float[np.ndarray, "m d"], context: FitContext
) -> HeadMap:
    """Control: shift between two random halves of the samples, as far as the mean shift.

    The halves are the same at every layer and head of a draw.

    Args:
        image: the image vectors of one head.
        text: its text vectors.
        context: the samples of the vectors, and the seed of the halves.

    Raises:
        UserError: a half has no image or no text, as one of two halves of one sample.
    """
    groups = [np.asarray(own) for own in (context.groups_image, context.groups_text)]
    ids = np.unique(np.concatenate(groups))
    order = sorted(ids.tolist(), key=lambda item: rank(context.order_seed, item))
    first = [np.isin(own, order[: len(order) // 2]) for own in groups]
    if any(chosen.all() or not chosen.any() for chosen in first):
        raise UserError(
            f"a random half of {len(ids)} samples has no image tokens or no text tokens: fit on "
            "more samples"
        )
    differences = [
        side[~chosen].mean(0) - side[chosen].mean(0)
        for side, chosen in zip((image, text), first, strict=True)
    ]
    return as_long_as_the_mean_shift(np.mean(differences, axis=0), image, text)
