"""All kernels of all MMDs of one set of coordinates, in a single pass over pairs of tokens.

MMD between image and text, between two halves of either, by sample or by token, biased or unbiased,
squared or not, with or without some samples, are functions of the same sums: of a kernel over the
pairs of tokens of two cells, where a cell is (modality, random half of tokens, sample). So the
pairwise distances are computed once for a set of coordinates, each kernel is evaluated once on
them, and reading a choice off costs nothing that grows with the number of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from keygap.choices.levels import BIASED, SAMPLE, UNBIASED
from keygap.choices.selection import CONTRASTS, Selection
from keygap.gap.core.inputs import two_sides
from keygap.gap.core.kernels import grid_around
from keygap.gap.core.median import median_distance

_BLOCK = {"cpu": 512, "cuda": 4096}  # rows
_MEDIAN = 2  # place of the median itself in the grid around it


@dataclass(frozen=True)
class KernelSums:
    """Sums of several kernels over the pairs of tokens of two cells.

    Attributes:
        sums: for each kernel, cells by cells; a cell is ``2 * modality + half`` and a sample.
        own: sum of a kernel of each token with itself, for each cell.
        counts: number of tokens of each cell.
    """

    sums: Float[np.ndarray, "K 4 S 4 S"]
    own: Float[np.ndarray, "K 4 S"]
    counts: Float[np.ndarray, "4 S"]

    def mmd2(
        self, contrast: str, unit: str, draws: Float[np.ndarray, "B S"]
    ) -> dict[str, Float[np.ndarray, "K B"]]:
        """MMD squared of every kernel, observed and without each group, unbiased and biased.

        Args:
            contrast: one of ``selection.CONTRASTS``.
            unit: ``sample``: samples weigh the same, halves are halves of the samples, and the
                unbiased estimate leaves out pairs of one sample. ``token``: tokens weigh the same,
                halves are random halves of the tokens, and only a token with itself is left out.
            draws: multiplicities of the samples.
        """
        x, y = self._sides(contrast, unit)
        by_sample = unit == SAMPLE
        found = {}
        parts = {}
        for name, (a, b) in {"xx": (x, x), "yy": (y, y), "xy": (x, y)}.items():
            pair = _Pair(
                self._between(a, b, by_sample),
                self._counts(a, by_sample),
                self._counts(b, by_sample),
                draws[:, a.samples],
                draws[:, b.samples],
            )
            own = self._own(a) if name != "xy" else None
            parts[name] = pair.means(own, by_sample, a.samples == b.samples)
        for place, bias in enumerate((UNBIASED, BIASED)):
            found[bias] = parts["xx"][place] + parts["yy"][place] - 2.0 * parts["xy"][place]
        return found

    def _sides(self, contrast: str, unit: str) -> tuple[_Side, _Side]:
        everything = slice(None)
        image, text = slice(0, 2), slice(2, 4)
        if contrast == CONTRASTS[0]:
            return _Side(image, everything), _Side(text, everything)
        groups = image if contrast == "image_image" else text
        if unit == SAMPLE:
            first, second = slice(0, None, 2), slice(1, None, 2)
            return _Side(groups, first), _Side(groups, second)
        halves = [slice(groups.start + half, groups.start + half + 1) for half in (0, 1)]
        return _Side(halves[0], everything), _Side(halves[1], everything)

    def _between(self, x: _Side, y: _Side, by_sample: bool) -> Float[np.ndarray, "K s t"]:
        """Sums of each kernel between the samples of two sides; means where samples weigh alike."""
        sums = self.sums[:, x.groups, x.samples, y.groups, y.samples].sum((1, 3))
        if not by_sample:
            return sums
        scales = [_inverse(self.counts[side.groups, side.samples].sum(0)) for side in (x, y)]
        return sums * (scales[0][:, None] * scales[1])

    def _counts(self, side: _Side, by_sample: bool) -> Float[np.ndarray, " s"]:
        counts = self.counts[side.groups, side.samples].sum(0)
        return (counts > 0).astype(np.float64) if by_sample else counts

    def _own(self, side: _Side) -> Float[np.ndarray, "K s"]:
        return self.own[:, side.groups, side.samples].sum(1)


@dataclass(frozen=True)
class _Side:
    """The cells of one side of a contrast."""

    groups: slice
    samples: slice


@dataclass(frozen=True)
class _Pair:
    """Two sides, or one side with itself, as matrices over samples.

    Attributes:
        sums: of each kernel between two samples.
        u: count of the first side in each sample.
        v: count of the second side.
        draws_x: multiplicities of the samples of the first side.
        draws_y: of the second side.
    """

    sums: Float[np.ndarray, "K s t"]
    u: Float[np.ndarray, " s"]
    v: Float[np.ndarray, " t"]
    draws_x: Float[np.ndarray, "B s"]
    draws_y: Float[np.ndarray, "B t"]

    def means(
        self, own: Float[np.ndarray, "K s"] | None, by_sample: bool, same_samples: bool
    ) -> tuple[Float[np.ndarray, "K B"], Float[np.ndarray, "K B"]]:
        """Mean kernel of an unbiased and of a biased estimate.

        A pair of two copies of one sample is left out of the unbiased mean, and pairs inside a
        sample count once for each copy, if they count at all.

        Args:
            own: sum of a token with itself over each sample, if both sides are one.
            by_sample: whether the unbiased mean leaves out pairs of one sample; otherwise it leaves
                out a token with itself.
            same_samples: whether both sides hold the same samples.
        """
        totals = ((self.draws_x @ self.sums) * self.draws_y).sum(2)
        pairs = (self.draws_x @ self.u) * (self.draws_y @ self.v)
        every = totals / pairs
        if not same_samples:
            return every, every
        squared = self.draws_x**2
        inside = np.diagonal(self.sums, axis1=1, axis2=2)
        totals = totals - inside @ squared.T
        pairs = pairs - squared @ (self.u * self.v)
        if not by_sample:
            counted = inside if own is None else inside - own
            n_counted = self.u * self.v if own is None else self.u * self.u - self.u
            totals += counted @ self.draws_x.T
            pairs += self.draws_x @ n_counted
        return totals / pairs, every


def kernel_sums(
    selection: Selection,
    points: Float[np.ndarray, "n+m d"],
    kernels: Sequence[str],
    seed: int,
    device: str | torch.device,
) -> KernelSums:
    """Evaluate kernels on all pairs of tokens, in blocks.

    Args:
        selection: the tokens, for their cells.
        points: their vectors, image tokens first.
        kernels: names of ``levels.KERNELS``.
        seed: of the pairs that the median distance is taken from.
        device: where the kernels are evaluated.

    Raises:
        UserError: the median distance is 0.
    """
    n, n_samples = len(selection.image), selection.n_samples
    group = np.concatenate([selection.token_half_image, 2 + selection.token_half_text])
    cells = group * n_samples + selection.samples
    sigmas = bandwidths(points[:n], points[n:], kernels, seed)
    order = np.argsort(cells, kind="stable")
    centred = (points - points.mean(0, dtype=np.float64))[order]
    target = torch.device(device)
    rows = torch.from_numpy(centred).to(target)
    index = torch.from_numpy(cells[order]).to(target)
    sums = torch.zeros(len(kernels), 4 * n_samples, 4 * n_samples, dtype=torch.float64)
    sums = sums.to(target)
    size = _BLOCK.get(target.type, _BLOCK["cpu"])
    for first in range(0, len(rows), size):
        for second in range(first, len(rows), size):
            a, b = slice(first, first + size), slice(second, second + size)
            found = _block(rows[a], rows[b], kernels, sigmas, same=first == second)
            for number, block in enumerate(found):
                _add(sums[number], block, index[a], index[b], mirrored=first != second)
    counts = np.bincount(cells, minlength=4 * n_samples).astype(np.float64)
    own = np.stack([_own(name, centred, cells[order], counts) for name in kernels])
    shape = (len(kernels), 4, n_samples)
    return KernelSums(
        sums.cpu().numpy().reshape(*shape, 4, n_samples),
        own.reshape(shape),
        counts.reshape(4, n_samples),
    )


def bandwidths(
    image: Float[np.ndarray, "n d"],
    text: Float[np.ndarray, "m d"],
    kernels: Sequence[str],
    seed: int,
) -> dict[str, tuple[float, ...]]:
    """Bandwidths sigma of the Gaussian kernels among some, in units of the vectors.

    ``gaussian_1/d`` is exp(-|a - b|^2 / d), scikit-learn's default gamma, so sigma^2 is d / 2.

    Raises:
        UserError: the median distance is 0.
    """
    found: dict[str, tuple[float, ...]] = {}
    if {"gaussian_median", "gaussian_grid"} & set(kernels):
        grid = grid_around(median_distance(two_sides(image, text), seed))
        found["gaussian_median"] = (grid[_MEDIAN],)
        found["gaussian_grid"] = grid
    found["gaussian_1/d"] = (math.sqrt(image.shape[1] / 2.0),)
    found["gaussian_1"] = (1.0,)
    return {name: found[name] for name in kernels if name in found}


def _block(
    a: Float[Tensor, "rows d"],
    b: Float[Tensor, "columns d"],
    kernels: Sequence[str],
    sigmas: dict[str, tuple[float, ...]],
    same: bool,
) -> Iterator[Float[Tensor, "rows columns"]]:
    """Every kernel between the rows of two blocks, in turn; ``same`` says that they are one.

    Squared distances are computed in float64: rounding those of equal vectors changes their root,
    and a narrow Gaussian kernel, considerably. Exponentials are evaluated in float32.
    """
    products = a @ b.T
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2.0 * products
    squares.clamp_(min=0.0)
    if same:
        squares.fill_diagonal_(0.0)
    single = squares.float()
    gaussians: dict[float, Tensor] = {}
    for name in kernels:
        if name == "linear":
            yield products
        elif name == "energy":
            yield -squares.sqrt()
        else:
            for sigma in set(sigmas[name]) - set(gaussians):
                gaussians[sigma] = torch.exp(single * (-0.5 / sigma**2))
            of_grid = [gaussians[sigma] for sigma in sigmas[name]]
            yield torch.stack(of_grid).mean(0) if len(of_grid) > 1 else of_grid[0]


def _add(
    sums: Float[Tensor, "cells cells"],
    block: Float[Tensor, "rows columns"],
    rows: Int[Tensor, " rows"],
    columns: Int[Tensor, " columns"],
    mirrored: bool,
) -> None:
    """Add a block's sums by cell to the symmetric matrix, in place; tokens are sorted by cell."""
    first, second = int(rows[0]), int(columns[0])
    by_row = block.new_zeros(int(rows[-1]) - first + 1, block.shape[1])
    by_row.index_add_(0, rows - first, block)
    by_cell = block.new_zeros(int(columns[-1]) - second + 1, len(by_row))
    by_cell.index_add_(0, columns - second, by_row.T)
    height, width = by_cell.T.shape
    sums[first : first + height, second : second + width] += by_cell.T
    if mirrored:
        sums[second : second + width, first : first + height] += by_cell


def _own(
    name: str,
    centred: Float[np.ndarray, "n+m d"],
    cells: Int[np.ndarray, " n+m"],
    counts: Float[np.ndarray, " cells"],
) -> Float[np.ndarray, " cells"]:
    """Sum over the tokens of each cell of the kernel of a token with itself."""
    if name == "energy":
        return np.zeros(len(counts))
    if name == "linear":
        squares = (centred**2).sum(1)
        return np.bincount(cells, weights=squares, minlength=len(counts))
    return counts.copy()


def _inverse(counts: Float[np.ndarray, " S"]) -> Float[np.ndarray, " S"]:
    return np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0)
