"""A control: the mean difference between two kinds of text, as long as that from image to text.

Two disjoint sets of words differ as kinds of tokens do, without a difference of modality.
"""

from __future__ import annotations

from collections import Counter

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
def text_text(
    image: Float[np.ndarray, "n d"], text: Float[np.ndarray, "m d"], context: FitContext
) -> HeadMap:
    """Control: shift between two disjoint vocabularies of text, as far as the mean shift.

    In a seeded order, which is the same at every layer and head of a draw, each word goes to the
    vocabulary that has fewer tokens so far.

    Args:
        image: the image vectors of one head.
        text: its text vectors.
        context: the words of the text vectors, and the seed of their order.

    Raises:
        UserError: the text has one word only.
    """
    first = _first_vocabulary(np.asarray(context.words_text), context.order_seed)
    if first.all() or not first.any():
        raise UserError("the text has one word only, and two vocabularies need two: fit on more")
    return as_long_as_the_mean_shift(text[~first].mean(0) - text[first].mean(0), image, text)


def _first_vocabulary(words: np.ndarray, seed: int) -> np.ndarray:
    """Which tokens are words of the first vocabulary."""
    counts = Counter(words.tolist())
    sides: tuple[list[str], list[str]] = ([], [])
    sizes = [0, 0]
    for word in sorted(counts, key=lambda item: rank(seed, item)):
        side = int(sizes[1] < sizes[0])
        sides[side].append(word)
        sizes[side] += counts[word]
    return np.isin(words, sides[0])
