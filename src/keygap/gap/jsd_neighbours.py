"""JSD by nearest neighbours, as in published work.

If a fair coin chooses the side, JSD is the mutual information of side and vector, which Ross 2014
("Mutual Information between Discrete and Continuous Data Sets", PLoS ONE 9(2): e87357) estimates
from nearest neighbours. For vector i, let the k-th nearest other vector of its own side be the m-th
nearest of both sides. With N vectors, N/2 of each side,

    JSD = mean over i of psi(N) - psi(N/2) + psi(k) - psi(m_i)        (nats)

where psi is the digamma function. So what matters is one rank for each vector. Distances do not
change when labels are swapped: the nearest vectors of each are listed once, and a swap only ranks
anew. It is here for comparison with published numbers; for the size of a gap use ``jsd``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import digamma

from keygap import random_streams
from keygap.errors import UserError
from keygap.gap.core.calibration import LN2
from keygap.gap.core.cautions import cautions
from keygap.gap.core.described import Described
from keygap.gap.core.inputs import Array, CheckedSides, Groups, in_turn, two_sides
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import p_value
from keygap.gap.core.swaps import swap_labels

_BLOCK = 512  # rows whose distances to all vectors are held at a time: 41 MB for 10,000 vectors
_LISTED = 32  # neighbours of a vector that are listed for each one that is asked for


@dataclass(frozen=True, repr=False)
class NeighboursJSDResult(Described, title="Jensen-Shannon divergence by nearest neighbours"):
    """JSD by nearest neighbours, and the same under label swaps, where the truth is 0.

    Attributes:
        nats: The estimate, clipped to [0, ln 2].
        bits: The same in bits.
        raw_nats: The estimate before clipping.
        null_nats: Mean of ``nats`` under label swaps; 0 without permutations.
        null_bits: The same in bits.
        p_value: Permutation p-value of ``raw_nats``; 1 without permutations.
        neighbours: Number k of neighbours.
        n_each: Number of vectors of each side that were used.
        paired: Whether both sides hold the same samples.
        n_permutations: Number of label swaps.
        seed: Seed of the selection and the swaps.
        kept_x: Rows of x that were used, in ascending order.
        kept_y: Rows of y that were used.
        terms: Local term of each of these rows in nats, those of x first. ``raw_nats`` is the mean
            of both sides' means over samples of them. A bootstrap of samples may keep them fixed.
        cautions: What makes interval or p-value doubtful (see ``core.cautions``).
    """

    nats: float
    bits: float
    raw_nats: float
    null_nats: float
    null_bits: float
    p_value: float
    neighbours: int
    n_each: int
    paired: bool
    n_permutations: int
    seed: int
    kept_x: Int[np.ndarray, " n_each"] = field(compare=False)
    kept_y: Int[np.ndarray, " n_each"] = field(compare=False)
    terms: Float[np.ndarray, " 2*n_each"] = field(compare=False)
    cautions: tuple[str, ...] = ()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """``jsd_neighbours`` and its null."""
        return (
            Reading(
                "jsd_neighbours",
                self.nats,
                "JSD by nearest neighbours, nats; badly biased in many dimensions",
                null=self.null_nats if self.n_permutations else None,
                p_value=self.p_value if self.n_permutations else None,
                settings={"neighbours": self.neighbours, "n_each": self.n_each},
            ),
        )


def jsd_neighbours(
    x: Array,
    y: Array,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    neighbours: int = 5,
    paired: bool | None = None,
    n_permutations: int = 20,
    seed: int = 0,
) -> NeighboursJSDResult:
    """JSD between two sides by the ranks of nearest neighbours (Ross 2014).

    It is badly biased in many dimensions. Where one side is wider, its vectors have most of their
    neighbours on the other side, and their terms are far below 0. Two Gaussians of 2,000 vectors
    each, one twice as wide, read 0.18 in 2 dimensions (the truth is 0.17) and 0.25 in 10 (0.52). In
    50 they never overlap, the truth is 0.69, and the raw estimate is -1.6 with a p-value of 1. In
    192 dimensions a shift by one deviation reads 0.05 (0.12). Vectors of one sample are near each
    other, so it also reads high without a difference, as ``null_nats`` then does. Vectors at equal
    distances, such as copies, are ranked at random; scikit-learn's ``mutual_info_classif`` adds
    noise for that.

    Its cost is O(N^2 d + permutations N k) for N vectors of both sides together.

    Args:
        x: Vectors of the first side, shape (n, d), numpy or torch.
        y: Vectors of the second side, shape (m, d). The side with more vectors is thinned to the
            number of the other, so that both have equal priors; a seeded selection takes them from
            the samples in turn.
        groups_x: Sample id of each row of ``x``; None: every row is a sample of its own.
        groups_y: Sample id of each row of ``y``.
        neighbours: Number k of neighbours.
        paired: Whether both sides hold the same samples; None: decided by the ids, as in ``mmd``.
        n_permutations: Number of label swaps.
        seed: Seed of the selection, the order of equal distances and the swaps.

    Returns:
        The estimate, its null and the local terms.

    Raises:
        UserError: Bad vectors or ids (see ``core.inputs.two_sides``), vectors that are all equal,
            or a number of neighbours that is not positive or that a side does not have.
    """
    given = two_sides(x, y, groups_x, groups_y, paired)
    _check(given, neighbours)
    n = len(given.x)
    # Where vectors are selected and labels swapped, each vector is represented by its place.
    places = np.arange(n + len(given.y), dtype=np.float64)[:, None]
    streams = random_streams.generator(seed, "jsd_neighbours").spawn(3)
    kept = _equal_numbers(replace(given, x=places[:n], y=places[n:]), streams[0])
    rows = _places(kept)
    each = len(kept.x)
    listed = _Listed.of(given.pooled[rows], neighbours, streams[1])
    among = replace(kept, x=places[:each], y=places[each : 2 * each])
    terms = _terms(among, listed, neighbours)
    raw = float(among.weights @ terms)
    null = np.array(
        [_swapped(among, listed, neighbours, streams[2]) for _ in range(n_permutations)]
    )
    nats = min(max(raw, 0.0), LN2)
    null_nats = float(null.clip(0.0, LN2).mean()) if n_permutations else 0.0
    return NeighboursJSDResult(
        cautions=cautions(given),
        nats=nats,
        bits=nats / LN2,
        raw_nats=raw,
        null_nats=null_nats,
        null_bits=null_nats / LN2,
        p_value=p_value(raw, null),
        neighbours=neighbours,
        n_each=each,
        paired=given.paired,
        n_permutations=n_permutations,
        seed=seed,
        kept_x=rows[:each],
        kept_y=rows[each:] - n,
        terms=terms,
    )


def _check(sides: CheckedSides, neighbours: int) -> None:
    if neighbours < 1:
        raise UserError(f"neighbours is {neighbours}: give at least 1")
    smaller = min(len(sides.x), len(sides.y))
    if neighbours >= smaller:
        raise UserError(
            f"{neighbours} neighbours on a side of {smaller} vectors: ask for at most "
            f"{smaller - 1}, or give more vectors"
        )
    if not np.ptp(sides.pooled, axis=0).any():
        raise UserError("all vectors are equal, on both sides: nothing to compare")


def _equal_numbers(sides: CheckedSides, rng: np.random.Generator) -> CheckedSides:
    """The sides with as many vectors each as the smaller, taken from the samples in turn.

    A side that has more samples than the other has vectors loses samples.
    """
    limit = min(len(sides.x), len(sides.y))
    keep_x, keep_y = (
        np.sort(in_turn(sample, rng)[:limit]) if len(sample) > limit else np.arange(limit)
        for sample in (sides.sample_x, sides.sample_y)
    )
    present_x, sample_x = np.unique(sides.sample_x[keep_x], return_inverse=True)
    present_y, sample_y = np.unique(sides.sample_y[keep_y], return_inverse=True)
    return replace(
        sides,
        x=sides.x[keep_x],
        y=sides.y[keep_y],
        sample_x=sample_x,
        sample_y=sample_y,
        n_samples_x=len(present_x),
        n_samples_y=len(present_y),
    )


def _places(sides: CheckedSides) -> Int[np.ndarray, " n+m"]:
    return sides.pooled[:, 0].astype(int)


def _swapped(
    sides: CheckedSides, listed: _Listed, neighbours: int, rng: np.random.Generator
) -> float:
    """The estimate after one label swap; sides that are unequal then are thinned again."""
    swapped = _equal_numbers(swap_labels(sides, rng), rng)
    return float(swapped.weights @ _terms(swapped, listed, neighbours))


def _terms(sides: CheckedSides, listed: _Listed, neighbours: int) -> Float[np.ndarray, " 2*n"]:
    """Local terms of the vectors of x, then of y, which are represented by their places."""
    each = len(sides.x)
    side = np.zeros(len(listed.nearest), dtype=np.int8)  # 0: thinned out
    places = _places(sides)
    side[places[:each]], side[places[each:]] = 1, 2
    k = min(neighbours, each - 1)  # a swap may leave a side fewer vectors
    ranks = listed.ranks(side, k)[places]
    return digamma(2 * each) - digamma(each) + digamma(k) - digamma(ranks)


@dataclass(frozen=True)
class _Listed:
    """Vectors and the nearest others of each, nearest first.

    Attributes:
        points: The vectors.
        order: Random order that equal distances are ranked in.
        nearest: Places of the nearest others of each vector.
    """

    points: Float[torch.Tensor, "N d"]
    order: Int[np.ndarray, " N"]
    nearest: Int[np.ndarray, "N listed"]

    @classmethod
    def of(
        cls, vectors: Float[np.ndarray, "N d"], neighbours: int, rng: np.random.Generator
    ) -> _Listed:
        centred = vectors.astype(np.float64)
        centred -= centred.mean(0)  # small norms round less
        points, order = torch.from_numpy(centred), rng.permutation(len(vectors))
        count = min(_LISTED * neighbours, len(vectors) - 1)
        nearest = [
            _nearest(points, order, rows, count) for rows in _blocks(np.arange(len(vectors)))
        ]
        return cls(points, order, np.concatenate(nearest))

    def ranks(self, side: Int[np.ndarray, " N"], k: int) -> Int[np.ndarray, " N"]:
        """Rank of the k-th neighbour of the same side among all neighbours; side 0 is no vector.

        Few vectors have it beyond their list. Their distances are computed again.
        """
        ranks = _ranks(self.nearest, side, side, k)
        everyone = len(side) - 1
        for rows in _blocks(np.flatnonzero((ranks == 0) & (side > 0))):
            nearest = _nearest(self.points, self.order, rows, everyone)
            ranks[rows] = _ranks(nearest, side[rows], side, k)
        return ranks


def _nearest(
    points: Float[torch.Tensor, "N d"],
    order: Int[np.ndarray, " N"],
    rows: Int[np.ndarray, " rows"],
    count: int,
) -> Int[np.ndarray, "rows count"]:
    """Places of the nearest other vectors of some rows, nearest first."""
    distance = torch.cdist(points[rows], points[order])
    distance[np.arange(len(rows)), np.argsort(order)[rows]] = torch.inf  # not of itself
    if count == len(order) - 1:  # all of them: numpy sorts four times as fast as topk
        return order[np.argsort(distance.numpy(), axis=1)[:, :count]]
    return order[torch.topk(distance, count, largest=False).indices.numpy()]


def _ranks(
    nearest: Int[np.ndarray, "rows listed"],
    own: Int[np.ndarray, " rows"],
    side: Int[np.ndarray, " N"],
    k: int,
) -> Int[np.ndarray, " rows"]:
    """Rank of the k-th listed vector of the own side; 0 where the list has fewer."""
    sides = side[nearest]
    of_own = np.cumsum(sides == own[:, None], axis=1, dtype=np.int32)
    up_to = of_own < k  # the vectors before the k-th
    return np.where(up_to.all(1), 0, ((sides > 0) & up_to).sum(1) + 1)


def _blocks(rows: Int[np.ndarray, " rows"]) -> list[Int[np.ndarray, " block"]]:
    return [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
