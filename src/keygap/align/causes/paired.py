"""Differences of points, paired by sample, and their joint resamplings.

The points of the experiment have the same samples, so a difference of two points is taken within
each sample and phrasing. Samples are the units: all phrasings of a sample are kept or dropped
together, and every difference uses the same resamplings, so that a ratio of two differences has the
interval of the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats

from keygap import random_streams
from keygap.bias.intervals import CONFIDENCE, wilson


@dataclass(frozen=True)
class Estimate:
    """A mean over samples.

    Attributes:
        value: the mean; NaN where no sample has the outcome.
        low: lower end of its 95 % interval.
        high: upper end of it.
        std_error: standard error over samples.
        p_value: two-sided, of a mean of 0 (Student's t over samples), not adjusted.
        n: the number of samples.
        drawn: the mean in every resampling.
    """

    value: float
    low: float
    high: float
    std_error: float
    p_value: float
    n: int
    drawn: Float[np.ndarray, " B"]


@dataclass(frozen=True)
class Outcome:
    """One outcome of all points, paired by sample and phrasing.

    Attributes:
        values: the outcome; NaN where a point lacks a pair.
        sample: the sample of every pair, as a number.
        columns: the column of every point.
        draws: how often each sample is in each resampling.
        is_share: whether values are 0 or 1.
        n_variants: how many phrasings there are.
    """

    values: Float[np.ndarray, "pairs points"]
    sample: Int[np.ndarray, " pairs"]
    columns: Mapping[str, int]
    draws: Float[np.ndarray, "B samples"]
    is_share: bool
    n_variants: int

    @classmethod
    def of(cls, samples: pd.DataFrame, name: str, n_bootstraps: int, seed: int) -> Outcome:
        """Bring one outcome of all points together.

        Args:
            samples: ``SAMPLE_COLUMNS``.
            name: the column of the outcome.
            n_bootstraps: resamplings of whole samples.
            seed: of the resamplings. Outcomes of the same samples are resampled alike.

        Raises:
            ValueError: a point has a sample and phrasing twice.
        """
        numbers = samples.assign(**{name: samples[name].astype(float)})
        wide = numbers.pivot(index=["sample_id", "variant"], columns="point", values=name)
        codes, ids = pd.factorize(wide.index.get_level_values("sample_id"), sort=True)
        rng = random_streams.generator(seed, "align", "causes", "bootstrap")
        chances = np.full(len(ids), 1 / max(1, len(ids)))
        draws = rng.multinomial(len(ids), chances, size=n_bootstraps).astype(float)
        n_variants = wide.index.get_level_values("variant").nunique()
        columns = {str(point): number for number, point in enumerate(wide.columns)}
        return cls(wide.to_numpy(float), codes, columns, draws, name == "followed", n_variants)

    def estimates(self, contrasts: Mapping[str, Mapping[str, float]]) -> dict[str, Estimate]:
        """Estimate linear combinations of points over the pairs that all of these points have.

        Args:
            contrasts: by name, the coefficient of every point.
        """
        points = list(dict.fromkeys(point for one in contrasts.values() for point in one))
        values = self.values[:, [self.columns[point] for point in points]]
        known = ~np.isnan(values).any(1)
        n_samples = self.draws.shape[1]
        sizes = np.bincount(self.sample[known], minlength=n_samples).astype(float)
        found = {}
        for name, coefficients in contrasts.items():
            weights = np.array([coefficients.get(point, 0.0) for point in points])
            differences = values[known] @ weights
            sums = np.bincount(self.sample[known], differences, minlength=n_samples)
            found[name] = self._estimate(sums, sizes)
        return found

    def means(self) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, "B points"]]:
        """The mean of every point over its own pairs, and the same in every resampling."""
        known = ~np.isnan(self.values)
        shape = (self.draws.shape[1], self.values.shape[1])
        sums, sizes = np.zeros(shape), np.zeros(shape)
        np.add.at(sums, self.sample, np.where(known, self.values, 0.0))
        np.add.at(sizes, self.sample, known.astype(float))
        with np.errstate(invalid="ignore"):
            return sums.sum(0) / sizes.sum(0), (self.draws @ sums) / (self.draws @ sizes)

    def spread(self, point: str) -> float:
        """The standard deviation over samples of the mean of a point; 0 for a single sample."""
        values = pd.Series(self.values[:, self.columns[point]])
        by_sample = values.groupby(self.sample).mean().dropna()
        return float(by_sample.std()) if len(by_sample) > 1 else 0.0

    def _estimate(
        self, sums: Float[np.ndarray, " samples"], sizes: Float[np.ndarray, " samples"]
    ) -> Estimate:
        """The mean over pairs, with its interval and its standard error over samples."""
        count = int((sizes > 0).sum())
        if not count:
            drawn = np.full(len(self.draws), math.nan)
            return Estimate(math.nan, math.nan, math.nan, math.nan, math.nan, 0, drawn)
        value = float(sums.sum() / sizes.sum())
        with np.errstate(invalid="ignore"):
            drawn = (self.draws @ sums) / (self.draws @ sizes)
        if count == 1:
            return Estimate(value, math.nan, math.nan, math.nan, math.nan, 1, drawn)
        ends = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
        low, high = (float(end) for end in np.nanquantile(drawn, ends))
        residuals = (sums - value * sizes) * count / sizes.sum()  # of a ratio, linearised
        std_error = math.sqrt(float((residuals**2).sum()) / (count * (count - 1)))
        alike = std_error < 1e-12  # apart from rounding
        if alike and self.is_share:
            most = wilson(0.0, count)[1]  # the share of samples that could differ from these
            low, high = max(-1.0, value - most), min(1.0, value + most)
        if alike:
            p_value = 1.0 if abs(value) < 1e-12 else 0.0
        else:
            p_value = float(2 * stats.t.sf(abs(value) / std_error, count - 1))
        return Estimate(value, low, high, std_error, p_value, count, drawn)
