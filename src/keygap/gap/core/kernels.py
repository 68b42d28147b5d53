"""Mean kernels between samples, computed in blocks.

Everything that a kernel two-sample test needs (statistic, label swaps, bootstraps) is a sum over
pairs of samples of the mean kernel between their vectors. So the (n + m)^2 kernel is evaluated
once, in blocks that fit in a processor's cache, and only the small matrix over (side, sample) cells
is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from keygap.errors import UserError
from keygap.gap.core.cells import Block, add_to_cells, block_pairs, by_sample, cell_means, target_of
from keygap.gap.core.gaussian import exponent_blocks, gaussians
from keygap.gap.core.inputs import CheckedSides
from keygap.gap.core.weights import mean_by_sample

_GRID = (2.0, math.sqrt(2.0), 1.0, math.sqrt(0.5), 0.5)  # times the median; squares halve
MAX_CELLS = 10_000  # the matrix over cells then takes 0.8 GB


def check_cells(sides: CheckedSides) -> None:
    """Check that the matrix over (side, sample) cells fits in memory.

    Args:
        sides: Both sides.

    Raises:
        UserError: There are more than 10,000 cells.
    """
    if sides.n_cells > MAX_CELLS:
        raise UserError(
            f"x and y have {sides.n_cells} samples together, and the limit is {MAX_CELLS}: "
            "pass sample ids (groups_x, groups_y), or fewer vectors"
        )


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
    target = target_of(device)
    weights = _StatisticWeights.of(sides, target, biased)
    means = torch.zeros(sides.n_cells, sides.n_cells, dtype=torch.float64, device=target)
    mmd2 = torch.zeros(len(bandwidths), dtype=torch.float64, device=target)
    ratio = bandwidths[-1] / bandwidths[0]
    for row, column, exponents in exponent_blocks([sides], bandwidths[:1], ratio, block, target):
        ((_, exponent),) = exponents
        weight = weights.between(row, column)
        total = torch.zeros_like(weight)
        for b, kernel in enumerate(gaussians(exponent, bandwidths)):
            mean = cell_means(kernel, row, column)
            mmd2[b] += (1 if row is column else 2) * (weight * mean).sum()
            total += mean
        add_to_cells(means, row, column, total)
    return (means / len(bandwidths)).cpu().numpy(), mmd2.cpu().numpy()


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
    target = target_of(device)
    points = torch.from_numpy(sides.pooled[by_sample(sides)].astype(np.float64)).to(target)
    means = torch.zeros(sides.n_cells, sides.n_cells, dtype=torch.float64, device=target)
    for row, column in block_pairs(sides, block, target):
        kernel = -torch.cdist(points[row.rows], points[column.rows])
        if row is column:
            kernel.fill_diagonal_(0.0)  # as above
        add_to_cells(means, row, column, cell_means(kernel, row, column))
    return means.cpu().numpy()


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

    def between(self, row: Block, column: Block) -> Float[torch.Tensor, "a b"]:
        weights = self.by_side[self.side[row.cells]][:, self.side[column.cells]]
        if self.biased:
            return weights
        return weights * (self.sample[row.cells, None] != self.sample[column.cells])
