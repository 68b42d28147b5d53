"""Mean over the columns of the JSD between their histograms, as in published work.

Histograms of single columns do not run out of vectors, as joint histograms do. The price is that
two things are lost. The mean dilutes: most columns are alike on both sides, so a few columns that
tell the sides apart perfectly hardly show. And dependence between columns is missed: two sides with
equal marginals read 0 however different they are. It is here for comparison with published numbers;
for the size of a gap use ``jsd``.

Each sample is its own histograms, and those of a side are their mean. A label swap is then a vector
of labels over samples, and needs no vector again (see ``core.swaps``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse
from scipy.special import rel_entr

from keygap import random_streams
from keygap.errors import UserError
from keygap.gap.core.bins import check_bins, equal_width_bins
from keygap.gap.core.calibration import LN2
from keygap.gap.core.cautions import cautions
from keygap.gap.core.described import Described
from keygap.gap.core.inputs import Array, CheckedSides, Groups, two_sides
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import p_value
from keygap.gap.core.swaps import dealt, random_signs


@dataclass(frozen=True, repr=False)
class MarginalsJSDResult(Described, title="Jensen-Shannon divergence of single columns"):
    """Mean JSD of the histograms of the columns, and the same under label swaps.

    Attributes:
        nats: The mean over the columns, at most ln 2.
        bits: The same in bits.
        null_nats: Mean of ``nats`` under label swaps, where the truth is 0; 0 without permutations.
        null_bits: The same in bits.
        p_value: Permutation p-value; 1 without permutations.
        bins: Number of bins of each column.
        paired: Whether both sides hold the same samples.
        n_permutations: Number of label swaps.
        seed: Seed of the swaps.
        by_column: JSD of each column, in nats; 0 for a constant one.
        cautions: What makes interval or p-value doubtful (see ``core.cautions``).
    """

    nats: float
    bits: float
    null_nats: float
    null_bits: float
    p_value: float
    bins: int
    paired: bool
    n_permutations: int
    seed: int
    by_column: Float[np.ndarray, " d"] = field(compare=False)
    cautions: tuple[str, ...] = ()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """``jsd_marginals`` and its null."""
        return (
            Reading(
                "jsd_marginals",
                self.nats,
                "mean over the columns of the JSD of their histograms, nats; blind to dependence",
                null=self.null_nats if self.n_permutations else None,
                p_value=self.p_value if self.n_permutations else None,
                dims=len(self.by_column),
                settings={"bins": self.bins},
            ),
        )


def jsd_marginals(
    x: Array,
    y: Array,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    bins: int = 10,
    paired: bool | None = None,
    n_permutations: int = 20,
    seed: int = 0,
) -> MarginalsJSDResult:
    """Mean over the columns of the JSD of their histograms, with equal weight for samples.

    It dilutes: if one column of a hundred separates the sides, it reads a hundredth of ln 2. It
    sees no dependence between columns, so 0 does not mean that the sides are equal. Without a
    difference it reads about (bins - 1) / (4 n) nats for n independent vectors on each side, which
    ``null_nats`` has.

    Its cost is O((n + m) d (1 + permutations)).

    Args:
        x: Vectors of the first side, shape (n, d), numpy or torch.
        y: Vectors of the second side, shape (m, d).
        groups_x: Sample id of each row of ``x``; None: every row is a sample of its own.
        groups_y: Sample id of each row of ``y``.
        bins: Number of bins of equal width between the smallest and the largest pooled value of
            each column. A constant column contributes 0.
        paired: Whether both sides hold the same samples; None: decided by the ids, as in ``mmd``.
        n_permutations: Number of label swaps.
        seed: Seed of the swaps.

    Returns:
        The mean, its null and the JSD of each column.

    Raises:
        UserError: Bad vectors or ids (see ``core.inputs.two_sides``), fewer than two bins, or
            vectors that are all equal.
    """
    check_bins(bins)
    sides = two_sides(x, y, groups_x, groups_y, paired)
    varies = np.ptp(sides.pooled, axis=0) > 0.0
    if not varies.any():
        raise UserError("all vectors are equal, on both sides: nothing to compare")
    histograms = _of_samples(sides, varies, bins)
    as_given = np.arange(sides.n_cells) < sides.n_samples_x
    by_column = np.zeros(len(varies))
    by_column[varies] = _divergences(histograms, as_given, bins)
    nats = float(by_column.mean())
    rng = random_streams.generator(seed, "jsd_marginals", "label swaps")
    null = np.array(
        [
            _divergences(histograms, on_x, bins).sum() / len(varies)
            for on_x in _swapped_labels(sides, n_permutations, rng)
        ]
    )
    null_nats = float(null.mean()) if n_permutations else 0.0
    return MarginalsJSDResult(
        cautions=cautions(sides),
        nats=nats,
        bits=nats / LN2,
        null_nats=null_nats,
        null_bits=null_nats / LN2,
        p_value=p_value(nats, null),
        bins=bins,
        paired=sides.paired,
        n_permutations=n_permutations,
        seed=seed,
        by_column=by_column,
    )


def _of_samples(sides: CheckedSides, varies: Bool[np.ndarray, " d"], bins: int) -> sparse.csr_array:
    """Histograms of each (side, sample) cell, shape (cells, varying columns * bins)."""
    index = equal_width_bins(sides.pooled[:, varies].astype(np.float64), bins)
    columns = index.shape[1]
    index += bins * np.arange(columns)
    cells = sides.cells
    shares = 1.0 / np.bincount(cells)[cells]
    places = np.repeat(cells, columns), index.ravel()
    return sparse.csr_array(
        (np.repeat(shares, columns), places), shape=(sides.n_cells, columns * bins)
    )


def _swapped_labels(
    sides: CheckedSides, n_permutations: int, rng: np.random.Generator
) -> Iterator[Bool[np.ndarray, " cells"]]:
    """Whether each cell is on the first side, for each label swap."""
    s, t = sides.n_samples_x, sides.n_samples_y
    if sides.paired:
        keeps = random_signs(n_permutations, s, rng) > 0.0
        yield from np.concatenate([keeps, ~keeps], axis=1)
    else:
        yield from dealt(np.repeat([1.0, 0.0], [s, t]), n_permutations, rng) > 0.0


def _divergences(
    histograms: sparse.csr_array, on_x: Bool[np.ndarray, " cells"], bins: int
) -> Float[np.ndarray, " columns"]:
    """JSD of each column in nats, between the mean histograms of the cells of both sides."""
    p, q = ((on / on.sum()) @ histograms for on in (on_x, ~on_x))
    middle = 0.5 * (p + q)
    terms = 0.5 * (rel_entr(p, middle) + rel_entr(q, middle))
    return terms.reshape(-1, bins).sum(1)
