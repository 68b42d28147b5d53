"""JSD of joint histograms of a few principal components, as in published work.

A joint histogram has bins^dims bins. In 50 dimensions every vector has a bin of its own, and two
halves of one distribution look different. So the result includes what the number reads under label
swaps of whole samples, where the truth is 0. For the size of a gap use ``jsd``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.special import rel_entr

from keygap import random_streams
from keygap.gap.core.bins import check_bins, equal_width_bins
from keygap.gap.core.calibration import LN2
from keygap.gap.core.cautions import cautions
from keygap.gap.core.components import pooled_components
from keygap.gap.core.described import Described
from keygap.gap.core.inputs import Array, CheckedSides, Groups, two_sides
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import p_value
from keygap.gap.core.statistic import Statistic
from keygap.gap.core.swaps import swap_labels


@dataclass(frozen=True, repr=False)
class HistogramJSDResult(Described, title="Jensen-Shannon divergence of joint histograms"):
    """JSD of joint histograms, and the same under label swaps, where the truth is 0.

    Attributes:
        nats: The divergence, at most ln 2.
        bits: The same in bits.
        null_nats: Mean divergence under label swaps, in nats; 0 without permutations.
        null_bits: The same in bits.
        p_value: Permutation p-value; 1 without permutations.
        dims: Number of principal components.
        bins: Number of bins of each component.
        occupied: Number of joint bins that hold a vector.
        paired: Whether both sides hold the same samples.
        n_permutations: Number of label swaps.
        seed: Seed of the swaps.
        cautions: What makes interval or p-value doubtful (see ``core.cautions``).
    """

    nats: float
    bits: float
    null_nats: float
    null_bits: float
    p_value: float
    dims: int
    bins: int
    occupied: int
    paired: bool
    n_permutations: int
    seed: int
    cautions: tuple[str, ...] = ()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """``jsd_histogram`` and its null; it has saturated where the two are close."""
        return (
            Reading(
                "jsd_histogram",
                self.nats,
                "JSD of joint histograms, nats; useless where its null is as large",
                null=self.null_nats if self.n_permutations else None,
                p_value=self.p_value if self.n_permutations else None,
                dims=self.dims,
                settings={"bins": self.bins, "n_permutations": self.n_permutations},
            ),
        )


def jsd_histogram(
    x: Array,
    y: Array,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    dims: int = 2,
    bins: int = 10,
    paired: bool | None = None,
    n_permutations: int = 20,
    seed: int = 0,
) -> HistogramJSDResult:
    """JSD between joint histograms of two sides, with equal weight for the samples of a side.

    Its cost is O((n + m) (d^2 + dims + permutations)).

    Args:
        x: Vectors of the first side, shape (n, d), numpy or torch.
        y: Vectors of the second side, shape (m, d).
        groups_x: Sample id of each row of ``x``; None: every row is a sample of its own.
        groups_y: Sample id of each row of ``y``.
        dims: Number of principal components.
        bins: Number of bins of equal width between the smallest and the largest pooled value of
            each component.
        paired: Whether both sides hold the same samples; None: decided by the ids, as in ``mmd``.
        n_permutations: Number of label swaps.
        seed: Seed of the swaps.

    Returns:
        The divergence and its null.

    Raises:
        UserError: Bad vectors or ids (see ``core.inputs.two_sides``), ``dims`` beyond what the
            vectors have, or fewer than two bins.
    """
    check_bins(bins)
    sides = two_sides(x, y, groups_x, groups_y, paired)
    index, occupied = joint_bins(pooled_components(sides, dims).scores, bins)
    # While labels are swapped, each vector is represented by its bin.
    n, column = len(sides.x), index.reshape(-1, 1).astype(np.float64)
    binned = replace(sides, x=column[:n], y=column[n:])
    nats = _divergence(binned, occupied)
    rng = random_streams.generator(seed, "jsd_histogram", "label swaps")
    null = np.array(
        [_divergence(swap_labels(binned, rng), occupied) for _ in range(n_permutations)]
    )
    null_nats = float(null.mean()) if n_permutations else 0.0
    return HistogramJSDResult(
        cautions=cautions(sides),
        nats=nats,
        bits=nats / LN2,
        null_nats=null_nats,
        null_bits=null_nats / LN2,
        p_value=p_value(nats, null),
        dims=dims,
        bins=bins,
        occupied=occupied,
        paired=sides.paired,
        n_permutations=n_permutations,
        seed=seed,
    )


def joint_bins(
    scores: Float[np.ndarray, "n+m k"], bins: int
) -> tuple[Int[np.ndarray, " n+m"], int]:
    """Index of the joint bin of each vector, and the number of bins that hold a vector."""
    occupied, index = np.unique(equal_width_bins(scores, bins), axis=0, return_inverse=True)
    return index.ravel(), len(occupied)


def _divergence(binned: CheckedSides, n_bins: int) -> float:
    """JSD in nats of the two weighted histograms; the only column is the bin of each vector."""
    p = np.bincount(binned.x[:, 0].astype(int), weights=binned.weights_x, minlength=n_bins)
    q = np.bincount(binned.y[:, 0].astype(int), weights=binned.weights_y, minlength=n_bins)
    middle = 0.5 * (p + q)
    return float(0.5 * rel_entr(p, middle).sum() + 0.5 * rel_entr(q, middle).sum())


def _in(dims: int) -> Statistic:
    return Statistic(
        what=f"JSD of joint histograms of {dims} components, with its null",
        compute=lambda x, y, sides: jsd_histogram(x, y, *sides.groups, dims=dims, seed=sides.seed),
        coordinates="components",
    )


IN_2, IN_10, IN_50 = _in(2), _in(10), _in(50)
