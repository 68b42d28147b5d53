"""The paper's style of JSD: a joint histogram of a few principal components. To be distrusted.

Bins are counted, and a joint histogram has bins^dims of them: in 50 dimensions every vector has a
bin of its own and two halves of one distribution look different. So the number stands beside what
it reads under swaps of whole samples, where the truth is 0. Use `jsd` for the size of a gap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int
from scipy.special import rel_entr

from keygap.errors import UserError
from keygap.gap.core.components import pooled_components
from keygap.gap.core.inputs import Groups, TwoSides, Vectors, two_sides
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import p_value, swap_labels
from keygap.gap.core.statistic import Statistic
from keygap.gap.jsd import LN2


@dataclass(frozen=True)
class HistogramJSDResult:
    """JSD of joint histograms, and the same under label swaps: the part that is no gap."""

    nats: float
    bits: float
    null_nats: float  # mean over label swaps
    null_bits: float
    p_value: float
    dims: int
    bins: int  # for each component
    occupied: int  # bins that hold a vector
    paired: bool
    n_permutations: int
    seed: int

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The divergence beside its null: where the two are close, it has saturated."""
        return (
            Reading(
                "jsd_histogram",
                self.nats,
                "JSD of joint histograms, nats; useless where its null is as large",
                null=self.null_nats,
                p_value=self.p_value,
                dims=self.dims,
            ),
        )


def jsd_histogram(
    x: Vectors,
    y: Vectors,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    dims: int = 2,
    bins: int = 10,
    paired: bool | None = None,
    n_permutations: int = 20,
    seed: int = 0,
) -> HistogramJSDResult:
    """JSD between joint histograms of x (n, d) and y (m, d) in `dims` principal components.

    bins: equal widths between the least and the greatest pooled value of each component. Samples
    of a side weigh the same. Raises UserError: bad vectors or ids (see `inputs.two_sides`), dims
    beyond what the vectors have, fewer than two bins. O((n + m) (d^2 + dims + permutations)).
    """
    if bins < 2:
        raise UserError(f"bins is {bins}: give at least 2")
    sides = two_sides(x, y, groups_x, groups_y, paired)
    scores = pooled_components(sides, dims).scores
    low, high = scores.min(0), scores.max(0)
    cells = np.minimum((bins * (scores - low) / (high - low)).astype(int), bins - 1)
    occupied, index = np.unique(cells, axis=0, return_inverse=True)
    nats = _divergence(sides, index.ravel(), len(occupied))

    n = len(sides.x)
    rng = np.random.default_rng(seed)
    # The bin of a vector rides along as its only column while labels are swapped.
    column = index.reshape(-1, 1).astype(np.float64)
    binned = replace(sides, x=column[:n], y=column[n:])
    null = np.array(
        [
            _divergence(swapped, swapped.pooled[:, 0].astype(int), len(occupied))
            for swapped in (swap_labels(binned, rng) for _ in range(n_permutations))
        ]
    )
    null_nats = float(null.mean()) if n_permutations else 0.0
    return HistogramJSDResult(
        nats=nats,
        bits=nats / LN2,
        null_nats=null_nats,
        null_bits=null_nats / LN2,
        p_value=p_value(nats, null),
        dims=dims,
        bins=bins,
        occupied=len(occupied),
        paired=sides.paired,
        n_permutations=n_permutations,
        seed=seed,
    )


def _divergence(sides: TwoSides, index: Int[np.ndarray, " n+m"], n_bins: int) -> float:
    n, weights = len(sides.x), 2.0 * sides.weights
    p = np.bincount(index[:n], weights=weights[:n], minlength=n_bins)
    q = np.bincount(index[n:], weights=weights[n:], minlength=n_bins)
    middle = 0.5 * (p + q)
    return float(0.5 * rel_entr(p, middle).sum() + 0.5 * rel_entr(q, middle).sum())


def _in(dims: int) -> Statistic:
    return Statistic(
        what=f"JSD of joint histograms of {dims} components, beside its null",
        compute=lambda x, y, sides: jsd_histogram(x, y, *sides.groups, dims=dims, seed=sides.seed),
        coordinates="components",
    )


IN_2, IN_10, IN_50 = _in(2), _in(10), _in(50)
