"""Blocks of a kernel, and their means over (side, sample) cells.

A kernel over (n + m)^2 pairs of vectors is evaluated in blocks that fit in a processor's cache.
Rows are sorted by cell, and a block lies within one side, so that its cells are consecutive.
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
    """Consecutive rows of one side, sorted by cell.

    Attributes:
        rows: The rows.
        cells: The cells that they belong to.
        on_x: Whether they are on side x.
        cell_of_row: Cell of each row, counted from the first of them.
        share: 1 / number of vectors in each cell.
    """

    rows: slice
    cells: slice
    on_x: bool
    cell_of_row: Int[torch.Tensor, " rows"]
    share: Float[torch.Tensor, " cells"]


def by_cell(sides: CheckedSides) -> Int[np.ndarray, " n+m"]:
    """Order of the pooled vectors in which those of a cell are together."""
    return np.argsort(sides.cells, kind="stable")


def block_pairs(
    sides: CheckedSides, size: int | None, target: torch.device
) -> Iterator[tuple[Block, Block]]:
    """Iterate over every unordered pair of blocks; a cell in two blocks gets its mean in parts.

    Args:
        sides: Both sides, whose vectors are in the order ``by_cell``.
        size: Rows of a block; None: a size that suits the device.
        target: Device of the blocks.
    """
    size = size or _BLOCK.get(target.type, _BLOCK["cpu"])
    cells, n = np.sort(sides.cells), len(sides.x)
    counts = np.bincount(cells)
    starts = (*range(0, n, size), *range(n, len(cells), size))
    blocks = []
    for start in starts:
        part = cells[start : min(start + size, n if start < n else len(cells))]
        touched = slice(int(part[0]), int(part[-1]) + 1)
        blocks.append(
            Block(
                rows=slice(start, start + len(part)),
                cells=touched,
                on_x=start < n,
                cell_of_row=torch.from_numpy(part - part[0]).to(target),
                share=torch.from_numpy(1.0 / counts[touched]).to(target),
            )
        )
    return itertools.combinations_with_replacement(blocks, 2)


def cell_means(
    kernel: Float[torch.Tensor, "rows columns"], rows: Block, columns: Block
) -> Float[torch.Tensor, "a b"]:
    """Mean kernel of each pair of cells, float64. A sum by index costs a tenth of a product."""
    by_row = kernel.new_zeros(len(rows.share), kernel.shape[1])
    by_row.index_add_(0, rows.cell_of_row, kernel)
    sums = kernel.new_zeros(len(columns.share), len(rows.share))
    sums.index_add_(0, columns.cell_of_row, by_row.T)
    return sums.T.double() * rows.share[:, None] * columns.share


def add_to_cells(
    means: Float[torch.Tensor, "cells cells"],
    row: Block,
    column: Block,
    part: Float[torch.Tensor, "a b"],
) -> None:
    """Add the means of two blocks to the symmetric matrix over cells, in place."""
    means[row.cells, column.cells] += part
    if row is not column:
        means[column.cells, row.cells] += part.T


def add_to_samples(
    difference: Float[torch.Tensor, "s s"],
    row: Block,
    column: Block,
    part: Float[torch.Tensor, "a b"],
) -> None:
    """Add the means of two blocks of paired sides to the matrix over samples, in place.

    The matrix is <D_s, D_t>, with D_s the difference of the two mean embeddings of sample s.
    """
    s = len(difference)
    rows, columns = (
        block.cells if block.on_x else slice(block.cells.start - s, block.cells.stop - s)
        for block in (row, column)
    )
    sign = 1.0 if row.on_x == column.on_x else -1.0
    difference[rows, columns].add_(part, alpha=sign)
    if row is not column:
        difference[columns, rows].add_(part.T, alpha=sign)


def target_of(device: str | torch.device | None) -> torch.device:
    """The device that was asked for; by default a GPU if there is one."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
