"""What a critic is: a classifier that is fitted to several training sets of the same rows.

Cross-validation fits every critic some fifteen times to overlapping parts of one set of rows, and
the heads of a layer are vectors of the same tokens. A critic gets all parts and all heads at once,
so that it can share work between them or fit them as one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

Vectors = Float[np.ndarray, "*heads n k"]
Labels = Bool[np.ndarray, " n"]
Weights = Float[np.ndarray, " n"]
Train = Bool[np.ndarray, " n"]
Trains = Bool[np.ndarray, "sets n"]
LogOdds = Float32[np.ndarray, "*heads sets n variants"]  # float32, because there are many


@dataclass(frozen=True)
class Rows:
    """The pooled vectors of both sides and what a critic may know of them.

    Attributes:
        z: Whitened components, of one head or of several.
        label: Whether each vector is on side x.
        weight: Weight of each vector: sides balanced, samples of a side equal.
        unit: Index of the sample of each vector; on both sides the same if the sides are paired.
        seed: Seed of random draws.
    """

    z: Vectors
    label: Labels
    weight: Weights
    unit: Int[np.ndarray, " n"]
    seed: int = 0

    @property
    def by_head(self) -> Float[np.ndarray, "heads n k"]:
        """The components with one axis for the heads, also where there is a single one."""
        return self.z.reshape(-1, *self.z.shape[-2:])

    def heads(self) -> Iterator[tuple[tuple[int, ...], Rows]]:
        """Iterate over the heads, each with its index; the index of a single one is empty."""
        for index in np.ndindex(self.z.shape[:-2]):
            yield index, replace(self, z=self.z[index])


@dataclass(frozen=True)
class Critic:
    """A named classifier.

    Attributes:
        name: Its name.
        variants: Number of log-odds it predicts; they compete with each other under one name.
        fit: Function of the rows and of training sets, shape (sets, n). It returns the log-odds of
            every row by the fit to each set, shape (sets, n, variants), with the heads first where
            there are several.
        averaged: Whether a fold is predicted by the mean of the inner fits that never saw it, which
            saves the outer fits. For critics that are expensive and gain from an average.
    """

    name: str
    variants: int
    fit: Callable[[Rows, Trains], LogOdds]
    averaged: bool = False
