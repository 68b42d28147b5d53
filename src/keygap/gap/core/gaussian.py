"""The Gaussian kernel of several heads and of all heads together, in one pass.

A block of the kernel costs one matrix product and one exponential. Rows are extended to
(2a, -|a|^2, 1) and columns to (b, 1, -|b|^2), whose product is -|a - b|^2. The squared distance of
two vectors is the sum of those of their heads, so all heads together need no product of their own.
Where the squared bandwidth halves, the next kernel is the square of the one before. Kernels are
evaluated in float32 on centred vectors, and cell means are added in float64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from keygap.gap.core.cells import (
    Block,
    add_to_cells,
    add_to_samples,
    block_pairs,
    by_cell,
    cell_means,
    target_of,
)
from keygap.gap.core.inputs import CheckedSides
from keygap.gap.core.resampling import PairSums

_LONG = 8.0  # mean squared length over 2 sigma^2 from which float32 rounds an exponent by 1e-6

Exponent = Float[torch.Tensor, "rows columns"]
Extended = tuple[Float[torch.Tensor, "n+m d+2"], Float[torch.Tensor, "n+m d+2"]]


def gaussian_sums(
    sides: Sequence[CheckedSides],
    bandwidths: Sequence[Sequence[float]],
    device: str | torch.device | None = None,
) -> list[PairSums]:
    """Sums over pairs of samples of the Gaussian kernel, averaged over bandwidths.

    O((n + m)^2 d / 2) time, and O(S^2) memory for each of the sides if they are paired.

    Args:
        sides: One pair of sides. Or several: the first has all heads and the others are its heads,
            in the order of the columns.
        bandwidths: Values of sigma of each, in descending order, in units of the vectors. All have
            the same ratios.
        device: Where the kernel is evaluated; None: a GPU if there is one.

    Returns:
        The sums of each.
    """
    target, first = target_of(device), sides[0]
    units = first.n_samples_x if first.paired else first.n_cells
    sums = [torch.zeros(units, units, dtype=torch.float64, device=target) for _ in sides]
    add = add_to_samples if first.paired else add_to_cells
    widest, narrowest = (tuple(grid[end] for grid in bandwidths) for end in (0, -1))
    ratio = min(low / high for low, high in zip(narrowest, widest, strict=True))
    for row, column, exponents in exponent_blocks(sides, widest, ratio, None, target):
        for which, exponent in exponents:
            kernel = _sum_of_gaussians(exponent, bandwidths[which])
            add(sums[which], row, column, cell_means(kernel, row, column))
    found = []
    for matrix, grid in zip(sums, bandwidths, strict=True):
        matrix /= len(grid)
        matrix.fill_diagonal_(0.0)
        found.append(PairSums(matrix.cpu().numpy(), first.n_samples_x, first.paired))
    return found


def exponent_blocks(
    sides: Sequence[CheckedSides],
    widest: Sequence[float],
    ratio: float,
    block: int | None,
    target: torch.device,
) -> Iterator[tuple[Block, Block, Iterator[tuple[int, Exponent]]]]:
    """Iterate over -|a - b|^2 / (2 sigma^2) in blocks.

    Args:
        sides: As in ``gaussian_sums``.
        widest: The largest sigma of each.
        ratio: The smallest sigma over it.
        block: Rows of a block; None: a size that suits the device.
        target: Where to compute.

    Yields:
        Two blocks of rows, and the exponents of each of the sides with its place. An exponent may
        be overwritten.
    """
    order = by_cell(sides[0])
    heads = sides[1:] or sides
    scales = [sigma * math.sqrt(2.0) for sigma in (widest[1:] or widest)]
    extended = _extended(heads, scales, ratio, order, target)
    # in units of all heads together
    factors = [(scale / (widest[0] * math.sqrt(2.0))) ** 2 for scale in scales]
    for row, column in block_pairs(sides[0], block, target):
        yield row, column, _exponents(extended, factors, row, column)


def _exponents(
    extended: Sequence[Extended], factors: Sequence[float], row: Block, column: Block
) -> Iterator[tuple[int, Exponent]]:
    """The exponents of each head, then those of all heads together, which are their sum."""
    total: Exponent | None = None
    for head, ((left, right), factor) in enumerate(zip(extended, factors, strict=True), start=1):
        exponent = left[row.rows] @ right[column.rows].T
        if len(extended) == 1:
            yield 0, _rounded(exponent, row is column)
            return
        total = exponent * factor if total is None else total.add_(exponent, alpha=factor)
        yield head, _rounded(exponent, row is column)
    assert total is not None
    yield 0, _rounded(total, row is column)


def _rounded(exponent: torch.Tensor, with_itself: bool) -> Exponent:
    """Exponents in float32, at most 0; a vector and itself without the rounding of the product."""
    exponent = exponent.float().clamp_(max=0.0)
    return exponent.fill_diagonal_(0.0) if with_itself else exponent


def gaussians(exponent: Exponent, bandwidths: Sequence[float]) -> Iterator[Exponent]:
    """Iterate over the kernels of each bandwidth, given the exponents of the first.

    A kernel is overwritten by the next one, and so is ``exponent`` if squares are all it takes.

    Args:
        exponent: Exponents.
        bandwidths: Values of sigma in descending order.
    """
    scales, doubles = _scales(bandwidths)
    kernel = exponent.exp_() if all(doubles) else exponent.exp()
    yield kernel
    for scale, is_square in zip(scales[1:], doubles, strict=True):
        kernel = kernel.mul_(kernel) if is_square else torch.exp(exponent * scale)
        yield kernel


def _sum_of_gaussians(exponent: Exponent, bandwidths: Sequence[float]) -> Exponent:
    """Sum of ``gaussians``; squares are added without being stored where that is possible."""
    _, doubles = _scales(bandwidths)
    if not doubles or not all(doubles):
        kernels = gaussians(exponent, bandwidths)
        return sum(kernels, start=torch.zeros_like(exponent))
    kernel = exponent.exp_()
    total = torch.addcmul(kernel, kernel, kernel)
    for _ in doubles[1:]:
        total.addcmul_(kernel.mul_(kernel), kernel)
    return total


def _scales(bandwidths: Sequence[float]) -> tuple[list[float], list[bool]]:
    """Factors of the exponents of each bandwidth, and whether each but the first doubles."""
    scales = [(bandwidths[0] / bandwidth) ** 2 for bandwidth in bandwidths]
    return scales, [math.isclose(now, 2 * before) for before, now in itertools.pairwise(scales)]


def _extended(
    heads: Sequence[CheckedSides],
    scales: Sequence[float],
    ratio: float,
    order: Int[np.ndarray, " n+m"],
    target: torch.device,
) -> list[Extended]:
    """(2a, -|a|^2, 1) and (b, 1, -|b|^2) of each head, divided by its scale.

    They are float64 where vectors are long beside the narrowest bandwidth. In float32 the kernel of
    two equal vectors would then not be 1.
    """
    longest = max(
        float((_scaled(sides, scale) ** 2).sum(1).mean()) / ratio**2
        for sides, scale in zip(heads, scales, strict=True)
    )
    dtype = np.float32 if longest < _LONG else np.float64
    found = []
    for sides, scale in zip(heads, scales, strict=True):  # again: float64 of all heads is large
        vectors = torch.from_numpy(_scaled(sides, scale)[order].astype(dtype)).to(target)
        squares = (vectors * vectors).sum(1, keepdim=True)
        ones = torch.ones_like(squares)
        found.append(
            (torch.cat([2 * vectors, -squares, ones], 1), torch.cat([vectors, ones, -squares], 1))
        )
    return found


def _scaled(sides: CheckedSides, scale: float) -> Float[np.ndarray, "n+m d"]:
    """Vectors of both sides in units of ``scale``, centred: small norms round less."""
    return (sides.pooled - sides.weights @ sides.pooled) / scale
