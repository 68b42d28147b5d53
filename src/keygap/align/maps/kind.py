"""What a kind of map gets and returns, for one head of one layer.

A kind of map is a function of arrays and knows no model. Every token counts the same in a mean,
whatever its sample. So a map that shifts the mean of the image onto that of the text closes the
distance of these two means exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from keygap.errors import UserError


@dataclass(frozen=True)
class HeadMap:
    """x -> x * scale + shift, or x @ matrix + shift, in one head.

    Attributes:
        shift: what is added.
        scale: what multiplies each dimension; None leaves it. At most one of scale and matrix.
        matrix: what multiplies a vector from the right; None leaves it.
    """

    shift: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"] | None = None
    matrix: Float[np.ndarray, "d d"] | None = None


@dataclass(frozen=True)
class FitContext:
    """What a kind of map may know besides the vectors.

    Attributes:
        groups_image: the sample of each image vector.
        groups_text: the sample of each text vector.
        words_text: the token of each text vector, as the tokenizer spells it.
        rng: the random generator of this map, layer, head and draw.
        order_seed: seed of this map and draw, the same at every layer and head. With
            ``keygap.contrasts.labels.rank`` it orders samples or words in the same way everywhere.
    """

    groups_image: np.ndarray
    groups_text: np.ndarray
    words_text: np.ndarray
    rng: np.random.Generator
    order_seed: int


Kind = Callable[[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"], FitContext], HeadMap]


def control(kind: Kind) -> Kind:
    """Mark a kind of map as a control: it moves vectors as far as a map, but not towards text."""
    kind.control = True  # type: ignore[attr-defined]
    return kind


def shift_only(kind: Kind) -> Kind:
    """Mark a kind of map that adds one vector to all image vectors of a head and does no more."""
    kind.shift_only = True  # type: ignore[attr-defined]
    return kind


def mean_difference(
    image: Float[np.ndarray, "n d"], text: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, " d"]:
    """The mean of the text vectors minus that of the image vectors."""
    return text.mean(0) - image.mean(0)


def as_long_as_the_mean_shift(
    direction: Float[np.ndarray, " d"],
    image: Float[np.ndarray, "n d"],
    text: Float[np.ndarray, "m d"],
) -> HeadMap:
    """A shift in some direction, as long as the difference of the two means in this head.

    Args:
        direction: not of length 0.
        image: the image vectors.
        text: the text vectors.

    Raises:
        UserError: the direction has length 0.
    """
    length = np.linalg.norm(direction)
    if not length > 0:
        raise UserError("the two groups of the control have the same mean, so it has no direction")
    return HeadMap(direction / length * np.linalg.norm(mean_difference(image, text)))
