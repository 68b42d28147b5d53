"""Maximum mean discrepancy (MMD) between two sides whose vectors come in samples.

It must be a number with a stated kernel, unbiased although vectors of one sample resemble each
other, with a valid p-value and an interval, for 100,000 vectors, at the price of one pass over the
kernel. So everything is computed from one small matrix: the mean kernel between every two
(side, sample) cells (`kernels.py`), on which a label swap is a sign vector and a bootstrap a vector
of multiplicities (`resampling.py`).

With mu_s^x the mean embedding of the vectors of sample s on side x, every sample weighs the same
whatever its count, and pairs of the same sample are always left out:

    paired     D_s = mu_s^x - mu_s^y,   MMD^2 = mean over s != t of <D_s, D_t>
    unpaired   MMD^2 = mean_{s != s'} <mu_s^x, mu_s'^x> + mean_{t != t'} <mu_t^y, mu_t'^y>
                       - 2 mean_{s, t} <mu_s^x, mu_t^y>

Gretton et al. 2012, "A Kernel Two-Sample Test" (JMLR 13), lemma 6, with samples in place of points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from keygap.errors import UserError, unknown
from keygap.gap.core import kernels
from keygap.gap.core.inputs import Groups, Vectors, check_level, two_sides
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import PairSums, p_value
from keygap.gap.core.statistic import Statistic

Kernel = Literal["gaussian", "linear", "energy"]


@dataclass(frozen=True)
class MMDResult:
    """MMD between two sides, how sure it is, and what it would be without a gap.

    mmd2 is unbiased and therefore negative now and then; mmd = sqrt(max(mmd2, 0)). Units: those of
    the kernel (Gaussian: none, at most 2; linear: squared units of the vectors, and then mmd is
    the distance of the two means; energy: units of the vectors, mmd2 is the energy distance).
    """

    mmd2: float
    mmd: float
    ci: tuple[float, float]  # of mmd2
    level: float
    p_value: float
    kernel: str
    bandwidth: float | None  # median distance, or the one given; None without bandwidths
    bandwidths: tuple[float, ...]  # sigma of each kernel of the grid, descending
    mmd2_by_bandwidth: tuple[float, ...]
    paired: bool
    n_x: int
    n_y: int
    n_samples_x: int
    n_samples_y: int
    n_permutations: int
    n_bootstraps: int
    seed: int
    null: Float[np.ndarray, " permutations"] = field(repr=False, compare=False)
    bootstraps: Float[np.ndarray, " bootstraps"] = field(repr=False, compare=False)
    without: dict[Hashable, float] = field(repr=False, compare=False)  # each sample; paired only

    @property
    def null_band(self) -> tuple[float, float]:
        """Where `level` of the values under label swaps lie; (mmd2, mmd2) without swaps."""
        if not len(self.null):
            return self.mmd2, self.mmd2
        low, high = np.quantile(self.null, [(1 - self.level) / 2, (1 + self.level) / 2])
        return float(low), float(high)

    @property
    def readings(self) -> tuple[Reading, ...]:
        """``mmd2`` and its root ``mmd``."""
        swapped = len(self.null) > 0
        band = self.null_band if swapped else None
        settings = {
            "kernel": self.kernel,
            "bandwidth": self.bandwidth,
            "paired": self.paired,
            "n_permutations": self.n_permutations,
            "level": self.level,
        }
        return (
            Reading(
                "mmd2",
                self.mmd2,
                "MMD squared, unbiased: squared distance of the mean embeddings",
                ci=self.ci,
                null=float(self.null.mean()) if swapped else None,
                null_band=band,
                p_value=self.p_value if swapped else None,
                settings=settings,
            ),
            Reading(
                "mmd",
                self.mmd,
                "root of MMD squared, 0 where that is negative",
                ci=(_root(self.ci[0]), _root(self.ci[1])),
                null=float(np.sqrt(self.null.clip(min=0.0)).mean()) if swapped else None,
                null_band=(_root(band[0]), _root(band[1])) if band else None,
                p_value=self.p_value if swapped else None,
                settings=settings,
            ),
        )


def mmd(
    x: Vectors,
    y: Vectors,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    paired: bool | None = None,
    kernel: Kernel = "gaussian",
    bandwidth: float | Sequence[float] | None = None,
    n_permutations: int = 1000,
    n_bootstraps: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> MMDResult:
    """Unbiased MMD^2 between x (n, d) and y (m, d), with interval and permutation p-value.

    Args:
        x: Vectors of one side, (n, d), numpy or torch.
        y: Vectors of the other, (m, d).
        groups_x: Sample id of each row of x; None: every row is a sample of its own.
        groups_y: Sample id of each row of y.
        paired: None: paired if and only if both sides hold the same set of ids (image and text
            tokens of the same samples). Paired, the null swaps the two labels within samples;
            unpaired, it deals whole samples to the sides.
        kernel: "gaussian": exp(-|a - b|^2 / (2 sigma^2)), the mean over a grid of bandwidths sigma.
            "linear": <a, b>, so mmd is the distance between means. "energy": -|a - b|, so mmd2 is
            the energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'|.
        bandwidth: None: sigma is the median distance between vectors of a balanced, seeded
            subsample of both sides, times 2, sqrt 2, 1, 1 / sqrt 2, 1/2. A number: that sigma
            alone. Several: those sigmas.
        n_permutations: Label swaps B; p = (1 + b) / (1 + B), b of them at or above mmd2.
        n_bootstraps: Bootstraps of whole samples, in `.bootstraps` (the same samples and seed
            make joint draws).
        level: Of the interval: leave-one-sample-out, Student (see `PairSums.interval`).
        seed: Of the median's subsample, the swaps and the bootstraps.
        device: Where the kernel is evaluated, "cpu" or "cuda"; None: a GPU if there is one.

    Raises:
        UserError: bad vectors or ids (see `inputs.two_sides`), vectors that are all equal, an
            unknown kernel, a bandwidth that is not positive or that the kernel has not.

    Time O((n + m)^2 d / 2 + (permutations + bootstraps) S^2), memory O(S^2) above the data.
    """
    if kernel not in ("gaussian", "linear", "energy"):
        raise unknown("kernel", kernel, ("gaussian", "linear", "energy"))
    check_level(level)
    if kernel != "gaussian" and bandwidth is not None:
        raise UserError(f"the {kernel} kernel has no bandwidth: leave it out")
    sides = two_sides(x, y, groups_x, groups_y, paired)
    kernels.check_cells(sides)

    sigmas: tuple[float, ...] = ()
    median: float | None = None
    if kernel == "gaussian":
        median, sigmas = _bandwidths(bandwidth, lambda: kernels.median_distance(sides, seed))
        means, by_bandwidth = kernels.gaussian_means(sides, sigmas, device)
    elif kernel == "linear":
        means, by_bandwidth = kernels.linear_means(sides), np.empty(0)
    else:
        means, by_bandwidth = kernels.energy_means(sides, device), np.empty(0)

    sums = PairSums.from_cells(means, sides)
    observed = sums.statistic()
    # Two streams: the draws of one do not depend on how many the other makes.
    rng_null, rng_bootstrap = np.random.default_rng(seed).spawn(2)
    null = sums.swapped(n_permutations, rng_null)
    without: dict[Hashable, float] = {}
    if sides.paired:
        without = dict(zip(sides.names_x, sums.without()[0].tolist(), strict=True))
    return MMDResult(
        mmd2=observed,
        mmd=_root(observed),
        ci=sums.interval(level),
        level=level,
        p_value=p_value(observed, null),
        kernel=kernel,
        bandwidth=median,
        bandwidths=sigmas,
        mmd2_by_bandwidth=tuple(float(value) for value in by_bandwidth),
        paired=sides.paired,
        n_x=len(sides.x),
        n_y=len(sides.y),
        n_samples_x=sides.n_samples_x,
        n_samples_y=sides.n_samples_y,
        n_permutations=n_permutations,
        n_bootstraps=n_bootstraps,
        seed=seed,
        null=null,
        bootstraps=sums.bootstraps(n_bootstraps, rng_bootstrap),
        without=without,
    )


def _root(squared: float) -> float:
    """Root of an unbiased squared distance, 0 where it is negative."""
    return math.sqrt(max(squared, 0.0))


def _bandwidths(
    given: float | Sequence[float] | None, median: Callable[[], float]
) -> tuple[float | None, tuple[float, ...]]:
    if given is None:
        centre = median()
        return centre, tuple(centre * factor for factor in kernels.GRID)
    sigmas = tuple(sorted(np.atleast_1d(np.asarray(given, dtype=float)).tolist(), reverse=True))
    if not sigmas or not all(math.isfinite(sigma) and sigma > 0 for sigma in sigmas):
        raise UserError(f"bandwidth is {given}: give positive numbers, in the vectors' units")
    return (sigmas[0] if len(sigmas) == 1 else None), sigmas


STATISTIC = Statistic(
    what="maximum mean discrepancy: distance of the mean embeddings under a Gaussian kernel",
    compute=lambda x, y, sides: mmd(
        x,
        y,
        *sides.groups,
        n_permutations=sides.n_permutations,
        n_bootstraps=0,  # the interval is a jackknife
        seed=sides.seed,
    ),
    scope="ladder",
)
