"""Cells of tokens, and sums over pairs of cells that are weighted by sample or by token.

A cell is (modality, random half of tokens, sample). A matrix over all pairs of cells does not fit
in memory where samples are many. So tokens are sorted by cell and cut into parts, and what a kernel
gives between two parts is weighted and added up at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from keygap.choices.levels import SAMPLE, TOKEN
from keygap.choices.selection import Selection

HALVES = 4  # of the image tokens, 0 and 1, and of the text tokens, 2 and 3


@dataclass(frozen=True)
class Sums:
    """Sums over the pairs of tokens of every two halves, by one unit.

    By sample, halves are halves of the samples, and the tokens of a sample weigh 1 together. By
    token, halves are random halves of the tokens, and every token weighs 1.

    Attributes:
        kernel: sum of each kernel, observed and without each group of samples.
        sizes: weight of all tokens of a half.
        kernel_out: the part of ``kernel`` that an unbiased estimate leaves out.
        pairs_out: weight of all pairs that it leaves out.
    """

    kernel: Float[np.ndarray, "K 4 4 B"]
    sizes: Float[np.ndarray, "4 B"]
    kernel_out: Float[np.ndarray, "K 4 4 B"]
    pairs_out: Float[np.ndarray, "4 4 B"]

    def mean(self, x: list[int], y: list[int], unbiased: bool) -> Float[np.ndarray, "K B"]:
        """Mean kernel between some halves and others.

        By sample, the unbiased mean leaves out all pairs of one sample. By token, it leaves out
        only a token with itself.
        """
        total = self.kernel[:, x][:, :, y].sum((1, 2))
        pairs = self.sizes[x].sum(0) * self.sizes[y].sum(0)
        if unbiased:
            total = total - self.kernel_out[:, x][:, :, y].sum((1, 2))
            pairs = pairs - self.pairs_out[x][:, y].sum((0, 1))
        return total / pairs


@dataclass(frozen=True)
class Cells:
    """The cells that have tokens.

    Attributes:
        order: the tokens sorted by cell, image tokens first.
        of_token: cell of each token in this order.
        modality: of each cell, 0 for image and 1 for text.
        sample: of each cell.
        counts: number of tokens of each cell.
        halves: half of each cell, by unit.
        draws: multiplicities of the samples, 0 or 1; row 0 counts each sample once.
    """

    order: Int[np.ndarray, " n"]
    of_token: Int[np.ndarray, " n"]
    modality: Int[np.ndarray, " C"]
    sample: Int[np.ndarray, " C"]
    counts: Float[np.ndarray, " C"]
    halves: Mapping[str, Int[np.ndarray, " C"]]
    draws: Float[np.ndarray, "B S"]

    @classmethod
    def of(cls, selection: Selection, draws: Float[np.ndarray, "B S"]) -> Cells:
        """The cells of the tokens of a choice."""
        n_samples = selection.n_samples
        group = np.concatenate([selection.token_half_image, 2 + selection.token_half_text])
        found, cell, counts = np.unique(
            group * n_samples + selection.samples, return_inverse=True, return_counts=True
        )
        order = np.argsort(cell, kind="stable")
        of_cell, sample = np.divmod(found, n_samples)
        modality = of_cell // 2
        by_sample = 2 * modality + selection.halves[sample]
        halves = {SAMPLE: by_sample, TOKEN: of_cell}
        return cls(order, cell[order], modality, sample, counts.astype(np.float64), halves, draws)

    @property
    def tokens_of_sample(self) -> Float[np.ndarray, "2 S"]:
        """Number of tokens of each modality in each sample."""
        found = np.zeros((2, self.draws.shape[1]))
        np.add.at(found, (self.modality, self.sample), self.counts)
        return found

    def weights(self, unit: str) -> Float[np.ndarray, "B C"]:
        """What a token of each cell weighs, observed and without each group of samples."""
        drawn = self.draws[:, self.sample]
        if unit == TOKEN:
            return drawn
        return drawn / self.tokens_of_sample[self.modality, self.sample]

    def parts(self, size: int, device: torch.device) -> list[Part]:
        """The tokens cut into parts of a size."""
        weights = {unit: self.weights(unit) for unit in self.halves}
        return [
            self._part(slice(start, start + size), weights, device)
            for start in range(0, len(self.order), size)
        ]

    def _part(
        self, rows: slice, weights: Mapping[str, Float[np.ndarray, "B C"]], device: torch.device
    ) -> Part:
        of_token = self.of_token[rows]
        first = int(of_token[0])
        own = slice(first, int(of_token[-1]) + 1)
        halves = {}
        for unit, of_unit in weights.items():
            numbers, half = np.unique(self.halves[unit][own], return_inverse=True)
            within = half == np.arange(len(numbers))[:, None]
            halves[unit] = _Halves(
                torch.from_numpy(numbers).to(device),
                torch.from_numpy(of_unit[:, own] * within[:, None]).to(device),
            )
        cell, modality, sample = (
            torch.from_numpy(index).to(device)
            for index in (of_token - first, self.modality[own], self.sample[own])
        )
        return Part(rows, cell, modality, sample, halves)


@dataclass(frozen=True)
class _Halves:
    """The halves that a part has cells of.

    Attributes:
        numbers: of the halves.
        weights: of a token of each cell of the part; 0 in the other halves.
    """

    numbers: Int[Tensor, " h"]
    weights: Float[Tensor, "h B c"]


@dataclass(frozen=True)
class Part:
    """Some tokens in the order of their cells.

    Attributes:
        rows: which tokens.
        cell: of each token, counted from the first cell of the part.
        modality: of each cell.
        sample: of each cell.
        halves: those that the part has cells of, by unit.
    """

    rows: slice
    cell: Int[Tensor, " tokens"]
    modality: Int[Tensor, " cells"]
    sample: Int[Tensor, " cells"]
    halves: Mapping[str, _Halves]


class Totals:
    """Weighted sums of several kernels, to which the pairs of two parts are added in turn.

    Args:
        n_kernels: how many kernels.
        cells: the cells.
        device: where sums are computed.
    """

    def __init__(self, n_kernels: int, cells: Cells, device: torch.device) -> None:
        self._cells = cells
        n_draws, self._n_samples = cells.draws.shape
        zeros = torch.zeros(n_kernels, HALVES, HALVES, n_draws, dtype=torch.float64)
        self._between = {unit: zeros.to(device, copy=True) for unit in cells.halves}
        of_sample = torch.zeros(n_kernels, 4 * self._n_samples, dtype=torch.float64)
        self._of_sample = of_sample.to(device)  # between the modalities of each sample

    def add(self, blocks: Iterable[Float[Tensor, "rows columns"]], a: Part, b: Part) -> None:
        """Add the pairs of the tokens of two parts, once if they are one part.

        Args:
            blocks: every kernel between them, in turn.
            a: the part of the rows.
            b: the part of the columns.
        """
        first, second = torch.nonzero(a.sample[:, None] == b.sample, as_tuple=True)
        modalities = a.modality[first], b.modality[second]
        for kernel, block in enumerate(blocks):
            sums = _by_cell(block, a.cell, b.cell)
            for x, y in ((0, 1),) if a is b else ((0, 1), (1, 0)):
                place = (2 * modalities[x] + modalities[y]) * self._n_samples + a.sample[first]
                self._of_sample[kernel].index_add_(0, place, sums[first, second])
            for unit, total in self._between.items():
                one, other = a.halves[unit], b.halves[unit]
                found = ((one.weights @ sums)[:, None] * other.weights).sum(-1)
                total[kernel, one.numbers[:, None], other.numbers] += found
                if a is not b:
                    total[kernel, other.numbers[:, None], one.numbers] += found.transpose(0, 1)

    def by_sample(self) -> Sums:
        """The sums in which samples weigh the same."""
        cells, n_draws = self._cells, len(self._cells.draws)
        tokens = cells.tokens_of_sample
        present = (tokens > 0).astype(np.float64)
        scale = np.divide(1.0, tokens, out=np.zeros_like(tokens), where=tokens > 0)
        of_sample = self._of_sample.cpu().numpy().reshape(-1, 2, 2, self._n_samples)
        half_of_sample = np.zeros(self._n_samples, dtype=np.int64)
        half_of_sample[cells.sample] = cells.halves[SAMPLE] % 2
        kernel = self._between[SAMPLE].cpu().numpy()
        sizes, pairs_out = np.zeros((HALVES, n_draws)), np.zeros((HALVES, HALVES, n_draws))
        kernel_out = np.zeros_like(kernel)
        for half, x, y in itertools.product(range(2), range(2), range(2)):
            draws = cells.draws * (half_of_sample == half)
            place = 2 * x + half, 2 * y + half
            kernel_out[:, *place] = (of_sample[:, x, y] * scale[x] * scale[y]) @ draws.T
            pairs_out[place] = draws @ (present[x] * present[y])
            sizes[place[0]] = draws @ present[x]
        return Sums(kernel, sizes, kernel_out, pairs_out)

    def by_token(self, own: Float[np.ndarray, "K C"]) -> Sums:
        """The sums in which tokens weigh the same.

        Args:
            own: sum over the tokens of each cell of each kernel of a token with itself.
        """
        cells = self._cells
        kernel = self._between[TOKEN].cpu().numpy()
        sizes = np.zeros((HALVES, len(cells.draws)))
        kernel_out, pairs_out = np.zeros_like(kernel), np.zeros(kernel.shape[1:])
        for half in range(HALVES):
            members = cells.halves[TOKEN] == half
            draws = cells.draws[:, cells.sample[members]]
            sizes[half] = pairs_out[half, half] = draws @ cells.counts[members]
            kernel_out[:, half, half] = own[:, members] @ draws.T
        return Sums(kernel, sizes, kernel_out, pairs_out)


def _by_cell(
    block: Float[Tensor, "rows columns"],
    rows: Int[Tensor, " rows"],
    columns: Int[Tensor, " columns"],
) -> Float[Tensor, "a b"]:
    """Sums of a block over the tokens of each cell, which are sorted by cell."""
    by_row = block.new_zeros(int(rows[-1]) + 1, block.shape[1])
    by_row.index_add_(0, rows, block)
    by_cell = block.new_zeros(int(columns[-1]) + 1, len(by_row))
    by_cell.index_add_(0, columns, by_row.T)
    return by_cell.T.double()
