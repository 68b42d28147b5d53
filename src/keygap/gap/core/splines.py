"""Cubic B-splines of many columns at once, each column with knots of its own.

The values of a basis of splines at a point depend on six knots around it, by the recursion of Cox
and de Boor (Piegl and Tiller 1997, algorithm A2.2). Here the recursion runs over arrays.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_DEGREE = 3


def cubic_splines(
    values: Float[Tensor, "columns n"], knots: Float[Tensor, "columns knots"]
) -> Float[Tensor, "columns knots+2 n"]:
    """B-splines of each column, constant beyond its first and last knot.

    Args:
        values: Where to evaluate, in float64.
        knots: Increasing knots of each column.

    Returns:
        The values of every spline in float32.
    """
    inside = torch.clamp(values, knots[:, :1], knots[:, -1:])
    interval = torch.zeros_like(inside, dtype=torch.int64)
    for knot in knots[:, 1:-1].split(1, dim=1):
        interval += inside >= knot
    of_interval = _four_splines(inside, interval, _extended(knots))
    found = values.new_zeros(len(values), knots.shape[1] + 2, values.shape[1], dtype=torch.float32)
    for j, spline in enumerate(of_interval):
        found.scatter_(1, (interval + j)[:, None], spline[:, None])
    return found


def _extended(knots: Float[Tensor, "columns knots"]) -> Float[Tensor, "columns knots+6"]:
    """The knots with three more on each side, in steps of the first and last interval."""
    steps = torch.arange(1, _DEGREE + 1, dtype=knots.dtype)
    first, last = knots[:, :1], knots[:, -1:]
    before = first - steps.flip(0) * (knots[:, 1:2] - first)
    return torch.cat([before, knots, last + steps * (last - knots[:, -2:-1])], 1)


def _four_splines(
    values: Float[Tensor, "columns n"],
    interval: Int[Tensor, "columns n"],
    knots: Float[Tensor, "columns knots"],
) -> list[Float[Tensor, "columns n"]]:
    """The four splines that are not zero in the interval of each value."""
    steps = knots.diff().float()
    widths = [steps.gather(1, interval + j) for j in range(1, 2 * _DEGREE)]
    middle = _DEGREE - 1  # of the widths: that of the interval itself
    left = [(values - knots.gather(1, interval + _DEGREE)).float()]
    right = [widths[middle] - left[0]]
    for j in range(1, _DEGREE):
        left.append(left[-1] + widths[middle - j])
        right.append(right[-1] + widths[middle + j])
    splines = [torch.ones_like(left[0])]
    for degree in range(1, _DEGREE + 1):
        saved = torch.zeros_like(left[0])
        for r in range(degree):
            part = splines[r] / (right[r] + left[degree - 1 - r])
            splines[r] = torch.addcmul(saved, right[r], part)
            saved = left[degree - 1 - r] * part
        splines.append(saved)
    return splines
