"""Log-odds of vectors by critics that never saw their samples.

A fold is a set of whole samples, because a critic that has seen one vector of a sample has nearly
seen the others. Choosing and calibrating a critic needs inner folds, which multiplies the fits. One
fit without the folds i and j serves both: fold j as an inner fold of i, and i as an inner fold of
j. So K folds cost K outer and K (K - 1) / 2 inner fits of each critic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from keygap.gap.core.critics import Critic
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
    """

    sides: CheckedSides
    z: Float[np.ndarray, "n+m k"]
    critics: Sequence[Critic]
    label: Bool[np.ndarray, " n+m"]
    weight: Float[np.ndarray, " n+m"]
    fold: Int[np.ndarray, " n+m"]
    n_folds: int

    @classmethod
    def of(
        cls,
        sides: CheckedSides,
        z: Float[np.ndarray, "n+m k"],
        critics: Sequence[Critic],
        rng: np.random.Generator,
    ) -> Task:
        """Assign whole samples to folds at random, with both sides in every fold.

        Args:
            sides: Both sides; paired samples stay in one fold.
            z: Whitened components of the pooled vectors.
            critics: The critics that compete.
            rng: Source of randomness.

        Returns:
            The task, with five folds or as many as a side has samples.
        """
        n_folds = min(N_FOLDS, sides.n_samples_x, sides.n_samples_y)
        of_x = rng.permutation(np.arange(sides.n_samples_x) % n_folds)
        of_y = of_x if sides.paired else rng.permutation(np.arange(sides.n_samples_y) % n_folds)
        fold = np.concatenate([of_x[sides.sample_x], of_y[sides.sample_y]])
        return cls(sides, z, critics, sides.is_x, sides.weights, fold, n_folds)

    @property
    def columns(self) -> list[str]:
        """Name of the critic of each column of log-odds."""
        return [critic.name for critic in self.critics for _ in range(critic.variants)]

    def predict(
        self, train: Bool[np.ndarray, " n+m"], test: Bool[np.ndarray, " n+m"]
    ) -> Float[np.ndarray, "test c"]:
        """Log-odds of the test rows by critics fitted to the training rows.

        Args:
            train: Rows to fit to.
            test: Rows to predict.

        Returns:
            One column for each variant of each critic.
        """
        # Weights of mean 1 make a critic's ridge mean the same for any number of rows.
        share = self.weight[train] / self.weight[train].mean()
        rows, side, new = self.z[train], self.label[train], self.z[test]
        return np.concatenate([c.fit(rows, side, share)(new) for c in self.critics], axis=1)


@dataclass(frozen=True)
class FoldLogOdds:
    """Log-odds of every row by critics that never saw its fold.

    Attributes:
        outer: Rows of fold k, predicted by critics trained without k.
        inner: ``inner[k]`` holds rows of every fold i other than k, predicted by critics trained
            without i and k. Rows of fold k are NaN there.
    """

    outer: Float[np.ndarray, "n+m c"]
    inner: Float[np.ndarray, "folds n+m c"]

    @classmethod
    def fit(cls, task: Task) -> FoldLogOdds:
        """Fit every critic without every fold and every pair of folds.

        Args:
            task: What to learn.

        Returns:
            The log-odds.
        """
        n_rows, n_columns = len(task.z), len(task.columns)
        outer = np.empty((n_rows, n_columns))
        inner = np.full((task.n_folds, n_rows, n_columns), np.nan)
        for i in range(task.n_folds):
            alone = task.fold == i
            outer[alone] = task.predict(~alone, alone)
            for j in range(i + 1, task.n_folds):
                test = alone | (task.fold == j)
                predicted = task.predict(~test, test)
                inner[i][task.fold == j] = predicted[task.fold[test] == j]
                inner[j][alone] = predicted[task.fold[test] == i]
        return cls(outer, inner)
