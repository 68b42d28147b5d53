"""Maximum mean discrepancy (MMD) between two sides whose vectors come in samples.

The estimate has to state its kernel, to be unbiased although vectors of one sample resemble each
other, and to have a valid p-value and an interval, for 100,000 vectors at the price of one pass
over the kernel. So everything is computed from one small matrix, the mean kernel between every two
(side, sample) cells (``core.kernels``). On this matrix a label swap is a vector of signs and a
bootstrap is a vector of multiplicities (``core.resampling``).

With mu_s^x the mean embedding of the vectors of sample s on side x, every sample has the same
weight whatever its number of vectors, and pairs of one sample are left out:

    paired     D_s = mu_s^x - mu_s^y,   MMD^2 = mean over s != t of <D_s, D_t>
    unpaired   MMD^2 = mean_{s != s'} <mu_s^x, mu_s'^x> + mean_{t != t'} <mu_t^y, mu_t'^y>
                       - 2 mean_{s, t} <mu_s^x, mu_t^y>

This is lemma 6 of Gretton et al. 2012, "A Kernel Two-Sample Test" (JMLR 13), with samples in place
of points. Published work often has the biased estimator (their equation 5) instead, which keeps all
pairs. It is the squared distance of the two means of the mu_s, and exceeds MMD^2 on average by the
variance of these two means (paired: by that of the mean of D_s).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float

from keygap import random_streams
from keygap.errors import UserError, unknown
from keygap.gap.core import kernels
from keygap.gap.core.cautions import cautions
from keygap.gap.core.described import Described
from keygap.gap.core.gaussian import LABEL_SWAPS, gaussian_totals
from keygap.gap.core.inputs import Array, CheckedSides, Groups, check_level, two_sides
from keygap.gap.core.median import median_distance
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import PairSums, PairTotals, central_band, p_value, root_or_zero
from keygap.gap.core.sides import Sides
from keygap.gap.core.statistic import Statistic, or_error

Kernel = Literal["gaussian", "linear", "energy"]
Estimator = Literal["unbiased", "biased"]
LEVEL = 0.95


@dataclass(frozen=True, repr=False)
class MMDResult(Described, title="Maximum mean discrepancy of two sides"):
    """MMD between two sides, its uncertainty, and what it reads without a difference.

    ``mmd2`` has the units of the kernel. Gaussian: no unit, at most 2. Linear: squared units of the
    vectors, and ``mmd`` is the distance of the two means. Energy: units of the vectors, and
    ``mmd2`` is the energy distance.

    Attributes:
        mmd2: MMD squared. The unbiased estimate is sometimes negative.
        mmd: sqrt(max(mmd2, 0)).
        ci: Confidence interval of ``mmd2``; biased: of its expected value, which has the bias.
        level: Confidence level of the interval and share of the null band.
        p_value: Permutation p-value; 1 without permutations.
        kernel: Name of the kernel.
        estimator: "unbiased" or "biased"; all values of MMD squared here are by this estimator.
        bandwidth: Median distance, or the one bandwidth that was given; None: several were given,
            or the kernel has none.
        bandwidths: Sigma of each kernel of the grid, in descending order.
        mmd2_by_bandwidth: MMD squared of each of them.
        paired: Whether both sides hold the same samples.
        n_x: Number of vectors of x.
        n_y: Number of vectors of y.
        n_samples_x: Number of samples of x.
        n_samples_y: Number of samples of y.
        n_permutations: Number of label swaps.
        n_bootstraps: Number of bootstraps.
        seed: Seed of every random draw.
        null: ``mmd2`` under each label swap.
        bootstraps: ``mmd2`` of each bootstrap of whole samples.
        without: ``mmd2`` without each sample, by its id; empty for unpaired sides.
        cautions: What makes interval or p-value doubtful (see ``core.cautions``).
    """

    mmd2: float
    mmd: float
    ci: tuple[float, float]
    level: float
    p_value: float
    kernel: str
    estimator: str
    bandwidth: float | None
    bandwidths: tuple[float, ...]
    mmd2_by_bandwidth: tuple[float, ...]
    paired: bool
    n_x: int
    n_y: int
    n_samples_x: int
    n_samples_y: int
    n_permutations: int
    n_bootstraps: int
    seed: int
    null: Float[np.ndarray, " permutations"] = field(compare=False)
    bootstraps: Float[np.ndarray, " bootstraps"] = field(compare=False)
    without: dict[Hashable, float] = field(compare=False)
    cautions: tuple[str, ...] = ()

    @property
    def null_band(self) -> tuple[float, float]:
        """Band of the central ``level`` share of ``null``; (mmd2, mmd2) without swaps."""
        if not len(self.null):
            return self.mmd2, self.mmd2
        return central_band(self.null, self.level)

    @property
    def readings(self) -> tuple[Reading, ...]:
        """``mmd2`` and its root ``mmd``."""
        swapped = len(self.null) > 0
        p = self.p_value if swapped else None
        band = self.null_band if swapped else None
        settings = {
            "kernel": self.kernel,
            "estimator": self.estimator,
            "bandwidth": self.bandwidth,
            "paired": self.paired,
            "n_permutations": self.n_permutations,
            "level": self.level,
        }
        return (
            Reading(
                "mmd2",
                self.mmd2,
                f"MMD squared, {self.estimator}: squared distance of the mean embeddings",
                ci=self.ci,
                null=float(self.null.mean()) if swapped else None,
                null_band=band,
                p_value=p,
                settings=settings,
            ),
            Reading(
                "mmd",
                self.mmd,
                "root of MMD squared, 0 where that is negative",
                ci=_roots(self.ci),
                null=float(np.sqrt(self.null.clip(min=0.0)).mean()) if swapped else None,
                null_band=_roots(band) if band else None,
                p_value=p,
                settings=settings,
            ),
        )


def mmd(
    x: Array,
    y: Array,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    paired: bool | None = None,
    kernel: Kernel = "gaussian",
    bandwidth: float | Sequence[float] | None = None,
    estimator: Estimator = "unbiased",
    n_permutations: int = 1000,
    n_bootstraps: int = 1000,
    level: float = LEVEL,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> MMDResult:
    """MMD^2 between two sides, with interval and permutation p-value.

    Time is O((n + m)^2 d / 2 + (permutations + bootstraps) S^2) for S samples. Memory is O(S^2)
    beyond the data.

    Args:
        x: Vectors of the first side, shape (n, d), numpy or torch.
        y: Vectors of the second side, shape (m, d).
        groups_x: Sample id of each row of ``x``; None: every row is a sample of its own.
        groups_y: Sample id of each row of ``y``.
        paired: None: paired if and only if both sides hold the same set of ids, such as image and
            text tokens of the same samples. The null distribution of paired sides exchanges the two
            labels within samples; that of unpaired sides deals whole samples to the sides.
        kernel: "gaussian": exp(-|a - b|^2 / (2 sigma^2)), averaged over a grid of bandwidths sigma.
            "linear": <a, b>. "energy": -|a - b|, for which MMD^2 is the energy distance
            2 E|X - Y| - E|X - X'| - E|Y - Y'|.
        bandwidth: One sigma or several, in units of the vectors. None: the median distance between
            vectors (see ``core.median.median_distance``), times 2, sqrt 2, 1, 1 / sqrt 2 and 1/2.
        estimator: "unbiased": pairs of vectors of one sample are left out. "biased": the
            V-statistic, for comparison with published work. It keeps them, and every vector with
            itself, and is never negative. ``null``, ``bootstraps``, ``without`` and ``ci`` are then
            those of the V-statistic: the null is centred on the bias, the bootstraps contain the
            bias twice, and the interval covers MMD^2 plus the bias. Unless MMD^2 is well above the
            bias, the interval covers MMD^2 less often than stated, so judge a gap by the unbiased
            estimate. Both have one p-value for paired sides, and for unpaired sides with equal
            numbers of samples. For other sides the biased test holds its level only if the samples
            of both have about as many vectors (see docs/statistics.md).
        n_permutations: Number B of label swaps; p = (1 + b) / (1 + B), where b of them are at or
            above ``mmd2``.
        n_bootstraps: Number of bootstraps of whole samples, which are in ``bootstraps``. Equal
            samples and an equal seed give joint draws.
        level: Confidence level of the interval, a jackknife over samples (see
            ``PairTotals.interval``).
        seed: Seed of the median's pairs, the swaps and the bootstraps.
        device: Where the kernel is evaluated, "cpu" or "cuda"; None: a GPU if there is one.

    Returns:
        The estimate and what it depends on.

    Raises:
        UserError: Bad vectors or ids (see ``core.inputs.two_sides``), vectors that are all equal,
            an unknown kernel or estimator, or a bandwidth that is not positive or that the kernel
            does not have.
    """
    _check_kernel(kernel, bandwidth)
    if estimator not in get_args(Estimator):
        raise unknown("estimator", estimator, get_args(Estimator))
    biased = estimator == "biased"
    check_level(level)
    sides = two_sides(x, y, groups_x, groups_y, paired)
    kernels.check_cells(sides)
    draws = _Draws(n_permutations, n_bootstraps, level, seed)
    return _result(sides, _evaluate(sides, kernel, bandwidth, device, biased, draws), kernel, draws)


@dataclass(frozen=True)
class _Draws:
    """How often and from which seed to resample."""

    n_permutations: int
    n_bootstraps: int
    level: float
    seed: int


def _result(sides: CheckedSides, evaluated: _Evaluated, kernel: Kernel, draws: _Draws) -> MMDResult:
    """The estimate and its uncertainty, from the sums over pairs of samples."""
    totals, null = evaluated.totals, evaluated.null
    observed = totals.statistic()
    without: dict[Hashable, float] = {}
    if sides.paired:
        without = dict(zip(sides.names_x, totals.without()[0].tolist(), strict=True))
    return MMDResult(
        cautions=cautions(sides),
        mmd2=observed,
        mmd=root_or_zero(observed),
        ci=totals.interval(draws.level),
        level=draws.level,
        p_value=p_value(observed, null),
        kernel=kernel,
        estimator="biased" if totals.biased else "unbiased",
        bandwidth=evaluated.bandwidth,
        bandwidths=evaluated.bandwidths,
        mmd2_by_bandwidth=evaluated.mmd2_by_bandwidth,
        paired=sides.paired,
        n_x=len(sides.x),
        n_y=len(sides.y),
        n_samples_x=sides.n_samples_x,
        n_samples_y=sides.n_samples_y,
        n_permutations=draws.n_permutations,
        n_bootstraps=draws.n_bootstraps,
        seed=draws.seed,
        null=null,
        bootstraps=evaluated.bootstraps,
        without=without,
    )


def _check_kernel(kernel: str, bandwidth: float | Sequence[float] | None) -> None:
    if kernel not in get_args(Kernel):
        raise unknown("kernel", kernel, get_args(Kernel))
    if kernel != "gaussian" and bandwidth is not None:
        raise UserError(f"the {kernel} kernel has no bandwidth: leave it out")


@dataclass(frozen=True)
class _Evaluated:
    """What a kernel gives on two sides; other fields than ``totals`` are those of ``MMDResult``."""

    totals: PairTotals
    null: Float[np.ndarray, " permutations"]
    bootstraps: Float[np.ndarray, " bootstraps"]
    bandwidth: float | None = None
    bandwidths: tuple[float, ...] = ()
    mmd2_by_bandwidth: tuple[float, ...] = ()


def _evaluate(
    sides: CheckedSides,
    kernel: Kernel,
    bandwidth: float | Sequence[float] | None,
    device: str | torch.device | None,
    biased: bool,
    draws: _Draws,
) -> _Evaluated:
    centre: float | None = None
    sigmas: tuple[float, ...] = ()
    by_bandwidth = np.empty(0)
    if kernel == "linear":
        means = kernels.linear_means(sides)
    elif kernel == "energy":
        means = kernels.energy_means(sides, device)
    else:
        centre, sigmas = _bandwidths(sides, bandwidth, draws.seed)
        means, by_bandwidth = kernels.gaussian_means(sides, sigmas, device, biased=biased)
    sums = PairSums.from_cells(means, sides, biased=biased)
    rng_null = random_streams.generator(draws.seed, *LABEL_SWAPS)
    rng_bootstrap = random_streams.generator(draws.seed, "mmd", "bootstraps")
    null = sums.swapped(draws.n_permutations, rng_null)
    bootstraps = sums.bootstraps(draws.n_bootstraps, rng_bootstrap)
    return _Evaluated(sums.totals, null, bootstraps, centre, sigmas, tuple(by_bandwidth.tolist()))


def _bandwidths(
    sides: CheckedSides, given: float | Sequence[float] | None, seed: int
) -> tuple[float | None, tuple[float, ...]]:
    """The bandwidth that names the grid, if there is one, and the grid in descending order."""
    if given is None:
        median = median_distance(sides, seed)
        return median, kernels.grid_around(median)
    sigmas = tuple(sorted(np.atleast_1d(np.asarray(given, dtype=float)).tolist(), reverse=True))
    if not sigmas or not all(math.isfinite(sigma) and sigma > 0 for sigma in sigmas):
        raise UserError(f"bandwidth is {given}: give positive numbers, in the vectors' units")
    return (sigmas[0] if len(sigmas) == 1 else None), sigmas


def _roots(band: tuple[float, float]) -> tuple[float, float]:
    return root_or_zero(band[0]), root_or_zero(band[1])


def _compute(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], sides: Sides) -> MMDResult:
    return mmd(
        x,
        y,
        *sides.groups,
        n_permutations=sides.n_permutations,
        n_bootstraps=0,  # the interval is a jackknife
        seed=sides.seed,
    )


def _together(heads: Sequence[Sides]) -> list[MMDResult | UserError]:
    """Compute the MMD of several heads in one pass over the kernel.

    The pass keeps only the sum over bandwidths, so ``mmd2_by_bandwidth`` is empty.
    """

    def checked(sides: Sides) -> tuple[CheckedSides, float]:
        found = two_sides(*sides.standardised, *sides.groups)
        return found, median_distance(found, sides.seed)

    prepared = [or_error(checked, sides) for sides in heads]
    usable = [
        (one, sides)
        for one, sides in zip(prepared, heads, strict=True)
        if not isinstance(one, UserError)
    ]
    # the joint kernel is a product of kernels of the heads, so one pass needs every head
    passes = [usable] if len(usable) == len(heads) else [[one] for one in usable]
    results = iter([result for group in passes for result in _in_one_pass(group)])
    return [one if isinstance(one, UserError) else next(results) for one in prepared]


def _in_one_pass(heads: Sequence[tuple[tuple[CheckedSides, float], Sides]]) -> list[MMDResult]:
    """The MMD of sides that were checked, each with its median distance and its options."""
    checked, options = zip(*heads, strict=True)
    grids = [kernels.grid_around(median) for _, median in checked]
    swaps = [sides.n_permutations for sides in options]
    found = gaussian_totals([sides for sides, _ in checked], grids, swaps, options[0].seed)
    return [
        _result(
            sides,
            _Evaluated(one.totals, one.null, np.empty(0), median, grid),
            "gaussian",
            _Draws(own.n_permutations, 0, LEVEL, own.seed),
        )
        for (sides, median), own, grid, one in zip(checked, options, grids, found, strict=True)
    ]


STATISTIC = Statistic(
    what="maximum mean discrepancy: distance of the mean embeddings under a Gaussian kernel",
    compute=_compute,
    scope="ladder",
    together=_together,
)
