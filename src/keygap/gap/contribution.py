"""Which dimensions, and which heads, carry the difference of means.

The unbiased squared distance of the two means (a linear-kernel MMD^2) is a sum over dimensions:

    paired     c_j = mean over s != t of D_sj D_tj,  D_s the difference of the means of sample s

and its heads are sums of their dimensions, so the parts add up to the whole. In squared units of
the vectors: a dimension of large scale counts for much, which is the point (massive dimensions
are found so); `effect_size` is free of scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from keygap.errors import UserError
from keygap.gap.core.inputs import Groups, Vectors, sample_weights, two_sides
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import mean_by_sample
from keygap.gap.core.statistic import Statistic


@dataclass(frozen=True)
class ContributionResult:
    """Parts of the unbiased squared distance of the means; a part can be negative."""

    total: float
    by_dimension: Float[np.ndarray, " d"]
    by_head: Float[np.ndarray, " heads"]  # one head: all dimensions
    effect_size: Float[np.ndarray, " d"]  # difference of means over pooled standard deviation
    paired: bool

    @property
    def dimensions_for_half(self) -> int | None:
        """How few dimensions add up to half of the total; None where it is not positive."""
        if self.total <= 0.0:
            return None
        largest_first = np.cumsum(-np.sort(-self.by_dimension))
        return int(np.argmax(largest_first >= 0.5 * self.total)) + 1

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The total, each head's share of it, and how few dimensions carry half of it."""
        half, d = self.dimensions_for_half, len(self.by_dimension)
        shares = [None if half is None else float(part) / self.total for part in self.by_head]
        return (
            Reading("mean_difference", self.total, "squared distance of the means", dims=d),
            Reading("dimensions_for_half", half, "so few dimensions carry half of it", dims=d),
            *(
                Reading("head_share", share, "the head's share of it", head=head)
                for head, share in enumerate(shares)
            ),
        )

    def __eq__(self, other: object) -> bool:
        """Equal numbers, arrays included."""
        return isinstance(other, ContributionResult) and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in self.__dataclass_fields__
        )

    __hash__ = None  # type: ignore[assignment]


def contribution(
    x: Vectors,
    y: Vectors,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    n_heads: int = 1,
    paired: bool | None = None,
) -> ContributionResult:
    """Share of each dimension and head in the difference of means of x (n, d) and y (m, d).

    n_heads: the d columns are heads x head_dim, in this order. A column that is constant on both
    sides has effect size 0 where its means agree. Raises UserError: bad vectors or ids (see
    `inputs.two_sides`), d no multiple of n_heads, a column constant on both sides at two values
    (its effect size is infinite). O((n + m) d).
    """
    sides = two_sides(x, y, groups_x, groups_y, paired)
    d = sides.x.shape[1]
    if n_heads < 1 or d % n_heads:
        raise UserError(f"{d} columns do not divide into {n_heads} heads")
    means_x = mean_by_sample(sides.x, sides.sample_x, sides.n_samples_x)
    means_y = mean_by_sample(sides.y, sides.sample_y, sides.n_samples_y)
    if sides.paired:
        by_dimension = _mean_product(means_x - means_y)
    else:
        cross = means_x.mean(0) * means_y.mean(0)
        by_dimension = _mean_product(means_x) + _mean_product(means_y) - 2.0 * cross
    return ContributionResult(
        total=float(by_dimension.sum()),
        by_dimension=by_dimension,
        by_head=by_dimension.reshape(n_heads, -1).sum(1),
        effect_size=_effect_size(
            sides.x,
            sides.y,
            sample_weights(sides.sample_x, sides.n_samples_x),
            sample_weights(sides.sample_y, sides.n_samples_y),
        ),
        paired=sides.paired,
    )


def _mean_product(values: Float[np.ndarray, "s d"]) -> Float[np.ndarray, " d"]:
    """Mean over s != t of the products of rows, for each column."""
    s = len(values)
    return (values.sum(0) ** 2 - (values**2).sum(0)) / (s * (s - 1))


def _effect_size(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "m d"],
    weights_x: Float[np.ndarray, " n"],
    weights_y: Float[np.ndarray, " m"],
) -> Float[np.ndarray, " d"]:
    mean_x, mean_y = weights_x @ x.astype(np.float64), weights_y @ y.astype(np.float64)
    variance = 0.5 * (weights_x @ (x - mean_x) ** 2 + weights_y @ (y - mean_y) ** 2)
    difference = mean_x - mean_y
    constant = variance <= 1e-12 * (mean_x**2 + mean_y**2)  # what rounding leaves of a constant
    apart = constant & (np.abs(difference) > 1e-6 * (np.abs(mean_x) + np.abs(mean_y)))
    if apart.any():
        raise UserError(
            f"column {int(np.flatnonzero(apart)[0])} is constant on each side, at two values: its "
            "effect size is infinite; drop it"
        )
    return np.where(constant, 0.0, difference / np.sqrt(np.where(constant, 1.0, variance)))


STATISTIC = Statistic(
    what="squared distance of the means, and the share of each head and dimension",
    compute=lambda x, y, sides: contribution(x, y, *sides.groups, n_heads=sides.heads),
)
