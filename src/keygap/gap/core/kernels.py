"""Kernel means between samples, streamed.

Everything that a kernel two-sample test needs (statistic, label swaps, bootstraps) is a sum over
pairs of samples of the mean kernel between their vectors. So the (n + m)^2 kernel is visited once,
in blocks that fit in a processor's cache, and only the small matrix over (side, sample) cells is
kept. A block costs one matrix product and one exponential: the row is extended to (2a, -|a|^2, 1)
and the column to (b, 1, -|b|^2), whose product is -|a - b|^2, and where the squared bandwidth
halves, the next kernel is the square of the last.

Kernels are evaluated in float32 on centred vectors, cell means are added up in float64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from keygap.errors import UserError
from keygap.gap.core.inputs import TwoSides, in_turn
from keygap.gap.core.resampling import mean_by_sample

GRID = (2.0, math.sqrt(2.0), 1.0, math.sqrt(0.5), 0.5)  # times the median; squares halve
MEDIAN_ROWS = 1000  # rows of each side that the median distance is taken from
MAX_CELLS = 10_000  # the cell matrix is then 0.8 GB
_BLOCK = {"cpu": 512, "cuda": 8192}  # rows; a block of 512 x 512 float32 is 1 MB


@dataclass(frozen=True)
class _Block:
    rows: slice
    cells: slice  # the cells that the rows belong to
    cell_of_row: Int[torch.Tensor, " rows"]  # counted from the first of them
    share: Float[torch.Tensor, " cells"]  # 1 / vectors in the cell


def check_cells(sides: TwoSides) -> None:
    """UserError where the matrix over cells would not fit in memory."""
    if sides.n_cells > MAX_CELLS:
        raise UserError(
            f"{sides.n_cells} samples on both sides together, at most {MAX_CELLS} are possible: "
            "give sample ids (groups_x, groups_y), or fewer vectors"
        )


def median_distance(sides: TwoSides, seed: int) -> float:
    """Median distance between two vectors of a balanced subsample of both sides.

    As many vectors of x as of y, at most 1,000 of each, taken from the samples in turn so that no
    sample fills the subsample. O(2000^2 d).

    Raises UserError when the median is zero.
    """
    rng = np.random.default_rng(seed)
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


def statistic_coefficients(sides: TwoSides) -> Float[np.ndarray, "2 2"]:
    """Coefficient of a pair of cells in the unbiased MMD^2, by their sides (same sample: 0)."""
    s, t = sides.n_samples_x, sides.n_samples_y
    cross = -1.0 / (s * (s - 1)) if sides.paired else -1.0 / (s * t)
    return np.array([[1.0 / (s * (s - 1)), cross], [cross, 1.0 / (t * (t - 1))]])


def gaussian_means(
    sides: TwoSides,
    bandwidths: Sequence[float],
    device: str | torch.device | None = None,
    block: int | None = None,
) -> tuple[Float[np.ndarray, "cells cells"], Float[np.ndarray, " bandwidths"]]:
    """Mean Gaussian kernel between every two cells, and the unbiased MMD^2 at each bandwidth.

    k(a, b) = exp(-|a - b|^2 / (2 sigma^2)), averaged over the bandwidths in the matrix.
    Bandwidths in descending order. O((n + m)^2 d / 2) time, O(cells^2 + block^2) memory.
    """
    target = _target(device)
    order = np.argsort(sides.cells, kind="stable")
    cells = sides.cells[order]
    left, right = _extended(sides, order, bandwidths[0], target)

    side_of = (torch.arange(sides.n_cells, device=target) >= sides.n_samples_x).long()
    sample_of = torch.arange(sides.n_cells, device=target)
    if sides.paired:
        sample_of = sample_of % sides.n_samples_x
    coefficients = torch.from_numpy(statistic_coefficients(sides)).to(target)
    means = torch.zeros(sides.n_cells, sides.n_cells, dtype=torch.float64, device=target)
    statistic = torch.zeros(len(bandwidths), dtype=torch.float64, device=target)

    scales = [(bandwidths[0] / bandwidth) ** 2 for bandwidth in bandwidths]
    is_square = [False] + [
        math.isclose(now, 2 * before) for before, now in itertools.pairwise(scales)
    ]
    only_squares = all(is_square[1:])
    blocks = _blocks(cells, block or _BLOCK.get(target.type, _BLOCK["cpu"]), target)
    for i, row in enumerate(blocks):
        for column in blocks[i:]:
            exponent = (left[row.rows] @ right[column.rows].T).clamp_(max=0.0)
            kernel = exponent.exp_() if only_squares else exponent.exp()
            weight = coefficients[side_of[row.cells]][:, side_of[column.cells]] * (
                sample_of[row.cells, None] != sample_of[column.cells]
            )
            total = torch.zeros_like(weight)
            for b, scale in enumerate(scales):
                if b > 0:
                    kernel = kernel.mul_(kernel) if is_square[b] else torch.exp(exponent * scale)
                mean = _cell_means(kernel, row, column)
                statistic[b] += (1 if row is column else 2) * (weight * mean).sum()
                total += mean
            means[row.cells, column.cells] += total
            if row is not column:
                means[column.cells, row.cells] += total.T
    return (means / len(scales)).cpu().numpy(), statistic.cpu().numpy()


def _extended(
    sides: TwoSides, order: Int[np.ndarray, " n+m"], bandwidth: float, target: torch.device
) -> tuple[Float[torch.Tensor, "n+m d+2"], Float[torch.Tensor, "n+m d+2"]]:
    """(2a, -|a|^2, 1) and (b, 1, -|b|^2): their product is -|a - b|^2 / (2 sigma^2)."""
    mean = sides.weights @ sides.pooled  # about the centre, norms are small and round less
    pooled = (sides.pooled - mean) / (math.sqrt(2.0) * bandwidth)
    points = torch.from_numpy(pooled[order].astype(np.float32)).to(target)
    squares = (points * points).sum(1, keepdim=True)
    ones = torch.ones_like(squares)
    return torch.cat([2 * points, -squares, ones], 1), torch.cat([points, ones, -squares], 1)


def _blocks(cells: Int[np.ndarray, " n+m"], size: int, target: torch.device) -> list[_Block]:
    """Blocks of rows sorted by cell; a cell that two blocks share gets its mean in two parts."""
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
    return blocks


def _cell_means(
    kernel: Float[torch.Tensor, "rows columns"], rows: _Block, columns: _Block
) -> Float[torch.Tensor, "a b"]:
    """Mean kernel of each pair of cells (float64). A sum by index costs a tenth of a product."""
    by_row = kernel.new_zeros(len(rows.share), kernel.shape[1])
    by_row.index_add_(0, rows.cell_of_row, kernel)
    sums = kernel.new_zeros(len(columns.share), len(rows.share))
    sums.index_add_(0, columns.cell_of_row, by_row.T)
    return sums.T.double() * rows.share[:, None] * columns.share


def _target(device: str | torch.device | None) -> torch.device:
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def linear_means(sides: TwoSides) -> Float[np.ndarray, "cells cells"]:
    """Mean of the linear kernel <a, b> between every two cells: inner products of cell means."""
    means = mean_by_sample(sides.pooled, sides.cells, sides.n_cells)
    means -= means.mean(0)  # changes no MMD and keeps the products small
    return means @ means.T


def energy_means(
    sides: TwoSides, device: str | torch.device | None = None, block: int | None = None
) -> Float[np.ndarray, "cells cells"]:
    """Mean of -|a - b| between every two cells: its MMD^2 is the energy distance.

    In float64, because the root of a rounded square is no small error where vectors repeat.
    """
    target = _target(device)
    order = np.argsort(sides.cells, kind="stable")
    points = torch.from_numpy(sides.pooled[order].astype(np.float64)).to(target)
    means = torch.zeros(sides.n_cells, sides.n_cells, dtype=torch.float64, device=target)
    blocks = _blocks(sides.cells[order], block or _BLOCK.get(target.type, 512), target)
    for i, row in enumerate(blocks):
        for column in blocks[i:]:
            mean = _cell_means(-torch.cdist(points[row.rows], points[column.rows]), row, column)
            means[row.cells, column.cells] += mean
            if row is not column:
                means[column.cells, row.cells] += mean.T
    return means.cpu().numpy()
