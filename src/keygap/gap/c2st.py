"""Classifier two-sample test: how often a held-out classifier names the right side.

Lopez-Paz and Oquab 2017. Accuracy is the easiest number to explain (1/2: the critics see no
difference; 1: they always tell the sides apart) and the first to saturate. It complements the JSD
and uses the same critics and folds (``core.held_out``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keygap import random_streams
from keygap.gap.core.cautions import cautions
from keygap.gap.core.components import pooled_components
from keygap.gap.core.described import Described
from keygap.gap.core.held_out import (
    DEFAULT_CRITICS,
    MAX_VECTORS,
    balanced_mean,
    held_out,
    named_critics,
)
from keygap.gap.core.inputs import Array, Groups, check_level, two_sides, with_equal_numbers
from keygap.gap.core.reading import Reading
from keygap.gap.core.statistic import Statistic


@dataclass(frozen=True, repr=False)
class C2STResult(Described, title="Classifier two-sample test"):
    """Held-out accuracy, with equal weight for both sides and for the samples of a side.

    Attributes:
        accuracy: Share of vectors whose side is named correctly.
        ci: Confidence interval of the accuracy; NaN without bootstraps.
        level: Confidence level of the interval.
        p_value: Of the prequential permutation test; 1 without permutations.
        estimator: Critic that won the most folds; "none": no critic beat chance.
        wins: Number of folds that each critic won.
        dims: Number of principal components it was computed in.
        paired: Whether both sides hold the same samples.
        n_x: Number of vectors of x that were used.
        n_y: Number of vectors of y that were used.
        n_bootstraps: Number of bootstraps of whole samples.
        n_permutations: Number of label swaps.
        seed: Seed of every random draw.
        cautions: What makes interval or p-value doubtful (see ``core.cautions``).
    """

    accuracy: float
    ci: tuple[float, float]
    level: float
    p_value: float
    estimator: str
    wins: dict[str, int]
    dims: int
    paired: bool
    n_x: int
    n_y: int
    n_bootstraps: int
    n_permutations: int
    seed: int
    cautions: tuple[str, ...] = ()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """``c2st_accuracy``; without a difference it reads 1/2."""
        return (
            Reading(
                "c2st_accuracy",
                self.accuracy,
                "how often a classifier names the side of a vector of a sample it never saw",
                ci=self.ci if self.n_bootstraps else None,
                null=0.5,
                p_value=self.p_value if self.n_permutations else None,
                dims=self.dims,
                settings={
                    "estimator": self.estimator,
                    "n_permutations": self.n_permutations,
                    "level": self.level,
                },
            ),
        )


def c2st(
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
) -> C2STResult:
    """Held-out accuracy of telling two sides apart.

    A vector on which the classifier is undecided counts half.

    Args:
        x: Vectors of the first side, shape (n, d), numpy or torch.
        y: Vectors of the second side, shape (m, d).
        groups_x: Sample id of each row of ``x``; None: every row is a sample of its own.
        groups_y: Sample id of each row of ``y``.
        dims: Number of principal components; None: all that have variance.
        paired: As in ``jsd``, like all that follow.
        critics: Names of the critics that compete.
        max_vectors: Limit of vectors on each side; as in ``jsd``, as many are used of each.
        n_permutations: Number of label swaps.
        n_bootstraps: Number of bootstraps.
        level: Confidence level of the interval.
        seed: Seed of every random draw.

    Returns:
        The accuracy and what it depends on.

    Raises:
        UserError: As ``jsd``.
    """
    competing = named_critics(critics)
    check_level(level)
    sides = with_equal_numbers(two_sides(x, y, groups_x, groups_y, paired), max_vectors, seed)
    components = pooled_components(sides, dims)
    rng = random_streams.generator(seed, "c2st", "folds and label swaps")
    rng_bootstrap = random_streams.generator(seed, "c2st", "bootstraps")
    found = held_out(sides, components.scores, competing, n_permutations, rng, seed)
    right = np.heaviside(np.where(sides.is_x, found.logits, -found.logits), 0.5)
    accuracy, ci = balanced_mean(right, sides, n_bootstraps, level, rng_bootstrap)
    return C2STResult(
        cautions=cautions(sides),
        accuracy=accuracy,
        ci=ci,
        level=level,
        p_value=found.p_value,
        estimator=found.winner,
        wins=found.wins,
        dims=components.available,
        paired=sides.paired,
        n_x=len(sides.x),
        n_y=len(sides.y),
        n_bootstraps=n_bootstraps,
        n_permutations=n_permutations,
        seed=seed,
    )


STATISTIC = Statistic(
    what="held-out accuracy of a classifier that tells the sides apart in two components",
    compute=lambda x, y, sides: c2st(
        x, y, *sides.groups, dims=2, n_permutations=sides.n_permutations, seed=sides.seed
    ),
    coordinates="components",
)
