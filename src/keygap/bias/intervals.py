"""Intervals of proportions and of paired differences, with whole samples as the unit.

A model may follow a hint in 0 of 120 cases, and an interval must not shrink to a point there.
Proportions therefore get Wilson intervals and paired differences of proportions those of Newcombe,
which are built from them. Means of numbers are bootstrapped over samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import stats

from keygap import random_streams

CONFIDENCE = 0.95
ENOUGH = 10  # clusters with the rarer outcome, from which a design effect is trusted
Clusters: TypeAlias = "Sequence[object] | np.ndarray"


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; NaN where there is nothing to measure.

    Attributes:
        value: the estimate.
        low: lower end of the interval.
        high: upper end of the interval.
        n: the number of observations.
    """

    value: float
    low: float
    high: float
    n: int


NOTHING = Interval(math.nan, math.nan, math.nan, 0)


def proportion(
    hits: Bool[np.ndarray, " n"] | Sequence[bool], clusters: Clusters | None = None
) -> Interval:
    """A proportion with a Wilson interval.

    With clusters the number of observations is divided by the design effect: the variance of the
    proportion between clusters over that of independent observations (Kish 1965). Where all
    observations agree no variance can be estimated, and each cluster counts as one observation.
    Where 1 to 9 clusters have the rarer outcome the estimate is poor: one cluster with one hit
    looks like independent observations. So its weight is a tenth for each of these clusters, and
    the rest is the variance of one observation for each cluster.

    Args:
        hits: one for each observation.
        clusters: the cluster (the sample) of each observation; None if all are independent.
    """
    hit = np.asarray(hits, dtype=float)
    if not len(hit):
        return NOTHING
    value = float(hit.mean())
    low, high = wilson(value, _effective_size(hit, clusters))
    return Interval(value, low, high, len(hit))


def wilson(value: float, n: float) -> tuple[float, float]:
    """The Wilson (1927) score interval of a proportion.

    Args:
        value: the proportion.
        n: the number of independent observations, which need not be whole.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    # rounding must not leave the observed value outside of its interval
    return min(value, max(0.0, centre - half)), max(value, min(1.0, centre + half))


def paired_proportions(
    one: Bool[np.ndarray, " n"],
    other: Bool[np.ndarray, " n"],
    clusters: Clusters | None = None,
) -> Interval:
    """The difference ``one`` - ``other`` of two proportions of the same samples.

    The interval is method 10 of Newcombe (1998, Statistics in Medicine 17, 2635), without its
    correction for continuity. With clusters it is built in the same way (Zou and Donner 2008,
    Statistics in Medicine 27, 1693) from the intervals of ``proportion`` and the correlation of the
    two proportions over clusters.

    Args:
        one: hits of each sample under one condition.
        other: hits of the same samples under the other.
        clusters: the cluster (the sample) of each observation; None if all are independent.
    """
    first, second = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    if not len(first):
        return NOTHING
    p, q = float(first.mean()), float(second.mean())
    p_low, p_high = wilson(p, _effective_size(first, clusters))
    q_low, q_high = wilson(q, _effective_size(second, clusters))
    phi = _correlation(first - p, second - q, clusters)
    below = (p - p_low, q_high - q)
    above = (p_high - p, q - q_low)
    low, high = (math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b)) for a, b in (below, above))
    return Interval(p - q, max(-1.0, p - q - low), min(1.0, p - q + high), len(first))


def mean(
    values: Float[np.ndarray, " n"],
    clusters: Clusters | None,
    n_bootstraps: int,
    seed: int,
) -> Interval:
    """A mean with a percentile interval over resamplings of whole clusters.

    Args:
        values: one for each observation; those that are NaN or infinite are left out.
        clusters: the cluster (the sample) of each observation; None if all are independent.
        n_bootstraps: the number of resamplings.
        seed: of the resamplings. Two means of the same clusters are resampled alike.
    """
    values = np.asarray(values, dtype=float)
    names = np.arange(len(values)) if clusters is None else np.asarray(clusters, dtype=object)
    kept = np.isfinite(values)
    if not kept.any():
        return NOTHING
    grouped = pd.Series(values[kept]).groupby(names[kept], sort=True)
    sums, sizes = grouped.sum().to_numpy(), grouped.size().to_numpy()
    value = float(values[kept].mean())
    if len(sums) == 1:
        return Interval(value, math.nan, math.nan, int(kept.sum()))
    rng = random_streams.generator(seed, "bias", "bootstrap")
    drawn = rng.integers(len(sums), size=(n_bootstraps, len(sums)))
    resampled = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, float(low), float(high), int(kept.sum()))


def jackknife_of_log(value: float, left_out: Float[np.ndarray, " n"]) -> Interval:
    """A positive number with a jackknife interval on the log scale, where a ratio is not skewed.

        log value +- t(n - 1) * sqrt((n - 1) / n * sum over samples of (log left_out - its mean)^2)

    Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 11.

    Args:
        value: the estimate of all samples.
        left_out: the estimate without each sample in turn.

    Returns:
        The interval; its ends are NaN with fewer than two samples, or where an estimate is not
        positive and finite.
    """
    n = len(left_out)
    known = np.isfinite(left_out).all() and (np.append(left_out, value) > 0).all()
    if n < 2 or not known:
        return Interval(value, math.nan, math.nan, n)
    error = math.sqrt((n - 1) * np.log(left_out).var())
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return Interval(value, value * math.exp(-half), value * math.exp(half), n)


def _effective_size(hit: Float[np.ndarray, " n"], clusters: Clusters | None) -> float:
    """The number of independent observations with the same variance of the proportion."""
    if clusters is None:
        return len(hit)
    value = hit.mean()
    names = np.asarray(clusters, dtype=object)
    sums = pd.Series(hit - value).groupby(names).sum().to_numpy()
    count = len(sums)
    if count == len(hit):
        return len(hit)
    independent = value * (1 - value) / len(hit)
    if count == 1 or not independent:
        return count
    between = float((sums**2).sum()) / len(hit) ** 2 * count / (count - 1)
    size = len(hit) * independent / between if between else math.inf
    size = min(max(size, 1.0), float(len(hit)))
    rarer = pd.Series(hit == float(value <= 0.5))
    known = min(1.0, int(rarer.groupby(names).any().sum()) / ENOUGH)
    return 1 / (known / size + (1 - known) / min(count, size)) if known < 1 else size


def _correlation(
    one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"], clusters: Clusters | None
) -> float:
    """The correlation of two means whose residuals are given; 0 where one of them is constant."""
    if clusters is not None:
        codes, names = pd.factorize(np.asarray(clusters, dtype=object))
        one, other = (np.bincount(codes, each, minlength=len(names)) for each in (one, other))
    spread = math.sqrt(float((one**2).sum()) * float((other**2).sum()))
    return float((one * other).sum()) / spread if spread else 0.0
