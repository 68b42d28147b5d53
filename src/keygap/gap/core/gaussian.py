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
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from keygap import random_streams
from keygap.gap.core.cells import Block, block_pairs, by_sample, sample_means, target_of
from keygap.gap.core.inputs import CheckedSides
from keygap.gap.core.resampling import PairTotals, drawn_swaps

LABEL_SWAPS = "mmd", "label swaps"  # the purpose of their random numbers
_COLUMNS = 64  # at a time
_PRODUCTS = 2**22  # numbers of label swaps at a time: 32 MB
# mean squared length, in units of 2 sigma^2, above which float32 changes an exponent by more than
# 1e-6 (root mean square)
_LONG = 8.0

Exponent = Float[torch.Tensor, "rows columns"]
Scaled = tuple[Float[torch.Tensor, "n+m d"], Float[torch.Tensor, "n+m 1"]]


@dataclass(frozen=True)
class Swapped:
    """MMD of one pair of sides without the matrix over samples.

    Attributes:
        totals: Sums of the matrix.
        null: MMD squared under each label swap.
    """

    totals: PairTotals
    null: Float[np.ndarray, " swaps"]


def gaussian_totals(
    sides: Sequence[CheckedSides],
    bandwidths: Sequence[Sequence[float]],
    n_swaps: Sequence[int],
    seed: int = 0,
    device: str | torch.device | None = None,
) -> list[Swapped]:
    """MMD squared of a Gaussian kernel averaged over bandwidths, and under label swaps.

    O((n + m)^2 d / 2 + swaps S^2) time for each of the sides. The matrix over samples is used in
    parts, so memory is O(n + m) times d, and a byte for each swap and sample.

    Args:
        sides: One pair of sides. Or several: the first has all heads and the others are its heads,
            in the order of the columns.
        bandwidths: Values of sigma of each, in descending order, in units of the vectors. All have
            the same ratios.
        n_swaps: Number of label swaps of each.
        seed: Of the label swaps, which are the same for all heads.
        device: Where the kernel is evaluated; None: a GPU if there is one.

    Returns:
        The sums and the null of each.
    """
    target, first = target_of(device), sides[0]
    sums = [_Sums.of(first, count, n_swaps, seed, target) for count in sorted(set(n_swaps))]
    widest, narrowest = (tuple(grid[end] for grid in bandwidths) for end in (0, -1))
    ratio = min(low / high for low, high in zip(narrowest, widest, strict=True))
    for row, column, exponents in exponent_blocks(sides, widest, ratio, None, target):
        parts = {}
        for which, exponent in exponents:
            kernel = _sum_of_gaussians(exponent, bandwidths[which])
            parts[which] = sample_means(kernel, row, column) / len(bandwidths[which])
        for one in sums:
            one.add(torch.stack([parts[which] for which in one.which]), row, column)
    found = {which: swapped for one in sums for which, swapped in one.found(first)}
    return [found[which] for which in range(len(sides))]


