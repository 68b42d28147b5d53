"""Which dimensions and which heads carry the difference of the means.

The unbiased squared distance of the two means (a linear-kernel MMD^2) is a sum over dimensions j:

    paired     c_j = mean over s != t of D_sj D_tj,  D_s the difference of the means of sample s
    unpaired   c_j = mean_{s != s'} X_sj X_s'j + mean_{t != t'} Y_tj Y_t'j - 2 mean_{s, t} X_sj Y_tj

A head is the sum of its dimensions, so the contributions add up to the whole. They are in squared
units of the vectors, so a dimension of large scale counts for much. That is intended, because it
reveals massive dimensions. ``effect_size`` does not depend on the scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from keygap.errors import UserError
from keygap.gap.core.cautions import cautions
from keygap.gap.core.described import Described
from keygap.gap.core.inputs import Array, CheckedSides, Groups, two_sides
from keygap.gap.core.reading import Reading
from keygap.gap.core.statistic import Statistic


@dataclass(frozen=True, repr=False)
class ContributionResult(Described, title="Difference of the means by head and dimension"):
    """Contributions to the unbiased squared distance of the means. They can be negative.

    Attributes:
        total: The squared distance, in squared units of the vectors.
        by_dimension: Contribution of each dimension.
        by_head: Contribution of each head.
        effect_size: Difference of the means over the pooled standard deviation, by dimension.
        paired: Whether both sides hold the same samples.
        cautions: What makes interval or p-value doubtful (see ``core.cautions``).
    """

    total: float
    by_dimension: Float[np.ndarray, " d"]
    by_head: Float[np.ndarray, " heads"]
    effect_size: Float[np.ndarray, " d"]
    paired: bool
    cautions: tuple[str, ...] = ()

    @property
    def dimensions_for_half(self) -> int | None:
        """Smallest number of dimensions that add up to half of a positive total, else None."""
        if self.total <= 0.0:
            return None
        largest_first = np.cumsum(-np.sort(-self.by_dimension))
        return int(np.argmax(largest_first >= 0.5 * self.total)) + 1

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The total, the number of dimensions that carry half of it, and the share of each head."""
        half, d = self.dimensions_for_half, len(self.by_dimension)
        shares = [None if half is None else float(part) / self.total for part in self.by_head]
        return (
            Reading("mean_difference", self.total, "squared distance of the means", dims=d),
            Reading(
                "dimensions_for_half",
                half,
                "smallest number of dimensions whose contributions add up to half of "
                "mean_difference",
                dims=d,
            ),
            *(
                Reading("head_share", share, "share of this head in mean_difference", head=head)
                for head, share in enumerate(shares)
            ),
        )

    def __eq__(self, other: object) -> bool:
        """Whether all numbers are equal, those in arrays included."""
        return isinstance(other, ContributionResult) and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in self.__dataclass_fields__
        )

    __hash__ = None  # type: ignore[assignment]


def contribution(
    x: Array,
    y: Array,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    n_heads: int = 1,
    paired: bool | None = None,
) -> ContributionResult:
    """Contribution of each dimension and head to the difference of the means. O((n + m) d).

    Args:
        x: Vectors of the first side, shape (n, d), numpy or torch.
        y: Vectors of the second side, shape (m, d).
        groups_x: Sample id of each row of ``x``; None: every row is a sample of its own.
        groups_y: Sample id of each row of ``y``.
        n_heads: Number of heads in the columns, which are ordered as heads x head_dim.
        paired: Whether both sides hold the same samples; None: decided by the ids, as in ``mmd``.

    Returns:
        The contributions. A column that has one value on both sides has effect size 0.

    Raises:
        UserError: Bad vectors or ids (see ``core.inputs.two_sides``), a number of columns that
            ``n_heads`` does not divide, or a column that is constant on each side with two values,
            whose effect size is infinite.
    """
    sides = two_sides(x, y, groups_x, groups_y, paired)
    d = sides.x.shape[1]
    if n_heads < 1 or d % n_heads:
        raise UserError(f"{d} columns do not divide into {n_heads} heads")
    means_x, means_y = sides.by_sample(sides.x, sides.y)
    if sides.paired:
        by_dimension = _mean_product(means_x - means_y)
    else:
        cross = means_x.mean(0) * means_y.mean(0)
        by_dimension = _mean_product(means_x) + _mean_product(means_y) - 2.0 * cross
    return ContributionResult(
        cautions=cautions(sides),
        total=float(by_dimension.sum()),
        by_dimension=by_dimension,
        by_head=by_dimension.reshape(n_heads, -1).sum(1),
        effect_size=_effect_size(sides),
        paired=sides.paired,
    )


def _mean_product(values: Float[np.ndarray, "s d"]) -> Float[np.ndarray, " d"]:
    """Mean over s != t of the products of rows, for each column."""
    s = len(values)
    return (values.sum(0) ** 2 - (values**2).sum(0)) / (s * (s - 1))


def _effect_size(sides: CheckedSides) -> Float[np.ndarray, " d"]:
    x, y = sides.x, sides.y
    weights_x, weights_y = sides.weights_x, sides.weights_y
    mean_x, mean_y = weights_x @ x.astype(np.float64), weights_y @ y.astype(np.float64)
    variance = 0.5 * (weights_x @ (x - mean_x) ** 2 + weights_y @ (y - mean_y) ** 2)
    difference = mean_x - mean_y
    constant = variance <= 1e-12 * (mean_x**2 + mean_y**2)  # a constant up to rounding
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
