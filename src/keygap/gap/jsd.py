"""Jensen-Shannon divergence between two sides, as a held-out classifier's lower bound.

If a fair coin chooses the side, JSD is the mutual information of side and vector. For any predicted
probability p of side x,

    JSD >= ln 2 + 1/2 E_x[log p(x)] + 1/2 E_y[log(1 - p(y))]        (nats, at most ln 2 = 0.693)

with equality if p is the true posterior (Goodfellow et al. 2014, theorem 1; Poole et al. 2019).
Estimates from histograms and from neighbours are badly biased in more than a few dimensions. The
bound is biased in one known direction only, provided that its terms come from samples that the
classifier never saw, that the critic is chosen and calibrated on inner folds of the training
samples, and that the sides and the samples of a side are balanced by weights (see ``held_out``).

Both sides are used with as many vectors as each other. The components are fitted to all vectors,
also those that are held out, and a sample draws them towards itself by the number and the weight of
its vectors. With unequal numbers, this alone told the sides apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Float

from keygap import random_streams
from keygap.errors import UserError
from keygap.gap.core.calibration import LN2, SATURATION, bound_terms
from keygap.gap.core.cautions import cautions
from keygap.gap.core.components import Components, pooled_components
from keygap.gap.core.critic import Critic
from keygap.gap.core.cross_validation import Task
from keygap.gap.core.held_out import (
    DEFAULT_CRITICS,
    MAX_VECTORS,
    Draws,
    HeldOut,
    drawn_samples,
    held_out_together,
    mean_with_interval,
    named_critics,
)
from keygap.gap.core.inputs import (
    Array,
    CheckedSides,
    Groups,
    check_level,
    two_sides,
    with_equal_numbers,
)
from keygap.gap.core.sides import Sides
from keygap.gap.core.statistic import Statistic, or_error
from keygap.gap.jsd_results import JSDProfile, JSDResult

DEFAULT_DIMS = (2, 5, 10, 50)
LEVEL = 0.95


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
    level: float = LEVEL,
    seed: int = 0,
) -> JSDResult:
    """Lower bound of the JSD between two sides, with interval and permutation p-value.

    Its cost is O(K^2 (n + m) k^2) for K folds and k components.

    Args:
        x: Vectors of the first side, shape (n, d), numpy or torch.
        y: Vectors of the second side, shape (m, d).
        groups_x: Sample id of each row of ``x``; None: every row is a sample of its own.
        groups_y: Sample id of each row of ``y``.
        dims: Number of principal components, which are fitted to both sides without labels. None:
            all that have variance.
        paired: Whether both sides hold the same samples; None: decided by the ids, as in ``mmd``.
        critics: Names of the critics that compete: "linear", "quadratic", "spline", "network",
            "boosted" (see ``core.critics``).
        max_vectors: Limit of vectors on each side. As many are used of each side, chosen at random
            by the seed from its samples in turn.
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
    sides = with_equal_numbers(two_sides(x, y, groups_x, groups_y, paired), max_vectors, seed)
    found = pooled_components(sides, dims)
    return _bounds([_Space(sides, found, found.available)], competing, draws)[0]


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
    level: float = LEVEL,
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
    sides = two_sides(x, y, groups_x, groups_y, paired)
    spaces, unavailable = _spaces(with_equal_numbers(sides, max_vectors, seed), dims)
    return _profile(_bounds(spaces, competing, draws), unavailable)


@dataclass(frozen=True)
class _Space:
    """Principal components in which a bound is computed.

    Attributes:
        sides: Both sides.
        components: Their components.
        dims: Number of leading ones that are used.
    """

    sides: CheckedSides
    components: Components
    dims: int


def _spaces(
    sides: CheckedSides, dims: Sequence[int] | None
) -> tuple[list[_Space], tuple[int, ...]]:
    """The spaces of a profile, and the default numbers of components that are not there."""
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
    return [_Space(sides, found, dim) for dim in wanted], unavailable


def _profile(results: Sequence[JSDResult], unavailable: tuple[int, ...]) -> JSDProfile:
    dims = tuple(result.dims for result in results)
    saturated = [result.dims for result in results if result.nats >= SATURATION * LN2]
    return JSDProfile(tuple(results), dims, unavailable, saturated[0] if saturated else None)


@dataclass(frozen=True)
class _Draws:
    """How often and from which seed to resample."""

    n_permutations: int
    n_bootstraps: int
    level: float
    seed: int

    def __post_init__(self) -> None:
        check_level(self.level)


def _bounds(spaces: Sequence[_Space], critics: Sequence[Critic], draws: _Draws) -> list[JSDResult]:
    """The bound in each space. Critics of spaces with the same samples are fitted together."""
    rngs = [random_streams.generator(draws.seed, "jsd", "folds and label swaps") for _ in spaces]
    tasks = [
        Task.of(space.sides, space.components.scores[:, : space.dims], critics, rng, draws.seed)
        for space, rng in zip(spaces, rngs, strict=True)
    ]
    samples: dict[tuple[int, int, bool], Draws] = {}
    found = []
    for space, one in zip(
        spaces, held_out_together(tasks, draws.n_permutations, rngs), strict=True
    ):
        sides = space.sides
        key = sides.n_samples_x, sides.n_samples_y, sides.paired
        if key not in samples:
            rng = random_streams.generator(draws.seed, "jsd", "bootstraps")
            samples[key] = drawn_samples(sides, draws.n_bootstraps, rng)
        terms = bound_terms(one.logits, sides.is_x)
        found.append(
            _result(space, one, draws, *mean_with_interval(terms, sides, samples[key], draws.level))
        )
    return found


def _result(
    space: _Space, found: HeldOut, draws: _Draws, raw: float, ci: tuple[float, float]
) -> JSDResult:
    sides, nats = space.sides, _clipped(raw)
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
        dims=space.dims,
        explained=float(space.components.explained[: space.dims].sum()),
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


def _compute(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], sides: Sides) -> JSDProfile:
    return jsd_profile(
        x,
        y,
        *sides.groups,
        dims=sides.dims,
        n_permutations=0,  # testing every comparison would cost more than the bound
        n_bootstraps=sides.n_bootstraps,
        seed=sides.seed,
    )


def _together(heads: Sequence[Sides]) -> list[JSDProfile | UserError]:
    """``_compute`` of several heads, whose critics are fitted as one batch."""
    draws = _Draws(0, heads[0].n_bootstraps, LEVEL, heads[0].seed)

    def spaces(sides: Sides) -> tuple[list[_Space], tuple[int, ...]]:
        checked = two_sides(*sides.standardised, *sides.groups)
        return _spaces(with_equal_numbers(checked, MAX_VECTORS, draws.seed), sides.dims)

    prepared = [or_error(spaces, sides) for sides in heads]
    every = [space for one in prepared if not isinstance(one, UserError) for space in one[0]]
    results = iter(_bounds(every, named_critics(DEFAULT_CRITICS), draws))
    return [
        one if isinstance(one, UserError) else _profile(list(islice(results, len(one[0]))), one[1])
        for one in prepared
    ]


STATISTIC = Statistic(
    what="Jensen-Shannon divergence: a held-out classifier's lower bound, by number of components",
    compute=_compute,
    scope="ladder",
    together=_together,
)
