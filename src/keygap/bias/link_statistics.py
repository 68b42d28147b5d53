"""Rank correlations along a chain of four quantities, at many layers and heads at once.

Separation of keys, query-key similarity, attention and the answer's margin are known for each
sample; the first three at each layer and head (a unit). Does each predict the next, and does
separation reach the answer through the two between? All of it is read from one matrix per unit, the
correlations of ranks:

- ``spearman``: the rank correlation of two quantities;
- ``partial``: the same with covariates held fixed (position, token counts);
- ``path``: the standardised coefficient of the earlier quantity in a regression of ranks of the
  later one, with covariates and all still earlier quantities held fixed;
- ``indirect``: the product of the three paths from separation to the answer, which is how strongly
  separation moves the answer through similarity and attention (serial mediation).

Intervals are bootstrap percentiles over samples, and each resample is ranked anew. P-values come
from Student's t, which Spearman's correlation follows closely from 20 samples on: a permutation
test of 1,024 heads would need 40,000 permutations to reach a p-value that Holm can accept. A chain
is as uncertain as its weakest link: its p-value is the largest of its three paths (the test of
joint significance), which never calls too often.

Ranks of a Gaussian chain are not exactly a chain: at correlations of 0.8 a partial rank correlation
of 0.02 is left where there is none. It is far below what 1,000 samples can show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from keygap.bias.link_table import CHAIN

LINKS = (*pairwise(CHAIN), (CHAIN[0], CHAIN[-1]))
COLLINEAR = 1e-4  # a quantity of which others leave less than this share is determined by them


@dataclass(frozen=True)
class Estimate:
    """One number for each unit, with its interval and test.

    Attributes:
        link: the earlier and the later quantity; for ``indirect``, the ends of the chain.
        measure: ``spearman``, ``partial``, ``path`` or ``indirect``.
        value: the numbers; those of ``spearman`` and ``partial`` are from -1 to 1. NaN where a
            quantity is constant or unknown.
        low: lower ends of the intervals.
        high: upper ends.
        p_value: two-sided, unadjusted.
        held: how many quantities are held fixed.
    """

    link: tuple[str, str]
    measure: str
    value: Float[np.ndarray, " m"]
    low: Float[np.ndarray, " m"]
    high: Float[np.ndarray, " m"]
    p_value: Float[np.ndarray, " m"]
    held: int


def chain_estimates(
    chain: Sequence[Float[np.ndarray, "n _"]],
    covariates: Float[np.ndarray, "n k"] | None = None,
    *,
    n_bootstraps: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Estimate]:
    """Estimate every link of the chain at every unit. O(B m n).

    Args:
        chain: separation, similarity, attention and answer of n samples: (n, m), or (n, 1) for one
            that all m units share.
        covariates: what ``partial``, ``path`` and ``indirect`` hold fixed, the same for all units.
        n_bootstraps: resamplings of whole samples.
        level: of the intervals.
        seed: of the resampling.
    """
    n = len(chain[0])
    units = np.broadcast_shapes(*(column.shape for column in chain))[1]
    held = np.empty((n, 0)) if covariates is None else covariates
    held = held[:, independent(held)]
    ranked = _Ranked(chain, held, units)
    rng = np.random.default_rng(seed)
    every = np.ones(n, dtype=np.float32)
    found = _readings(ranked.correlations(every), held.shape[1])
    drawn = np.empty((n_bootstraps, len(found), units), dtype=np.float32)
    for number in range(n_bootstraps):
        weights = rng.multinomial(n, np.full(n, 1 / n)).astype(np.float32)
        again = _readings(ranked.correlations(weights), held.shape[1])
        drawn[number] = [reading.value for reading in again]
    tails = (1 - level) / 2
    ends = _percentiles(drawn, (tails, 1 - tails))
    return [
        Estimate(
            *(reading.link, reading.measure, reading.value, low, high),
            p_value=_p_value(reading, n),
            held=reading.held,
        )
        for reading, low, high in zip(found, *ends, strict=True)
    ]


def independent(covariates: Float[np.ndarray, "n k"]) -> list[int]:
    """Find the covariates whose ranks vary and are not determined by those before them."""
    kept: list[int] = []
    basis = np.empty((len(covariates), 0))
    for number in range(covariates.shape[1]):
        ranks = stats.rankdata(covariates[:, number])
        ranks = ranks - ranks.mean()
        rest = ranks - basis @ (basis.T @ ranks)
        if rest @ rest > COLLINEAR * (ranks @ ranks):
            kept.append(number)
            basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
    return kept


def smallest_detectable(
    n_samples: int,
    n_tests: int,
    *,
    held: int = 0,
    links: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
) -> float:
    """Compute the rank correlation that a test would have shown with a given power.

    The level is that of Holm's first step. Fisher's z of a rank correlation has the variance
    (1 + r^2 / 2) / (n - 3) (Bonett and Wright 2000).

    Args:
        n_samples: how many there are.
        n_tests: how many Holm adjusts together.
        held: how many quantities are held fixed.
        links: how many links must be shown together; each then needs more power.
        alpha: level of the family.
        power: the probability of showing it.

    Returns:
        The correlation, from 0 to 1; NaN if there are too few samples for any.
    """
    left = n_samples - held - 3
    if left < 1:
        return float("nan")
    wanted = stats.norm.isf(alpha / (2 * n_tests))
    needed = stats.norm.ppf(power ** (1 / links))
    r = 0.0
    for _ in range(50):  # a contraction: r moves the spread by at most a fifth
        r = float(np.tanh((wanted + needed * np.sqrt(1 + r**2 / 2)) / np.sqrt(left)))
    return r


@dataclass(frozen=True)
class _Reading:
    """A number for each unit, and the partial correlations that test it (one for each path)."""

    link: tuple[str, str]
    measure: str
    value: Float[np.ndarray, " m"]
    tested: tuple[tuple[Float[np.ndarray, " m"], int], ...]  # with how many quantities held fixed

    @property
    def held(self) -> int:
        return max(held for _, held in self.tested)


class _Ranked:
    """Ranks of all quantities in any resample, by the order that they have in the data.

    A resample is a weight for each sample. The rank of a value is the weight of all lower ones and
    half that of its equals, so nothing is sorted again.
    """

    def __init__(
        self, chain: Sequence[np.ndarray], covariates: Float[np.ndarray, "n j"], units: int
    ) -> None:
        own = [column.T for column in chain if column.shape[1] > 1 or units == 1]
        shared = [column.T for column in chain if column.shape[1] == 1 < units]
        self.units = units
        self._unknown = np.stack(
            [np.broadcast_to(np.isnan(column).any(0), units) for column in chain], axis=1
        )
        self._is_own = [column.shape[1] > 1 or units == 1 for column in chain]
        self._own = _Order(np.stack(own, axis=1)) if own else None
        self._shared = _Order(np.concatenate([*shared, covariates.T])[None])
        self._n_shared = len(shared)

    def correlations(self, weights: Float[np.ndarray, " n"]) -> Float[np.ndarray, "m p p"]:
        """Rank correlations of covariates and chain, in this order, in a resample."""
        of_all = self._shared.ranks(weights)[0]
        common = iter(of_all[: self._n_shared])
        own = iter(() if self._own is None else self._own.ranks(weights).swapaxes(0, 1))
        rows = [*of_all[self._n_shared :]]
        rows += [next(own) if is_own else next(common) for is_own in self._is_own]
        ranks = np.empty((self.units, len(rows), len(weights)), dtype=np.float32)
        for number, row in enumerate(rows):
            ranks[:, number] = row
        products = ((ranks * weights) @ ranks.swapaxes(1, 2)).astype(np.float64)
        spread = np.sqrt(np.einsum("mpp->mp", products))
        first = len(rows) - len(self._is_own)  # a covariate may be constant in a resample
        spread[:, :first][spread[:, :first] == 0] = 1.0
        spread[:, first:][self._unknown | (spread[:, first:] == 0)] = np.nan
        return products / spread[:, :, None] / spread[:, None, :]


class _Order:
    """The order of the values of (..., n) quantities along the samples."""

    def __init__(self, values: Float[np.ndarray, "a b n"]) -> None:
        a, b, n = values.shape
        self._order = np.argsort(values, axis=-1, kind="stable")
        ordered = np.take_along_axis(values, self._order, -1)
        place = np.arange(n)
        new = np.ones(values.shape, dtype=bool)
        new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
        first = np.maximum.accumulate(np.where(new, place, 0), axis=-1)
        ends = np.ones(values.shape, dtype=bool)
        ends[..., :-1] = new[..., 1:]
        last = np.where(ends, place + 1, n)[..., ::-1]
        last = np.minimum.accumulate(last, axis=-1)[..., ::-1]
        self._first, self._last = self._flat(first), self._flat(last)
        self._sums = np.zeros((a, b, n + 1), dtype=np.float32)

    def _flat(self, places: Int[np.ndarray, "a b n"]) -> Int[np.ndarray, "a b n"]:
        """Indices into the flat cumulative weights, in the order of the samples."""
        a, b, n = places.shape
        of_sample = np.empty_like(places)
        np.put_along_axis(of_sample, self._order, places, -1)
        return of_sample + (n + 1) * np.arange(a * b).reshape(a, b, 1)

    def ranks(self, weights: Float[np.ndarray, " n"]) -> Float[np.ndarray, "a b n"]:
        """Ranks of all values in a resample, their mean of (n + 1) / 2 subtracted."""
        np.cumsum(weights[self._order], axis=-1, out=self._sums[..., 1:])
        flat = self._sums.ravel()
        middle = (flat[self._first] + flat[self._last]) / 2
        return middle - np.float32(len(weights) / 2)


def _readings(correlations: Float[np.ndarray, "m p p"], covariates: int) -> list[_Reading]:
    """Every link's numbers, from the correlations of covariates and chain."""
    found = []
    given = _without(correlations, range(covariates))
    for earlier, later in LINKS:
        i, j = (covariates + CHAIN.index(name) for name in (earlier, later))
        plain, partial = correlations[:, i, j], _correlation(given, i, j)
        found.append(_Reading((earlier, later), "spearman", plain, ((plain, 0),)))
        found.append(_Reading((earlier, later), "partial", partial, ((partial, covariates),)))
    paths = []
    for number, (earlier, later) in enumerate(LINKS[: len(CHAIN) - 1]):
        i, j = covariates + number, covariates + number + 1
        before = _without(given, range(covariates, i))
        partial = _correlation(before, i, j)
        spreads = np.sqrt(np.maximum(before[:, j, j], 0) / np.maximum(before[:, i, i], COLLINEAR))
        paths.append(_Reading((earlier, later), "path", partial * spreads, ((partial, i),)))
    indirect = np.prod([path.value for path in paths], axis=0)
    tests = tuple(test for path in paths for test in path.tested)
    return [*found, *paths, _Reading((CHAIN[0], CHAIN[-1]), "indirect", indirect, tests)]


