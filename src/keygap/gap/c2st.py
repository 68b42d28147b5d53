"""Classifier two-sample test: how often a held-out classifier names the right side.

Lopez-Paz and Oquab 2017. Accuracy is the easiest number to say aloud (1/2: no difference that the
critics see; 1: always told apart) and the first to saturate, so it stands beside JSD, from the
same critics and folds (`held_out.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keygap.gap.core.components import pooled_components
from keygap.gap.core.held_out import bootstrap_interval, held_out, named_critics
from keygap.gap.core.inputs import Groups, Vectors, check_level, thinned, two_sides
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import mean_by_sample
from keygap.gap.core.statistic import Statistic
from keygap.gap.jsd import DEFAULT_CRITICS, MAX_VECTORS


@dataclass(frozen=True)
class C2STResult:
    """Held-out accuracy, sides balanced and samples of a side weighing the same."""

    accuracy: float
    ci: tuple[float, float]
    level: float
    p_value: float
    estimator: str  # critic that won most folds
    wins: dict[str, int]
    dims: int
    paired: bool
    n_x: int
    n_y: int
    seed: int

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The accuracy; 1/2 is what it reads without a difference."""
        return (
            Reading(
                "c2st_accuracy",
                self.accuracy,
                "how often a classifier names the side of a vector of a sample it never saw",
                ci=self.ci,
                null=0.5,
                p_value=self.p_value,
                dims=self.dims,
                settings={"estimator": self.estimator, "level": self.level},
            ),
        )


def c2st(
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
) -> C2STResult:
    """Held-out accuracy of telling x (n, d) from y (m, d); arguments and errors as in `jsd`.

    A vector that the classifier is undecided on counts half.
    """
    competing = named_critics(critics)
    check_level(level)
    sides = thinned(two_sides(x, y, groups_x, groups_y, paired), max_vectors, seed)
    components = pooled_components(sides, dims)
    rng, rng_bootstrap = np.random.default_rng(seed).spawn(2)
    found = held_out(sides, components.scores, competing, n_permutations, rng)
    n = len(sides.x)
    right_x = np.heaviside(found.logits[:n], 0.5)
    right_y = np.heaviside(-found.logits[n:], 0.5)
    of_x = mean_by_sample(right_x, sides.sample_x, sides.n_samples_x)
    of_y = mean_by_sample(right_y, sides.sample_y, sides.n_samples_y)
    return C2STResult(
        accuracy=float(0.5 * of_x.mean() + 0.5 * of_y.mean()),
        ci=bootstrap_interval(of_x, of_y, sides.paired, n_bootstraps, level, rng_bootstrap),
        level=level,
        p_value=found.p_value,
        estimator=found.winner,
        wins=found.wins,
        dims=components.scores.shape[1],
        paired=sides.paired,
        n_x=n,
        n_y=len(sides.y),
        seed=seed,
    )


STATISTIC = Statistic(
    what="held-out accuracy of a classifier that tells the sides apart in two components",
    compute=lambda x, y, sides: c2st(x, y, *sides.groups, dims=2, seed=sides.seed),
    coordinates="components",
)