@dataclass(frozen=True)
class _Sums:
    """Sums over matrices over samples, to which their parts are added as they are computed.

    Attributes:
        which: The places of the sides that have as many label swaps as these.
        swaps: Label swaps as vectors over samples, int8.
        on_x: 1 for the samples of x, else 0.
        to_x: As in ``PairTotals``.
        to_y: As in ``PairTotals``.
        quadratic: The quadratic form of each matrix in each swap.
    """

    which: Sequence[int]
    swaps: Int[torch.Tensor, "B units"]
    on_x: Float[torch.Tensor, " units"]
    to_x: Float[torch.Tensor, "heads units"]
    to_y: Float[torch.Tensor, "heads units"]
    quadratic: Float[torch.Tensor, "heads B"]

    @classmethod
    def of(
        cls,
        sides: CheckedSides,
        count: int,
        n_swaps: Sequence[int],
        seed: int,
        target: torch.device,
    ) -> _Sums:
        """Sums of nothing, for those of several sides that have ``count`` swaps."""
        which = [place for place, own in enumerate(n_swaps) if own == count]
        swaps = _swaps(sides, count, seed, target)
        units = swaps.shape[1]
        zeros = swaps.new_zeros(len(which), count + 2 * units, dtype=torch.float64)
        on_x = torch.arange(units, device=target) < sides.n_samples_x
        return cls(which, swaps, on_x.double(), *zeros.split([units, units, count], 1))

    def add(self, parts: Float[torch.Tensor, "heads r s"], row: Block, column: Block) -> None:
        """Add what two blocks of the symmetric matrices hold."""
        rows, columns = row.samples, column.samples
        for to, on in ((self.to_x, self.on_x), (self.to_y, 1.0 - self.on_x)):
            to[:, rows] += parts @ on[columns]
            if row is not column:
                to[:, columns] += on[rows] @ parts
        alpha = 1.0 if row is column else 2.0
        size = max(1, _PRODUCTS // parts.shape[2])
        for start in range(0, len(self.swaps), size):  # the products of all would take gigabytes
            some = self.swaps[start : start + size]
            right = some[:, columns].double()
            for head, part in enumerate(parts):
                forms = (some[:, rows].double() @ part).mul_(right)
                self.quadratic[head, start : start + size].add_(forms.sum(1), alpha=alpha)

    def found(self, sides: CheckedSides) -> Iterator[tuple[int, Swapped]]:
        """MMD and its null from the sums of all blocks, each with the place of its sides."""
        swaps, to_x, to_y, quadratic = (
            values.cpu().numpy() for values in (self.swaps, self.to_x, self.to_y, self.quadratic)
        )
        for head, which in enumerate(self.which):
            totals = PairTotals(
                to_x[head], to_y[head], np.zeros_like(to_x[head]), sides.n_samples_x, sides.paired
            )
            yield which, Swapped(totals, totals.under(swaps, quadratic[head]))


def _swaps(
    sides: CheckedSides, count: int, seed: int, target: torch.device
) -> Int[torch.Tensor, "B units"]:
    """Label swaps as vectors over samples, a byte each: 1, 0 and -1 are all there is."""
    rng = random_streams.generator(seed, *LABEL_SWAPS)
    units = sides.n_samples_x if sides.paired else sides.n_cells
    sizes = sides.n_samples_x, sides.n_samples_y, sides.paired
    found = [swaps.astype(np.int8) for swaps in drawn_swaps(*sizes, count, rng)]
    return torch.from_numpy(np.concatenate([np.empty((0, units), np.int8), *found])).to(target)


def exponent_blocks(
    sides: Sequence[CheckedSides],
    widest: Sequence[float],
    ratio: float,
    block: int | None,
    target: torch.device,
) -> Iterator[tuple[Block, Block, Iterator[tuple[int, Exponent]]]]:
    """Iterate over -|a - b|^2 / (2 sigma^2) in blocks.

    Args:
        sides: As in ``gaussian_totals``.
        widest: The largest sigma of each.
        ratio: The smallest sigma over it.
        block: Rows of a block; None: a size that suits the device.
        target: Where to compute.

    Yields:
        Two blocks of rows, and the exponents of each of the sides with its place. An exponent may
        be overwritten.
    """
    order = by_sample(sides[0])
    heads = sides[1:] or sides
    scales = [sigma * math.sqrt(2.0) for sigma in (widest[1:] or widest)]
    scaled = _scaled_heads(heads, scales, ratio, order, target)
    # in units of all heads together
    factors = [(scale / (widest[0] * math.sqrt(2.0))) ** 2 for scale in scales]
    for row, column in block_pairs(sides[0], block, target):
        yield row, column, _exponents(scaled, factors, row, column)


def _exponents(
    scaled: Sequence[Scaled], factors: Sequence[float], row: Block, column: Block
) -> Iterator[tuple[int, Exponent]]:
    """The exponents of each head, then those of all heads together, which are their sum."""
    total: Exponent | None = None
    for head, ((vectors, squares), factor) in enumerate(zip(scaled, factors, strict=True), start=1):
        a, b = vectors[row.rows], vectors[column.rows]
        left, right = -squares[row.rows], -squares[column.rows]
        extended = torch.cat([2 * a, left, torch.ones_like(left)], 1)
        exponent = extended @ torch.cat([b, torch.ones_like(right), right], 1).T
        if len(scaled) == 1:
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


def _scaled_heads(
    heads: Sequence[CheckedSides],
    scales: Sequence[float],
    ratio: float,
    order: Int[np.ndarray, " n+m"],
    target: torch.device,
) -> list[Scaled]:
    """The vectors of each head, centred, divided by its scale and ordered; and their squares.

    They are float64 where vectors are long beside the narrowest bandwidth. In float32 the kernel of
    two equal vectors would then not be 1.
    """
    longest = max(
        sum(float((part**2).sum()) for _, part in _scaled(sides, scale)) / len(order) / ratio**2
        for sides, scale in zip(heads, scales, strict=True)
    )
    dtype = np.float32 if longest < _LONG else np.float64
    found = []
    for sides, scale in zip(heads, scales, strict=True):
        scaled = np.empty((len(order), sides.x.shape[1]), dtype)
        for columns, part in _scaled(sides, scale):  # a second time, as float64 of all is large
            scaled[:, columns] = part[order]
        vectors = torch.from_numpy(scaled).to(target)
        found.append((vectors, (vectors * vectors).sum(1, keepdim=True)))
    return found


def _scaled(
    sides: CheckedSides, scale: float
) -> Iterator[tuple[slice, Float[np.ndarray, "n+m columns"]]]:
    """Both sides in units of ``scale``, a few columns at a time, centred to round less."""
    weights = sides.weights
    for start in range(0, sides.x.shape[1], _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        pooled = np.concatenate([sides.x[:, columns], sides.y[:, columns]])
        yield columns, (pooled - weights @ pooled) / scale
