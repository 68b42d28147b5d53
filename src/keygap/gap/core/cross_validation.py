"""Log-odds of vectors by critics that never saw their samples.

A fold is a set of whole samples, because a critic that has seen one vector of a sample has nearly
seen the others. Choosing and calibrating a critic needs inner folds, which multiplies the fits. One
fit without the folds i and j serves both: fold j as an inner fold of i, and i as an inner fold of
j. So K folds cost K outer and K (K - 1) / 2 inner fits of each critic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from keygap.gap.core.calibration import LN2, SATURATION, Calibration, bound_terms
from keygap.gap.core.critic import Critic, Rows, Trains
from keygap.gap.core.inputs import CheckedSides

N_FOLDS = 5


@dataclass(frozen=True)
class Task:
    """What the critics learn: to tell the sides of the vectors apart, fold by fold.

    Attributes:
        sides: Both sides.
        z: Whitened components of the pooled vectors, in which the critics work.
        critics: The critics that compete.
        label: Whether each pooled vector is on side x.
        weight: Weight of each pooled vector: sides balanced, samples of a side equal.
        fold: Fold of each pooled vector.
        n_folds: Number of folds.
        seed: Seed of critics that draw random numbers.
    """

    sides: CheckedSides
    z: Float[np.ndarray, "n+m k"]
    critics: Sequence[Critic]
    label: Bool[np.ndarray, " n+m"]
    weight: Float[np.ndarray, " n+m"]
    fold: Int[np.ndarray, " n+m"]
    n_folds: int
    seed: int = 0

    @classmethod
    def of(
        cls,
        sides: CheckedSides,
        z: Float[np.ndarray, "n+m k"],
        critics: Sequence[Critic],
        rng: np.random.Generator,
        seed: int = 0,
    ) -> Task:
        """Assign whole samples to folds at random, with both sides in every fold.

        Args:
            sides: Both sides; paired samples stay in one fold.
            z: Whitened components of the pooled vectors.
            critics: The critics that compete.
            rng: Source of randomness of the folds.
            seed: Seed of critics that draw random numbers.

        Returns:
            The task, with five folds or as many as a side has samples.
        """
        n_folds = min(N_FOLDS, sides.n_samples_x, sides.n_samples_y)
        of_x = rng.permutation(np.arange(sides.n_samples_x) % n_folds)
        of_y = of_x if sides.paired else rng.permutation(np.arange(sides.n_samples_y) % n_folds)
        fold = np.concatenate([of_x[sides.sample_x], of_y[sides.sample_y]])
        return cls(sides, z, critics, sides.is_x, sides.weights, fold, n_folds, seed)

    @property
    def rows(self) -> Rows:
        """The vectors and what the critics may know of them."""
        sides = self.sides
        unit = np.concatenate([sides.sample_x, sides.sample_y]) if sides.paired else sides.cells
        return Rows(self.z, self.label, self.weight, unit, self.seed)

    def log_odds(self, trains: Trains, names: Sequence[str]) -> Float32[np.ndarray, "sets n c"]:
        """Log-odds of every row by critics fitted to each of several training sets.

        Args:
            trains: The rows of each set.
            names: Names of the critics.

        Returns:
            One column for each variant of each critic, in the order of ``FoldLogOdds.names``.
        """
        chosen = [critic for critic in _in_order(self.critics) if critic.name in names]
        return np.concatenate([critic.fit(self.rows, trains) for critic in chosen], axis=2)


@dataclass(frozen=True)
class FoldLogOdds:
    """Log-odds of every row by critics that never saw its fold.

    Attributes:
        outer: Rows of fold k, predicted by critics trained without k.
        inner: ``inner[k]`` holds rows of every fold i other than k, predicted by critics trained
            without i and k. Rows of fold k are NaN there.
        names: Name of the critic of each column; those that are averaged come last.
    """

    outer: Float32[np.ndarray, "n+m c"]
    inner: Float32[np.ndarray, "folds n+m c"]
    names: tuple[str, ...]

    @classmethod
    def fit(cls, task: Task) -> FoldLogOdds:
        """Fit every critic without every fold and every pair of folds.

        Args:
            task: What to learn.

        Returns:
            The log-odds.
        """
        return fold_log_odds([task])[0]

    def saturates(self, task: Task) -> bool:
        """Whether the bound of some column is so close to ln 2 that the rest is estimation error.

        Args:
            task: What was learned.
        """
        logits = Calibration.fit(self.outer, task.label, task.weight).apply(self.outer)
        bounds = (task.weight / task.weight.sum()) @ bound_terms(logits, task.label[:, None])
        return bool(bounds.max() >= SATURATION * LN2)


def fold_log_odds(tasks: Sequence[Task]) -> list[FoldLogOdds]:
    """Fit every critic of several tasks without every fold and every pair of folds.

    Tasks that differ in their vectors only, such as the heads of a layer, are fitted together.

    Args:
        tasks: What to learn.

    Returns:
        The log-odds of each task.
    """
    alike: dict[tuple[object, ...], list[int]] = {}
    for place, task in enumerate(tasks):
        alike.setdefault(_what_is_shared(task), []).append(place)
    found: dict[int, FoldLogOdds] = {}
    for places in alike.values():
        fitted = _fitted_together([tasks[place] for place in places])
        found |= dict(zip(places, fitted, strict=True))
    return [found[place] for place in range(len(tasks))]


def _what_is_shared(task: Task) -> tuple[object, ...]:
    arrays = (task.label, task.weight, task.fold, task.rows.unit)
    critics = tuple(critic.name for critic in task.critics)
    return task.z.shape, critics, task.seed, *(array.tobytes() for array in arrays)


def _in_order(critics: Sequence[Critic]) -> list[Critic]:
    """Critics in the order of their columns: as given, with those that are averaged last."""
    return sorted(critics, key=lambda critic: critic.averaged)


def _fitted_together(tasks: Sequence[Task]) -> list[FoldLogOdds]:
    """The log-odds of tasks that differ in their vectors only.

    The network is expensive and cannot add to a bound near ln 2, so it is fitted last, and only
    where no other critic is close to that.
    """
    found: list[list[FoldLogOdds]] = [[] for _ in tasks]
    critics = tasks[0].critics
    for critic in critics:
        if not critic.averaged:
            for own, one in zip(found, _of_critic(tasks, critic), strict=True):
                own.append(one)
    open_tasks = [
        place
        for place, task in enumerate(tasks)
        if not any(one.saturates(task) for one in found[place])
    ]
    for critic in critics:
        if critic.averaged and open_tasks:
            fitted = _of_critic([tasks[place] for place in open_tasks], critic)
            for place, one in zip(open_tasks, fitted, strict=True):
                found[place].append(one)
    joined = []
    for own in found:
        joined.append(_joined(own))
        own.clear()  # free the parts at once; otherwise all log-odds are in memory twice
    return joined


def _joined(critics: Sequence[FoldLogOdds]) -> FoldLogOdds:
    """The log-odds of several critics as columns of one."""
    return FoldLogOdds(
        np.concatenate([one.outer for one in critics], axis=1),
        np.concatenate([one.inner for one in critics], axis=2),
        tuple(name for one in critics for name in one.names),
    )


def _of_critic(tasks: Sequence[Task], critic: Critic) -> list[FoldLogOdds]:
    """The log-odds of one critic for each task."""
    fold, folds = tasks[0].fold, range(tasks[0].n_folds)
    pairs = list(combinations(folds, 2))
    trains = [(fold != i) & (fold != j) for i, j in pairs]
    if not critic.averaged:
        trains += [fold != k for k in folds]
    # one task is a view: its vectors may be many
    z = tasks[0].z[None] if len(tasks) == 1 else np.stack([task.z for task in tasks])
    rows = replace(tasks[0].rows, z=z)
    found = []
    for fitted in critic.fit(rows, np.stack(trains)):
        outer = np.empty(fitted.shape[1:], fitted.dtype)
        inner = np.full((len(folds), *fitted.shape[1:]), np.nan, fitted.dtype)
        for predicted, (i, j) in zip(fitted, pairs, strict=False):
            for own, other in ((i, j), (j, i)):
                inner[other][fold == own] = predicted[fold == own]
        for k in folds:
            without = (
                [n for n, pair in enumerate(pairs) if k in pair]
                if critic.averaged
                else [len(pairs) + k]
            )
            outer[fold == k] = fitted[without][:, fold == k].mean(0)
        found.append(FoldLogOdds(outer, inner, (critic.name,) * critic.variants))
    return found
