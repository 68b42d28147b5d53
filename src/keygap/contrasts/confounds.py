"""Controls for confounds: each measures a contrast again with one confound removed.

A control selects the two sides of a contrast again, without one possible explanation of the gap. If
the gap remains, that explanation does not account for it. The rotary embedding of positions has no
control here: compare the sites before and after it, ``k_proj`` and ``key``. A new control is one
function and one line in ``CONFOUNDS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.sparse.csgraph import maximum_bipartite_matching

from keygap import random_streams
from keygap.contrasts.contrast import Contrast, Masks, NotMeasurable
from keygap.contrasts.labels import halves, is_sink, refuse_unknown_sinks

MASSIVE = 6.0  # least root mean square of a massive dimension, over that of the median dimension
TEMPLATE_ROLES = ("template", "system")  # text that is the same in every prompt

Reselect = Callable[[Contrast, pd.DataFrame, Sequence[str], int], Masks]


@dataclass(frozen=True)
class Confound:
    """One possible explanation of a gap, and how to measure the gap without it.

    Attributes:
        name: its value in the column ``confound``.
        select: a function of (contrast, labels, text roles, seed) that returns the masks of both
            sides; None uses the contrast's own sides.
        by_pair: whether each token of one side is paired with one of the other at the same
            position. The pair then takes the place of the sample.
        excluded: a function of vectors (n, heads, head_dim) that returns the dimensions to leave
            out, (heads, head_dim); None leaves out none.
    """

    name: str
    select: Reselect | None = None
    by_pair: bool = False
    excluded: Callable[[Float[np.ndarray, "n h d"]], Bool[np.ndarray, "h d"]] | None = None


def with_template(
    contrast: Contrast, labels: pd.DataFrame, roles: Sequence[str], seed: int
) -> Masks:
    """Count template and system tokens as text too.

    Raises:
        NotMeasurable: this adds no token to either side.
    """
    plain = contrast.select(labels, roles, seed)
    masks = contrast.select(labels, [*roles, *TEMPLATE_ROLES], seed)
    if all(np.array_equal(new, old) for new, old in zip(masks, plain, strict=True)):
        raise NotMeasurable("there is no template token to add")
    return masks


def without_sinks(
    contrast: Contrast, labels: pd.DataFrame, roles: Sequence[str], seed: int
) -> Masks:
    """Leave attention sinks out on both sides.

    Raises:
        NotMeasurable: there is no sink on either side, or attention was not recorded.
    """
    a, b = contrast.select(labels, roles, seed)
    refuse_unknown_sinks(labels, a | b)
    sinks = is_sink(labels)
    if not (sinks & (a | b)).any():
        raise NotMeasurable("no attention sink is among these tokens")
    return a & ~sinks, b & ~sinks


def equal_counts(
    contrast: Contrast, labels: pd.DataFrame, roles: Sequence[str], seed: int
) -> Masks:
    """Take as many tokens of one side as of the other in every sample, drawn at random."""
    rng = random_streams.generator(seed, "equal counts")
    sides = contrast.select(labels, roles, seed)
    kept = np.zeros((2, len(labels)), dtype=bool)
    samples = labels.groupby("sample_id", observed=True, sort=False).indices
    for rows in map(np.asarray, samples.values()):
        of_side = [rows[side[rows]] for side in sides]
        count = min(len(candidates) for candidates in of_side)
        for mask, candidates in zip(kept, of_side, strict=True):
            mask[rng.choice(candidates, count, replace=False)] = True
    return kept[0], kept[1]


def position_matched(
    contrast: Contrast, labels: pd.DataFrame, roles: Sequence[str], seed: int
) -> Masks:
    """Pair one token of each side at the same position, in as many pairs as possible.

    Equal numbers of tokens at each position would not be enough, because samples weigh the same
    whatever their number of tokens. Here each sample gives one token to one side. Half of the
    samples offer tokens of the first side, the other half tokens of the second. Memory grows with
    the product of their numbers.

    Raises:
        NotMeasurable: no two tokens can be paired.
    """
    rng = random_streams.generator(seed, "matched positions")
    a, b = contrast.select(labels, roles, seed)
    first, second = halves(labels, a | b, seed)
    position = labels["position"].to_numpy()
    sample, _ = pd.factorize(labels["sample_id"])
    place = pd.MultiIndex.from_arrays([sample, position])
    pairs = list(_pairs((a & first, b & second), sample, position))
    if not pairs:
        raise NotMeasurable(
            f"{' and '.join(contrast.sides)} of two samples are never at the same position"
        )
    chosen = [rng.choice(shared) for _, shared in pairs]
    kept = np.zeros((2, len(labels)), dtype=bool)
    for mask, samples in zip(kept, zip(*(pair for pair, _ in pairs), strict=True), strict=True):
        mask[place.get_indexer(pd.MultiIndex.from_arrays([samples, chosen]))] = True
    return kept[0], kept[1]


def _pairs(
    sides: Masks, sample: Int[np.ndarray, " n"], position: Int[np.ndarray, " n"]
) -> Iterator[tuple[tuple[int, int], Int[np.ndarray, " shared"]]]:
    """Pairs of a sample of each side, as many as possible, and the positions that each shares."""
    sample, position = sample.astype(np.int32), position.astype(np.int32)  # what matching takes
    occupied = [
        sparse.csr_array(
            (np.ones(int(side.sum()), dtype=np.int32), (sample[side], position[side])),
            shape=(int(sample.max()) + 1, int(position.max()) + 1),
        )
        for side in sides
    ]
    share_a_position = sparse.csr_matrix(occupied[0] @ occupied[1].T)
    partner = maximum_bipartite_matching(share_a_position, perm_type="column")
    for one in np.flatnonzero(partner >= 0):
        pair = int(one), int(partner[one])
        first, second = (
            side.indices[side.indptr[row] : side.indptr[row + 1]]
            for side, row in zip(occupied, pair, strict=True)
        )
        yield pair, np.intersect1d(first, second)


def relative_size(
    array: Float[np.ndarray, "n heads head_dim"],
) -> Float[np.ndarray, "heads head_dim"]:
    """Root mean square of each dimension over that of the median dimension."""
    size = np.sqrt((array.astype(np.float64) ** 2).mean(0))
    return size / max(float(np.median(size)), float(np.finfo(np.float64).tiny))


def massive_dimensions(
    array: Float[np.ndarray, "n heads head_dim"],
) -> Bool[np.ndarray, "heads head_dim"]:
    """Find the dimensions whose root mean square is at least ``MASSIVE`` times the median one.

    Raises:
        NotMeasurable: there is none.
    """
    massive = relative_size(array) >= MASSIVE
    if not massive.any():
        raise NotMeasurable(f"no dimension is {MASSIVE:g} times the median one")
    return massive


CONFOUNDS: tuple[Confound, ...] = (
    Confound("with_template", with_template),
    Confound("without_sinks", without_sinks),
    Confound("equal_counts", equal_counts),
    Confound("position_matched", position_matched, by_pair=True),
    Confound("without_massive", excluded=massive_dimensions),
)
