"""The two sides of one comparison, in every form that a statistic may need.

Statistics differ in the coordinates they work in: vectors as captured, standardised, or reduced to
principal components. ``Sides`` computes each form once, when it is first used, so that many
statistics of one comparison share the work. It holds arrays and sample ids only; which tokens they
come from is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from keygap.gap.core.components import pooled_components
from keygap.gap.core.inputs import Groups, two_sides
from keygap.gap.core.standardise import standardise

COMPONENTS = 50  # as in the paper; a few thousand vectors do not determine a larger covariance

Pair = tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]


@dataclass(frozen=True, eq=False)
class Sides:
    """Vectors and sample ids of two sides, and the options that statistics share.

    Attributes:
        x: Vectors of the first side as captured, shape (n, d).
        y: Vectors of the second side, shape (m, d).
        groups_x: Sample id of each row of ``x``; None: every row is a sample of its own.
        groups_y: Sample id of each row of ``y``.
        heads: Number of heads in the columns, which are ordered as heads x head_dim.
        dims: Numbers of principal components that were asked for, for statistics that depend on
            it; None: the default of the statistic.
        n_permutations: Label swaps, for statistics where a swap is cheap. The others make a fixed,
            smaller number.
        n_bootstraps: Bootstraps of whole samples, for statistics whose interval needs them.
        seed: Seed of every random draw.
    """

    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, "m d"]
    groups_x: Groups = None
    groups_y: Groups = None
    heads: int = 1
    dims: tuple[int, ...] | None = None
    n_permutations: int = 1000
    n_bootstraps: int = 1000
    seed: int = 0

    def head(self, index: int, **options: Any) -> Sides:
        """The two sides of one head.

        Args:
            index: Number of the head.
            options: Fields that differ, such as ``dims``.
        """
        width = self.x.shape[1] // self.heads
        columns = slice(index * width, (index + 1) * width)
        x, y = self.x[:, columns], self.y[:, columns]
        found = replace(self, x=x, y=y, heads=1, **options)
        # Columns are scaled one by one, so those of a head need not be scaled again.
        found.__dict__["standardised"] = tuple(side[:, columns] for side in self.standardised)
        return found

    @property
    def groups(self) -> tuple[Groups, Groups]:
        """Sample ids of both sides."""
        return self.groups_x, self.groups_y

    @property
    def raw(self) -> Pair:
        """Both sides as captured."""
        return self.x, self.y

    @cached_property
    def standardised(self) -> Pair:
        """Both sides with every column at mean 0 and deviation 1 over the two together."""
        return standardise(self.x, self.y)

    @cached_property
    def components(self) -> Pair:
        """Leading principal components of the standardised vectors, in their units.

        At most 50, fewer if the vectors vary in fewer directions. The components are fitted to both
        sides together without labels.

        Raises:
            UserError: All vectors are equal, or the sides cannot be compared (see ``two_sides``).
        """
        sides = two_sides(*self.standardised, *self.groups)
        most = min(COMPONENTS, sides.x.shape[1], len(sides.pooled) - 1)
        found = pooled_components(sides, most, allow_fewer=True)
        scores = found.scores * np.sqrt(found.variance)
        return scores[: len(sides.x)], scores[len(sides.x) :]
