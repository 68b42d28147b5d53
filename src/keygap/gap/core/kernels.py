"""Mean kernels between samples, computed in blocks.

Everything that a kernel two-sample test needs (statistic, label swaps, bootstraps) is a sum over
pairs of samples of the mean kernel between their vectors. So the (n + m)^2 kernel is evaluated
once, in blocks that fit in a processor's cache, and only the small matrix over (side, sample) cells
is kept.

A block of the Gaussian kernel costs one matrix product and one exponential. Rows are extended to
(2a, -|a|^2, 1) and columns to (b, 1, -|b|^2), whose product is -|a - b|^2; and where the squared
bandwidth halves, the next kernel is the square of the one before. Kernels are evaluated in float32
on centred vectors, and cell means are added in float64.
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
from keygap.errors import UserError
from keygap.gap.core.inputs import CheckedSides, in_turn
from keygap.gap.core.weights import mean_by_sample

_GRID = (2.0, math.sqrt(2.0), 1.0, math.sqrt(0.5), 0.5)  # times the median; squares halve
MEDIAN_ROWS = 1000  # rows of each side that the median distance is taken from
MAX_CELLS = 10_000  # the matrix over cells then takes 0.8 GB
_LONG = 8.0  # mean squared length over 2 sigma^2 from which float32 rounds an exponent by 1e-6
_BLOCK = {"cpu": 512, "cuda": 8192}  # rows; a block of 512 x 512 float32 takes 1 MB


def check_cells(sides: CheckedSides) -> None:
    """Check that the matrix over (side, sample) cells fits in memory.

    Args:
        sides: Both sides.

    Raises:
        UserError: There are more than 10,000 cells.
    """
    if sides.n_cells > MAX_CELLS:
        raise UserError(
            f"{sides.n_cells} samples on both sides together, at most {MAX_CELLS} are possible: "
            "give sample ids (groups_x, groups_y), or fewer vectors"
        )


def median_distance(sides: CheckedSides, seed: int) -> float:
    """Median Euclidean distance between two vectors of a balanced subsample. O(2000^2 d).

    The subsample has as many vectors of x as of y, at most 1,000 of each, and takes them from the
    samples in turn so that no sample dominates it.

    Args:
        sides: Both sides.
        seed: Seed of the subsample.

    Returns:
        The median, in units of the vectors.

    Raises:
        UserError: The median is zero.
    """
    rng = random_streams.generator(seed, "median distance")
    take = min(MEDIAN_ROWS, len(sides.x), len(sides.y))
    chosen = [
        values[in_turn(sample, rng)[:take]]
        for values, sample in ((sides.x, sides.sample_x), (sides.y, sides.sample_y))
    ]
    points = torch.from_numpy(np.concatenate(chosen)).double()
    median = float(torch.nn.functional.pdist(points).median())
    if median == 0.0:
        raise UserError(
            "the median distance between vectors is 0 (most vectors are equal): "
            "drop repeated vectors, or give a bandwidth"
        )
    return median


def grid_around(median: float) -> tuple[float, ...]:
    """Bandwidths around a median distance: times 2, sqrt 2, 1, 1 / sqrt 2 and 1/2.

    Args:
        median: Median distance between vectors.

    Returns:
        The bandwidths in descending order, in the same units.
    """
    return tuple(median * factor for factor in _GRID)


def gaussian_means(
    sides: CheckedSides,
    bandwidths: Sequence[float],
    device: str | torch.device | None = None,
    block: int | None = None,
    *,
    biased: bool = False,
) -> tuple[Float[np.ndarray, "cells cells"], Float[np.ndarray, " bandwidths"]]:
    """Mean Gaussian kernel between every two cells, and the MMD^2 of each bandwidth.

    The kernel is k(a, b) = exp(-|a - b|^2 / (2 sigma^2)). Its mean within a cell includes every
    vector with itself, which is exactly 1. O((n + m)^2 d / 2) time and O(cells^2 + block^2) memory.

    Args:
        sides: Both sides.
        bandwidths: Values of sigma in descending order, in units of the vectors.
        device: Where the kernel is evaluated; None: a GPU if there is one.
        block: Rows of a block; None: a size that suits the device.
        biased: Keep pairs of one sample in the MMD^2 of each bandwidth; the matrix has them anyway.

    Returns:
        The matrix over cells, averaged over the bandwidths, and one MMD^2 per bandwidth.
    """
    target = _target(device)
    order = np.argsort(sides.cells, kind="stable")
    left, right = _extended(sides, order, bandwidths, target)
    scales = [(bandwidths[0] / bandwidth) ** 2 for bandwidth in bandwidths]
    weights = _StatisticWeights.of(sides, target, biased)
    means = torch.zeros(sides.n_cells, sides.n_cells, dtype=torch.float64, device=target)
    mmd2 = torch.zeros(len(bandwidths), dtype=torch.float64, device=target)
    for row, column in _block_pairs(sides.cells[order], block, target):
        exponent = (left[row.rows] @ right[column.rows].T).float().clamp_(max=0.0)
        if row is column:
            exponent.fill_diagonal_(0.0)  # a vector and itself, without the rounding of the product
        weight = weights.between(row, column)
        total = torch.zeros_like(weight)
        for b, kernel in enumerate(_gaussians(exponent, scales)):
            mean = _cell_means(kernel, row, column)
            mmd2[b] += (1 if row is column else 2) * (weight * mean).sum()
            total += mean
        _add(means, row, column, total)
    return (means / len(scales)).cpu().numpy(), mmd2.cpu().numpy()


def linear_means(sides: CheckedSides) -> Float[np.ndarray, "cells cells"]:
    """Mean linear kernel <a, b> between every two cells: inner products of the cell means.

    Args:
        sides: Both sides.

    Returns:
        The matrix over cells, in squared units of the vectors.
    """
    means = mean_by_sample(sides.pooled, sides.cells, sides.n_cells)
    means -= means.mean(0)  # leaves MMD^2 as it is and keeps the products small
    return means @ means.T


def energy_means(
    sides: CheckedSides, device: str | torch.device | None = None, block: int | None = None
) -> Float[np.ndarray, "cells cells"]:
    """Mean of -|a - b| between every two cells. MMD^2 of this kernel is the energy distance.

    It is computed in float64, because rounding a squared distance of nearly equal vectors changes
    its root considerably.

    Args:
        sides: Both sides.
        device: Where the kernel is evaluated; None: a GPU if there is one.
        block: Rows of a block; None: a size that suits the device.

    Returns:
        The matrix over cells, in units of the vectors. A vector and itself count as 0 exactly.
    """
    target = _target(device)
    order = np.argsort(sides.cells, kind="stable")
    points = torch.from_numpy(sides.pooled[order].astype(np.float64)).to(target)
    means = torch.zeros(sides.n_cells, sides.n_cells, dtype=torch.float64, device=target)
    for row, column in _block_pairs(sides.cells[order], block, target):
        kernel = -torch.cdist(points[row.rows], points[column.rows])
        if row is column:
            kernel.fill_diagonal_(0.0)  # as above
        _add(means, row, column, _cell_means(kernel, row, column))
    return means.cpu().numpy()


@dataclass(frozen=True)
class _Block:
    """Consecutive rows, sorted by cell."""

    rows: slice
    cells: slice  # the cells that the rows belong to
    cell_of_row: Int[torch.Tensor, " rows"]  # counted from the first of them
    share: Float[torch.Tensor, " cells"]  # 1 / number of vectors in the cell


@dataclass(frozen=True)
class _StatisticWeights:
    """Coefficient of the mean kernel of two cells in MMD^2; unbiased: 0 within one sample."""

    by_side: Float[torch.Tensor, "2 2"]
    side: Int[torch.Tensor, " cells"]
    sample: Int[torch.Tensor, " cells"]
    biased: bool

    @classmethod
    def of(cls, sides: CheckedSides, target: torch.device, biased: bool) -> _StatisticWeights:
        s, t = sides.n_samples_x, sides.n_samples_y
        pairs_x, pairs_y = (s * s, t * t) if biased else (s * (s - 1), t * (t - 1))
        cross = -1.0 / (pairs_x if sides.paired else s * t)
        by_side = np.array([[1.0 / pairs_x, cross], [cross, 1.0 / pairs_y]])
        cells = torch.arange(sides.n_cells, device=target)
        return cls(
            by_side=torch.from_numpy(by_side).to(target),
            side=(cells >= s).long(),
            sample=cells % s if sides.paired else cells,
            biased=biased,
        )

    def between(self, row: _Block, column: _Block) -> Float[torch.Tensor, "a b"]:
        weights = self.by_side[self.side[row.cells]][:, self.side[column.cells]]
        if self.biased:
            return weights
        return weights * (self.sample[row.cells, None] != self.sample[column.cells])


def _gaussians(
    exponent: Float[torch.Tensor, "rows columns"], scales: Sequence[float]
) -> Iterator[Float[torch.Tensor, "rows columns"]]:
    """exp(scale * exponent) for each scale in turn, the first scale being 1.

    A kernel is overwritten by the next one, and so is ``exponent`` if squares are all it takes.
    """
    doubles = [math.isclose(now, 2 * before) for before, now in itertools.pairwise(scales)]
    kernel = exponent.exp_() if all(doubles) else exponent.exp()
    yield kernel
    for scale, is_square in zip(scales[1:], doubles, strict=True):
        kernel = kernel.mul_(kernel) if is_square else torch.exp(exponent * scale)
        yield kernel


def _extended(
    sides: CheckedSides,
    order: Int[np.ndarray, " n+m"],
    bandwidths: Sequence[float],
    target: torch.device,
) -> tuple[Float[torch.Tensor, "n+m d+2"], Float[torch.Tensor, "n+m d+2"]]:
    """(2a, -|a|^2, 1) and (b, 1, -|b|^2): their product is -|a - b|^2 / (2 sigma^2).

    They are float64 where vectors are long beside the narrowest bandwidth. In float32 the kernel of
    two equal vectors would then not be 1.
    """
    mean = sides.weights @ sides.pooled  # centred vectors have small norms, which round less
    pooled = (sides.pooled - mean) / (math.sqrt(2.0) * bandwidths[0])
    length = float((pooled**2).sum(1).mean()) * (bandwidths[0] / bandwidths[-1]) ** 2
    dtype = np.float32 if length < _LONG else np.float64
    points = torch.from_numpy(pooled[order].astype(dtype)).to(target)
    squares = (points * points).sum(1, keepdim=True)
    ones = torch.ones_like(squares)
    return torch.cat([2 * points, -squares, ones], 1), torch.cat([points, ones, -squares], 1)


def _block_pairs(
    cells: Int[np.ndarray, " n+m"], size: int | None, target: torch.device
) -> Iterator[tuple[_Block, _Block]]:
    """Every unordered pair of blocks of rows; a cell in two blocks gets its mean in two parts."""
    size = size or _BLOCK.get(target.type, _BLOCK["cpu"])
    counts = np.bincount(cells)
    blocks = []
    for start in range(0, len(cells), size):
        part = cells[start : start + size]
        touched = slice(int(part[0]), int(part[-1]) + 1)
        blocks.append(
            _Block(
                rows=slice(start, start + len(part)),
                cells=touched,
                cell_of_row=torch.from_numpy(part - part[0]).to(target),
                share=torch.from_numpy(1.0 / counts[touched]).to(target),
            )
        )
    return itertools.combinations_with_replacement(blocks, 2)


def _cell_means(
    kernel: Float[torch.Tensor, "rows columns"], rows: _Block, columns: _Block
) -> Float[torch.Tensor, "a b"]:
    """Mean kernel of each pair of cells, float64. A sum by index costs a tenth of a product."""
    by_row = kernel.new_zeros(len(rows.share), kernel.shape[1])
    by_row.index_add_(0, rows.cell_of_row, kernel)
    sums = kernel.new_zeros(len(columns.share), len(rows.share))
    sums.index_add_(0, columns.cell_of_row, by_row.T)
    return sums.T.double() * rows.share[:, None] * columns.share


def _add(
    means: Float[torch.Tensor, "cells cells"],
    row: _Block,
    column: _Block,
    part: Float[torch.Tensor, "a b"],
) -> None:
    """Add the means of two blocks to the symmetric matrix over cells, in place."""
    means[row.cells, column.cells] += part
    if row is not column:
        means[column.cells, row.cells] += part.T


def _target(device: str | torch.device | None) -> torch.device:
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
