"""Blocks of a kernel, and their means over (side, sample) cells.

A kernel over (n + m)^2 pairs of vectors is evaluated in blocks that fit in a processor's cache.
Rows are sorted by sample, and those of a sample by side. So a block has both sides of its samples
if they are paired, and its part of the matrix over samples can be used and forgotten.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from keygap.gap.core.inputs import CheckedSides

_BLOCK = {"cpu": 512, "cuda": 8192}  # rows; a block of 512 x 512 float32 takes 1 MB


@dataclass(frozen=True)
class Block:
    """Consecutive rows in the order of ``by_sample``.

    Attributes:
        rows: The rows.
        cells: The cells that they belong to, each once.
        cell_of_row: Place of each row's cell in ``cells``.
        share: 1 / number of vectors in each cell.
        samples: The samples that they belong to, which are consecutive. Samples of unpaired sides
            are counted over both sides, like cells.
        sample_of_cell: Place of each cell's sample in ``samples``.
        sign: Of each cell in the difference of the two sides of a sample: -1 on side y if the sides
            are paired, else 1.
    """

    rows: slice
    cells: Int[torch.Tensor, " cells"]
    cell_of_row: Int[torch.Tensor, " rows"]
    share: Float[torch.Tensor, " cells"]
    samples: slice
    sample_of_cell: Int[torch.Tensor, " cells"]
    sign: Float[torch.Tensor, " cells"]


def by_sample(sides: CheckedSides) -> Int[np.ndarray, " n+m"]:
    """Order of the pooled vectors in which those of a sample are together, x before y."""
    return np.lexsort((sides.cells, _sample_of(sides.cells, sides)))


def block_pairs(
    sides: CheckedSides, size: int | None, target: torch.device
) -> Iterator[tuple[Block, Block]]:
    """Iterate over every unordered pair of blocks; a cell in two blocks gets its mean in parts.

    Args:
        sides: Both sides, whose vectors are in the order ``by_sample``.
        size: Rows of a block; None: a size that suits the device.
        target: Device of the blocks.
    """
    size = size or _BLOCK.get(target.type, _BLOCK["cpu"])
    cells = sides.cells[by_sample(sides)]
    counts = np.bincount(cells)
    blocks = []
    for start in range(0, len(cells), size):
        rows = slice(start, min(start + size, len(cells)))
        present, cell_of_row = np.unique(cells[rows], return_inverse=True)
        sample = _sample_of(present, sides)
        first = int(sample.min())
        on_y = (present >= sides.n_samples_x) & sides.paired
        arrays = present, cell_of_row, 1.0 / counts[present], sample - first, 1.0 - 2.0 * on_y
        cell, of_row, share, of_cell, sign = (torch.from_numpy(each).to(target) for each in arrays)
        samples = slice(first, int(sample.max()) + 1)
        blocks.append(Block(rows, cell, of_row, share, samples, of_cell, sign))
    return itertools.combinations_with_replacement(blocks, 2)


def cell_means(
    kernel: Float[torch.Tensor, "rows columns"], rows: Block, columns: Block
) -> Float[torch.Tensor, "a b"]:
    """Mean kernel of each pair of cells, float64."""
    return _cell_sums(kernel, rows, columns) * rows.share[:, None] * columns.share


def sample_means(
    kernel: Float[torch.Tensor, "rows columns"], rows: Block, columns: Block
) -> Float[torch.Tensor, "r s"]:
    """Mean kernel of each pair of samples, float64; of paired sides that of their differences.

    The latter is <D_s, D_t>, with D_s the difference of the two mean embeddings of sample s. A
    sample with itself counts as 0.
    """
    sums = _cell_sums(kernel, rows, columns)
    signed = sums * (rows.share * rows.sign)[:, None] * (columns.share * columns.sign)
    by_row = signed.new_zeros(rows.samples.stop - rows.samples.start, signed.shape[1])
    by_row.index_add_(0, rows.sample_of_cell, signed)
    found = signed.new_zeros(columns.samples.stop - columns.samples.start, len(by_row))
    found = found.index_add_(0, columns.sample_of_cell, by_row.T).T
    # two different blocks have a sample in common where one ends and the other begins
    found.diagonal(rows.samples.start - columns.samples.start).zero_()
    return found


def _cell_sums(
    kernel: Float[torch.Tensor, "rows columns"], rows: Block, columns: Block
) -> Float[torch.Tensor, "a b"]:
    """Summed kernel of each pair of cells. A sum by index costs a tenth of a product."""
    by_row = kernel.new_zeros(len(rows.share), kernel.shape[1])
    by_row.index_add_(0, rows.cell_of_row, kernel)
    sums = kernel.new_zeros(len(columns.share), len(rows.share))
    sums.index_add_(0, columns.cell_of_row, by_row.T)
    return sums.T.double()


def add_to_cells(
    means: Float[torch.Tensor, "cells cells"],
    row: Block,
    column: Block,
    part: Float[torch.Tensor, "a b"],
) -> None:
    """Add the means of two blocks to the symmetric matrix over cells, in place."""
    means[row.cells[:, None], column.cells] += part
    if row is not column:
        means[column.cells[:, None], row.cells] += part.T


def target_of(device: str | torch.device | None) -> torch.device:
    """The device that was asked for; by default a GPU if there is one."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _sample_of(cells: Int[np.ndarray, " k"], sides: CheckedSides) -> Int[np.ndarray, " k"]:
    """The sample of each cell; that of unpaired sides is the cell itself."""
    return cells % sides.n_samples_x if sides.paired else cells
