"""Jensen-Shannon divergence between two sides, as a held-out classifier's lower bound.

With a fair coin choosing the side, JSD is the mutual information of side and vector, and for any
predicted probability p

    JSD >= ln 2 + 1/2 E_x[log p(x)] + 1/2 E_y[log(1 - p(y))]        (nats, at most ln 2 = 0.693)

with equality where p is the true posterior (Goodfellow et al. 2014, theorem 1; Poole et al. 2019).
Histograms and neighbours are badly biased in more than a few dimensions; this bound errs on one
known side only. What it takes to be honest: the terms come from samples the classifier never saw;
the critic is chosen and its probabilities are calibrated on inner folds of the training samples;
sides are balanced, and samples of a side weigh the same, by weights (`held_out.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from keygap.errors import UserError
from keygap.gap.core.components import pooled_components
from keygap.gap.core.critics import Critic
from keygap.gap.core.held_out import bootstrap_interval, held_out, named_critics
from keygap.gap.core.inputs import Groups, TwoSides, Vectors, check_level, thinned, two_sides
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import mean_by_sample
from keygap.gap.core.statistic import Statistic

LN2 = math.log(2.0)
DEFAULT_CRITICS = ("linear", "quadratic", "spline")
DEFAULT_DIMS = (2, 5, 10, 50)
SATURATION = 0.95  # of ln 2: beyond it the rest of the scale is estimation error
MAX_VECTORS = 10_000  # of each side


@dataclass(frozen=True)
class JSDResult:
    """A lower bound of the Jensen-Shannon divergence. nats, bits and ci lie within [0, ln 2]."""

    nats: float
    bits: float
    raw_nats: float  # before clipping: a little below 0 where there is nothing to find
    ci: tuple[float, float]  # of nats
    level: float
    p_value: float
    estimator: str  # critic that won most folds; "none": no critic beat chance
    wins: dict[str, int]  # folds won, by critic
    nats_by_critic: dict[str, float]  # raw bound of each critic alone
    dims: int  # components it was taken in
    explained: float  # share of the pooled variance in them
    paired: bool
    n_x: int  # vectors used
    n_y: int
    n_samples_x: int
    n_samples_y: int
    n_bootstraps: int
    n_permutations: int
    seed: int

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


@dataclass(frozen=True)
class JSDProfile:
    """JSD by number of principal components, and where it stops telling contrasts apart."""

    results: tuple[JSDResult, ...]
    dims: tuple[int, ...]
    unavailable: tuple[int, ...]  # default dimensions that these vectors do not have
    saturates_at: int | None  # first dims with nats >= 0.95 ln 2; None: none does

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
    x: Vectors,
    y: Vectors,
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
    """Lower bound of the JSD between x (n, d) and y (m, d), with interval and p-value.

    Args:
        x: Vectors of one side, (n, d), numpy or torch.
        y: Vectors of the other, (m, d).
        groups_x: Sample id of each row of x; None: every row is a sample of its own.
        groups_y: Sample id of each row of y.
        dims: Principal components to take it in (fitted on both sides, balanced, without labels).
            None: all that have variance.
        paired: As in `mmd`.
        critics: Which compete: "linear", "quadratic", "spline", "boosted" (see `critics.py`).
        max_vectors: Of each side; more are thinned, seeded, taking from the samples in turn.
        n_permutations: For p.
        n_bootstraps: Of whole samples over their held-out terms, for the interval (percentile).
            It holds the critics fixed: it is the interval of the bound, not of the unknown JSD.
        level: Of the interval.
        seed: Of thinning, folds, bootstraps and permutations.

    The p-value is prequential (see `held_out.held_out`).

    Raises:
        UserError: bad vectors or ids (see `inputs.two_sides`), dims beyond what the vectors have,
            an unknown critic.

    O(K^2 (n + m) k^2) for k components.
    """
    competing = named_critics(critics)
    check_level(level)
    sides = thinned(two_sides(x, y, groups_x, groups_y, paired), max_vectors, seed)
    found = pooled_components(sides, dims)
    return _bound(
        sides,
        found.scores,
        float(found.explained.sum()),
        competing,
        n_permutations,
        n_bootstraps,
        level,
        seed,
    )


def jsd_profile(
    x: Vectors,
    y: Vectors,
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
    """`jsd` in the first 2, 5, 10 and 50 principal components, or in `dims`.

    One set of components and one set of folds serve all. Of the default dimensions those that the
    vectors do not have are left out and named in `unavailable`; a dimension that was asked for
    and does not exist is a UserError, as is having none at all.
    """
    competing = named_critics(critics)
    check_level(level)
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
            f"no dims to take the profile in: name some, of at most {found.available} components"
        )
    results = tuple(
        _bound(
            sides,
            found.scores[:, :dim],
            float(found.explained[:dim].sum()),
            competing,
            n_permutations,
            n_bootstraps,
            level,
            seed,
        )
        for dim in wanted
    )
    saturated = [result.dims for result in results if result.nats >= SATURATION * LN2]
    return JSDProfile(results, wanted, unavailable, saturated[0] if saturated else None)


def _bound(
    sides: TwoSides,
    z: Float[np.ndarray, "n+m k"],
    explained: float,
    critics: Sequence[Critic],
    n_permutations: int,
    n_bootstraps: int,
    level: float,
    seed: int,
) -> JSDResult:
    rng, rng_bootstrap = np.random.default_rng(seed).spawn(2)
    found = held_out(sides, z, critics, n_permutations, rng)
    n = len(sides.x)

    def terms(logits: Float[np.ndarray, " n+m"]) -> Float[np.ndarray, " n+m"]:
        """Ln 2 + log probability of the true side."""
        return LN2 - np.logaddexp(0.0, np.concatenate([-logits[:n], logits[n:]]))

    own = terms(found.logits)
    of_x = mean_by_sample(own[:n], sides.sample_x, sides.n_samples_x)
    of_y = mean_by_sample(own[n:], sides.sample_y, sides.n_samples_y)
    raw = float(0.5 * of_x.mean() + 0.5 * of_y.mean())
    ci = bootstrap_interval(of_x, of_y, sides.paired, n_bootstraps, level, rng_bootstrap)
    nats = min(max(raw, 0.0), LN2)
    return JSDResult(
        nats=nats,
        bits=nats / LN2,
        raw_nats=raw,
        ci=(min(max(ci[0], 0.0), LN2), min(max(ci[1], 0.0), LN2)),
        level=level,
        p_value=found.p_value,
        estimator=found.winner,
        wins=found.wins,
        nats_by_critic={
            name: float(sides.weights @ terms(logits))
            for name, logits in found.logits_by_critic.items()
        },
        dims=z.shape[1],
        explained=explained,
        paired=sides.paired,
        n_x=n,
        n_y=len(sides.y),
        n_samples_x=sides.n_samples_x,
        n_samples_y=sides.n_samples_y,
        n_bootstraps=n_bootstraps,
        n_permutations=n_permutations,
        seed=seed,
    )


STATISTIC = Statistic(
    what="Jensen-Shannon divergence: a held-out classifier's lower bound, by number of components",
    compute=lambda x, y, sides: jsd_profile(
        x,
        y,
        *sides.groups,
        dims=sides.dims,
        n_permutations=0,  # a permutation test of every comparison would cost more than the bound
        n_bootstraps=sides.n_bootstraps,
        seed=sides.seed,
    ),
    scope="ladder",
)
