"""Checks of the settings of baselines.

A setting that means nothing is refused when the intervention is made, in one line, and not in the
middle of a pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from keygap.arguments import distinct, whole
from keygap.errors import UserError

MOST_NATS = 1e4  # what half precision adds to a logit without overflow


def layers_of(layers: Sequence[int]) -> list[int]:
    """Check absolute indices of layers.

    Raises:
        UserError: there is none, one is named twice, or one is not an index.
    """
    return [whole(layer, "layers", 0) for layer in distinct(layers, "layers", "12")]


def number(value: object, what: str, least: float, most: float) -> float:
    """Check a number in a range that includes both ends.

    Args:
        value: an int or float, also of NumPy; not a bool.
        what: the setting's name.
        least: the least value.
        most: the greatest value.

    Raises:
        UserError: it is not a number, not finite, or outside the range.
    """
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{what} is {value!r}: a number is needed") from None
    if not (math.isfinite(found) and least <= found <= most):
        raise UserError(f"{what} is {found:g}: a number from {least:g} to {most:g} is needed")
    return found
