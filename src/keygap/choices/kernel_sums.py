"""All kernels of all MMDs of one set of coordinates, in a single pass over pairs of tokens.

MMD between image and text, between two halves of either, by sample or by token, biased or unbiased,
squared or not, with or without some samples, are functions of the same sums: of a kernel over the
pairs of tokens of two halves. So the pairwise distances are computed once for a set of coordinates,
each kernel is evaluated once on them, and reading a choice off costs nothing that grows with the
number of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from keygap.choices.kernel_cells import Cells, Sums, Totals
from keygap.choices.levels import BIASED, OF_MEDIAN, SAMPLE, TOKEN, UNBIASED
from keygap.choices.selection import CONTRASTS, Selection
from keygap.gap.core.inputs import two_sides
from keygap.gap.core.kernels import grid_around
from keygap.gap.core.median import median_distance

_BLOCK = {"cpu": 512, "cuda": 4096}  # rows
_MEDIAN = 2  # place of the median itself in the grid around it
_SIDES = dict(zip(CONTRASTS, (([0, 1], [2, 3]), ([0], [1]), ([2], [3])), strict=True))


@dataclass(frozen=True)
class KernelSums:
    """Sums of several kernels over the pairs of tokens of every two halves, by unit."""

    by_unit: Mapping[str, Sums]

    def mmd2(self, contrast: str, unit: str) -> dict[str, Float[np.ndarray, "K B"]]:
        """MMD squared of every kernel, observed and without each group, unbiased and biased.

        Args:
            contrast: one of ``selection.CONTRASTS``.
            unit: ``sample``: samples weigh the same, halves are halves of the samples, and the
                unbiased estimate leaves out pairs of one sample. ``token``: tokens weigh the same,
                halves are random halves of the tokens, and only a token with itself is left out.
        """
        sums, (x, y) = self.by_unit[unit], _SIDES[contrast]
        found = {}
        for bias in (UNBIASED, BIASED):
            xx, yy, xy = (
                sums.mean(one, other, bias == UNBIASED) for one, other in ((x, x), (y, y), (x, y))
            )
            found[bias] = xx + yy - 2.0 * xy
        return found


def kernel_sums(
    selection: Selection,
    points: Float[np.ndarray, "n+m d"],
    kernels: Sequence[str],
    sigmas: Mapping[str, tuple[float, ...]],
    draws: Float[np.ndarray, "B S"],
    device: str | torch.device,
) -> KernelSums:
    """Evaluate kernels on all pairs of tokens, in blocks. Memory is O(B (n + m)) beyond the data.

    Args:
        selection: the tokens, for their cells.
        points: their vectors, image tokens first.
        kernels: names of ``levels.KERNELS``.
        sigmas: their bandwidths (see ``bandwidths``).
        draws: multiplicities of the samples, 0 or 1; row 0 counts each sample once.
        device: where the kernels are evaluated.
    """
    target = torch.device(device)
    cells = Cells.of(selection, draws)
    centred = (points - points.mean(0, dtype=np.float64))[cells.order]
    rows = torch.from_numpy(centred).to(target)
    parts = cells.parts(_BLOCK.get(target.type, _BLOCK["cpu"]), target)
    totals = Totals(len(kernels), cells, target)
    for number, a in enumerate(parts):
        for b in parts[number:]:
            blocks = _block(rows[a.rows], rows[b.rows], kernels, sigmas, same=a is b)
            totals.add(blocks, a, b)
    own = np.stack([_own(name, centred, cells) for name in kernels])
    return KernelSums({SAMPLE: totals.by_sample(), TOKEN: totals.by_token(own)})


def bandwidths(
    image: Float[np.ndarray, "n d"],
    text: Float[np.ndarray, "m d"],
    kernels: Sequence[str],
    seed: int,
) -> dict[str, tuple[float, ...]]:
    """Bandwidths sigma of some kernels, in units of the vectors; the others have none.

    ``gaussian_1/d`` is exp(-|a - b|^2 / d), scikit-learn's default gamma, so sigma^2 is d / 2.

    Args:
        image: vectors of the image tokens.
        text: vectors of the text tokens.
        kernels: names of ``levels.KERNELS``.
        seed: of the pairs that the median distance is taken from.

    Raises:
        UserError: the median distance is 0, and a kernel among these needs it.
    """
    found: dict[str, tuple[float, ...]] = {}
    if set(OF_MEDIAN) & set(kernels):
        grid = grid_around(median_distance(two_sides(image, text), seed))
        found["gaussian_median"] = (grid[_MEDIAN],)
        found["gaussian_grid"] = grid
    found["gaussian_1/d"] = (math.sqrt(image.shape[1] / 2.0),)
    found["gaussian_1"] = (1.0,)
    return {name: found.get(name, ()) for name in kernels}


def _block(
    a: Float[Tensor, "rows d"],
    b: Float[Tensor, "columns d"],
    kernels: Sequence[str],
    sigmas: Mapping[str, tuple[float, ...]],
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


def _own(name: str, centred: Float[np.ndarray, "n+m d"], cells: Cells) -> Float[np.ndarray, " C"]:
    """Sum over the tokens of each cell of the kernel of a token with itself."""
    if name == "energy":
        return np.zeros(len(cells.counts))
    if name == "linear":
        return np.bincount(cells.of_token, weights=(centred**2).sum(1))
    return cells.counts.copy()
