"""What an estimate of the Jensen-Shannon divergence holds, and how it reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

from keygap.display import brief
from keygap.gap.core.described import Described
from keygap.gap.core.held_out import NO_CRITIC
from keygap.gap.core.reading import Reading


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
        low, high = self.ci
        interval = f" ({self.level:.0%} interval {low:.3f} to {high:.3f})"
        return (
            f"JSD >= {self.nats:.3f} nats{interval if self.n_bootstraps else ''} "
            f"in {self.dims} components, by the {self.estimator} critic"
        )

    @property
    def readings(self) -> tuple[Reading, ...]:
        """``jsd``, the bound in nats."""
        return (
            Reading(
                "jsd",
                self.nats,
                "Jensen-Shannon divergence, a classifier's lower bound, nats (at most 0.693)",
                ci=self.ci if self.n_bootstraps else None,
                p_value=self.p_value if self.n_permutations else None,
                dims=self.dims,
                settings={
                    "estimator": self.estimator,
                    "explained": self.explained,
                    "paired": self.paired,
                    "n_x": self.n_x,
                    "n_y": self.n_y,
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