def _without(
    covariances: Float[np.ndarray, "m p p"], held: Sequence[int]
) -> Float[np.ndarray, "m p p"]:
    """Covariances of what is left of each quantity once some are held fixed (sweeps)."""
    for k in held:
        column, variance = covariances[:, :, k], covariances[:, k, k]
        slope = column / np.where(variance < COLLINEAR, np.inf, variance)[:, None]
        covariances = covariances - slope[:, :, None] * column[:, None, :]
    return covariances


def _correlation(covariances: Float[np.ndarray, "m p p"], i: int, j: int) -> np.ndarray:
    """Correlation of two quantities, from -1 to 1; NaN where those held fixed determine one."""
    variances = np.stack([covariances[:, i, i], covariances[:, j, j]])
    variances[variances < COLLINEAR] = np.nan
    return np.clip(covariances[:, i, j] / np.sqrt(variances.prod(0)), -1.0, 1.0)


def _p_value(reading: _Reading, n: int) -> Float[np.ndarray, " m"]:
    """Two-sided p by Student's t; for the chain, the largest p of its three paths."""
    found = []
    for r, held in reading.tested:
        left = n - 2 - held
        if left < 1:
            found.append(np.full_like(r, np.nan))
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(r) * np.sqrt(left / (1 - r**2))
        found.append(2 * stats.t.sf(t, left))
    return np.maximum.reduce(found)


def _percentiles(drawn: np.ndarray, levels: tuple[float, float]) -> list[np.ndarray]:
    """Percentiles over the first axis; NaN where a unit has no number."""
    known = np.isfinite(drawn)
    drawn = np.where(known, drawn, np.inf)  # sorted last
    drawn.sort(axis=0)
    count = known.sum(0)
    found = []
    for level in levels:
        place = np.maximum(np.rint(level * (count - 1)), 0).astype(np.intp)
        value = np.take_along_axis(drawn, place[None], 0)[0].astype(np.float64)
        found.append(np.where(count > 0, value, np.nan))
    return found
