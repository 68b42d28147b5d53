"""Jensen-Shannon divergence between two sides, as a held-out classifier's lower bound.

If a fair coin chooses the side, JSD is the mutual information of side and vector. For any predicted
probability p of side x,

    JSD >= ln 2 + 1/2 E_x[log p(x)] + 1/2 E_y[log(1 - p(y))]        (nats, at most ln 2 = 0.693)

with equality if p is the true posterior (Goodfellow et al. 2014, theorem 1; Poole et al. 2019).
Estimates from histograms and from neighbours are badly biased in more than a few dimensions. The
bound is biased in one known direction only, provided that its terms come from samples that the
classifier never saw, that the critic is chosen and calibrated on inner folds of the training
samples, and that the sides and the samples of a side are balanced by weights (see ``held_out``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from keygap import random_streams
from keygap.display import brief
from keygap.errors import UserError
from keygap.gap.core.calibration import LN2, SATURATION, bound_terms
from keygap.gap.core.cautions import cautions
from keygap.gap.core.components import Components, pooled_components
from keygap.gap.core.critic import Critic
from keygap.gap.core.described import Described
from keygap.gap.core.held_out import (
    DEFAULT_CRITICS,
    MAX_VECTORS,
    NO_CRITIC,
    balanced_mean,
    held_out,
    named_critics,
)
from keygap.gap.core.inputs import Array, CheckedSides, Groups, check_level, thinned, two_sides
from keygap.gap.core.reading import Reading
from keygap.gap.core.statistic import Statistic

DEFAULT_DIMS = (2, 5, 10, 50)


@dataclass(frozen=True, repr=False)
class JSDResult(Described, title="Jensen-Shannon divergence"):
    """A lower bound of the Jensen-Shannon divergence.

    Attributes:
        nats: The bound, clipped to [0, ln 2].
        bits: The same in bits, in [0, 1].
        raw_nats: The bound before clipping. It is a little below 0 where there is no difference.
        ci: Confidence interval of ``nats``, clipped to [0, ln 2]; NaN without bootstraps.
        level: Confidence level of the interval.
        p_value: Of the prequential permutation test; 1 without permutations.
        estimator: Critic that won the most folds. "none" means that these critics found no bound,
            and not that the sides are equal: see the p-value of ``mmd``.
        wins: Number of folds that each critic won.
        nats_by_critic: Bound of each critic alone, before clipping. The network is missing where
            another critic saturates.
        dims: Number of principal components it was computed in.
        explained: Share of the pooled variance in these components.
        paired: Whether both sides hold the same samples.
        n_x: Number of vectors of x that were used.
        n_y: Number of vectors of y that were used.
        n_samples_x: Number of samples of x.
        n_samples_y: Number of samples of y.
        n_bootstraps: Number of bootstraps of whole samples.
        n_permutations: Number of label swaps.
        seed: Seed of every random draw.
        cautions: What makes interval or p-value doubtful (see ``core.cautions``).
    """

    nats: float
    bits: float
    raw_nats: float
    ci: tuple[float, float]
    level: float
    p_value: float
    estimator: str
    wins: dict[str, int]
    nats_by_critic: dict[str, float]
    dims: int
    explained: float
    paired: bool
    n_x: int
    n_y: int
    n_samples_x: int
    n_samples_y: int
    n_bootstraps: int
    n_permutations: int
    seed: int
    cautions: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return brief(f"JSDResult({self}; {self.n_samples_x} and {self.n_samples_y} samples)")

    @property
    def _notes(self) -> tuple[str, ...]:
        return (*((str(self),) if self.estimator == NO_CRITIC else ()), *self.cautions)

    def __str__(self) -> str:
        """The bound in words; where no critic won, that says nothing about other differences."""
        if self.estimator == NO_CRITIC:
            critics = ", ".join(self.nats_by_critic)
            return (
                f"no bound found by these critics ({critics}) in {self.dims} components; "
                "there may still be a difference: see the p-value of gap.mmd"
            )
        return (
            f"JSD >= {self.nats:.3f} nats ({self.level:.0%} interval {self.ci[0]:.3f} to "
            f"{self.ci[1]:.3f}) in {self.dims} components, by the {self.estimator} critic"
        )

    @property
    def readings(self) -> tuple[Reading, ...]:
        """``jsd``, the bound in nats."""
        return (
            Reading(
                "jsd",
                self.nats,
                "Jensen-Shannon divergence, a classifier's lower bound, nats (at most 0.693)",
                ci=self.ci,
                p_value=self.p_value if self.n_permutations else None,
                dims=self.dims,
                settings={
                    "estimator": self.estimator,
                    "explained": self.explained,
                    "paired": self.paired,
                    "n_permutations": self.n_permutations,
                    "level": self.level,
                },
            ),
        )


@dataclass(frozen=True, repr=False)
class JSDProfile(Described, title="Jensen-Shannon divergence by number of principal components"):
    """JSD by number of principal components, and where it stops telling contrasts apart.

    Attributes:
        results: One result for each number of components, in ascending order.
        dims: Those numbers.
        unavailable: Default numbers of components that these vectors do not have.
        saturates_at: First number of components with at least 0.95 ln 2 nats; None: there is none.
    """

    results: tuple[JSDResult, ...]
    dims: tuple[int, ...]
    unavailable: tuple[int, ...]
    saturates_at: int | None

    @property
    def _source(self) -> object:
        return self.results[0]

    @property
    def _notes(self) -> tuple[str, ...]:
        at = self.saturates_at
        where = (
            [f"saturated from {at} components on: larger gaps read the same there"] if at else []
        )
        nothing = [str(result) for result in self.results if result.estimator == NO_CRITIC]
        return (*where, *nothing, *self.cautions)

    @property
    def cautions(self) -> tuple[str, ...]:
        """What makes the intervals doubtful, which is the same for every number of components."""
        return self.results[0].cautions

    @property
    def readings(self) -> tuple[Reading, ...]:
        """``jsd`` in every number of components, with the first one at which it saturates."""
        saturates_at = {"saturates_at": self.saturates_at}
        return tuple(
            replace(reading, settings={**reading.settings, **saturates_at})
            for result in self.results
            for reading in result.readings
        )


def jsd(
    x: Array,
    y: Array,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    dims: int | None = None,
    paired: bool | None = None,
    critics: Sequence[str] = DEFAULT_CRITICS,
    max_vectors: int = MAX_VECTORS,
    n_permutations: int = 1000,
    n_bootstraps: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> JSDResult:
    """Lower bound of the JSD between two sides, with interval and permutation p-value.

    Its cost is O(K^2 (n + m) k^2) for K folds and k components.

    Args:
        x: Vectors of the first side, shape (n, d), numpy or torch.
        y: Vectors of the second side, shape (m, d).
        groups_x: Sample id of each row of ``x``; None: every row is a sample of its own.
        groups_y: Sample id of each row of ``y``.
        dims: Number of principal components, which are fitted to both sides, balanced, without
            labels. None: all that have variance.
        paired: Whether both sides hold the same samples; None: decided by the ids, as in ``mmd``.
        critics: Names of the critics that compete: "linear", "quadratic", "spline", "network",
            "boosted" (see ``core.critics``).
        max_vectors: Limit of vectors on each side. If there are more, a seeded selection takes them
            from the samples in turn.
        n_permutations: Number of label swaps of the prequential test (see ``core.prequential``).
        n_bootstraps: Number of bootstraps of whole samples over their held-out terms, for the
            percentile interval. The critics stay fixed, so it is an interval of the bound and not
            of the unknown JSD.
        level: Confidence level of the interval.
        seed: Seed of selection, folds, bootstraps and permutations.

    Returns:
        The bound and what it depends on.

    Raises:
        UserError: Bad vectors or ids (see ``core.inputs.two_sides``), ``dims`` beyond what the
            vectors have, or an unknown critic.
    """
    draws = _Draws(n_permutations, n_bootstraps, level, seed)
    competing = named_critics(critics)
    sides = thinned(two_sides(x, y, groups_x, groups_y, paired), max_vectors, seed)
    found = pooled_components(sides, dims)
    return _bound(sides, found, found.available, competing, draws)


def jsd_profile(
    x: Array,
    y: Array,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    dims: Sequence[int] | None = None,
    paired: bool | None = None,
    critics: Sequence[str] = DEFAULT_CRITICS,
    max_vectors: int = MAX_VECTORS,
    n_permutations: int = 1000,
    n_bootstraps: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> JSDProfile:
    """``jsd`` in several numbers of principal components, with one set of components and folds.

    Args:
        x: Vectors of the first side, shape (n, d), numpy or torch.
        y: Vectors of the second side, shape (m, d).
        groups_x: Sample id of each row of ``x``; None: every row is a sample of its own.
        groups_y: Sample id of each row of ``y``.
        dims: Numbers of components. None: those of 2, 5, 10 and 50 that the vectors have.
        paired: As in ``jsd``, like all that follow.
        critics: Names of the critics that compete.
        max_vectors: Limit of vectors on each side.
        n_permutations: Number of label swaps.
        n_bootstraps: Number of bootstraps.
        level: Confidence level of the intervals.
        seed: Seed of every random draw.

    Returns:
        One result for each number of components.

    Raises:
        UserError: As ``jsd``; or there is no number of components to compute it in.
    """
    draws = _Draws(n_permutations, n_bootstraps, level, seed)
    competing = named_critics(critics)
    sides = thinned(two_sides(x, y, groups_x, groups_y, paired), max_vectors, seed)
    if dims is None:
        limit = min(max(DEFAULT_DIMS), sides.x.shape[1], len(sides.pooled) - 1)
        found = pooled_components(sides, limit, allow_fewer=True)
        wanted = tuple(dim for dim in DEFAULT_DIMS if dim <= found.available)
        unavailable = tuple(dim for dim in DEFAULT_DIMS if dim > found.available)
    else:
        found = pooled_components(sides, max(dims, default=1))
        wanted, unavailable = tuple(sorted(dims)), ()
    if not wanted:
        raise UserError(
            f"no dims to compute the profile in: name some, of at most {found.available} components"
        )
    results = tuple(_bound(sides, found, dim, competing, draws) for dim in wanted)
    saturated = [result.dims for result in results if result.nats >= SATURATION * LN2]
    return JSDProfile(results, wanted, unavailable, saturated[0] if saturated else None)


@dataclass(frozen=True)
class _Draws:
    """How often and from which seed to resample."""

    n_permutations: int
    n_bootstraps: int
    level: float
    seed: int

    def __post_init__(self) -> None:
        check_level(self.level)


def _bound(
    sides: CheckedSides,
    components: Components,
    dims: int,
    critics: Sequence[Critic],
    draws: _Draws,
) -> JSDResult:
    """The bound in the first ``dims`` components."""
    rng = random_streams.generator(draws.seed, "jsd", "folds and label swaps")
    rng_bootstrap = random_streams.generator(draws.seed, "jsd", "bootstraps")
    z = components.scores[:, :dims]
    found = held_out(sides, z, critics, draws.n_permutations, rng, draws.seed)
    terms = bound_terms(found.logits, sides.is_x)
    raw, ci = balanced_mean(terms, sides, draws.n_bootstraps, draws.level, rng_bootstrap)
    nats = _clipped(raw)
    return JSDResult(
        cautions=cautions(sides),
        nats=nats,
        bits=nats / LN2,
        raw_nats=raw,
        ci=(_clipped(ci[0]), _clipped(ci[1])),
        level=draws.level,
        p_value=found.p_value,
        estimator=found.winner,
        wins=found.wins,
        nats_by_critic=_weighted_bounds(sides, found.logits_by_critic),
        dims=dims,
        explained=float(components.explained[:dims].sum()),
        paired=sides.paired,
        n_x=len(sides.x),
        n_y=len(sides.y),
        n_samples_x=sides.n_samples_x,
        n_samples_y=sides.n_samples_y,
        n_bootstraps=draws.n_bootstraps,
        n_permutations=draws.n_permutations,
        seed=draws.seed,
    )


def _weighted_bounds(
    sides: CheckedSides, logits: dict[str, Float[np.ndarray, " n+m"]]
) -> dict[str, float]:
    return {
        name: float(sides.weights @ bound_terms(of_critic, sides.is_x))
        for name, of_critic in logits.items()
    }


def _clipped(nats: float) -> float:
    return min(max(nats, 0.0), LN2)


STATISTIC = Statistic(
    what="Jensen-Shannon divergence: a held-out classifier's lower bound, by number of components",
    compute=lambda x, y, sides: jsd_profile(
        x,
        y,
        *sides.groups,
        dims=sides.dims,
        n_permutations=0,  # testing every comparison would cost more than the bound
        n_bootstraps=sides.n_bootstraps,
        seed=sides.seed,
    ),
    scope="ladder",
)
