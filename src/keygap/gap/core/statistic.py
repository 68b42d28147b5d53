"""What a statistic is to the rest of keygap: a function of two sides whose result has readings.

Measuring, tables and reports must work with statistics that they do not know by name, including
those of other packages. So a statistic declares what it needs as plain fields, and everything it
returns can be read in one form, as ``Reading`` objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
from jaxtyping import Float

from keygap.errors import UserError
from keygap.gap.core.reading import Reading
from keygap.gap.core.sides import Sides

Coordinates = Literal["raw", "standardised", "components"]
Scope = Literal["ladder", "gap"]
T = TypeVar("T")


class Result(Protocol):
    """The result of any statistic."""

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Every number of the result that belongs in a table."""
        ...


@dataclass(frozen=True)
class Statistic:
    """A two-sample statistic that can be measured on any comparison.

    Calling it with ``Sides`` returns the result:

        readings = STATISTICS["frechet"](Sides(x, y, groups_x, groups_y)).readings

    Attributes:
        what: One line that says what the statistic measures.
        compute: Function of x (n, d) and y (m, d) in the declared coordinates, and of the ``Sides``
            they come from, which hold the sample ids and options. It raises ``UserError`` if the
            statistic is undefined for these vectors.
        coordinates: Form of the vectors that ``compute`` receives: "raw" as captured,
            "standardised" by column, or "components", the principal components of the latter.
        scope: Which comparisons of a run are measured. "ladder": all of them, that is every
            contrast and confound and every single head, so the statistic has to be cheap. "gap":
            only contrasts between modalities, with all heads together.
        together: The statistic of several comparisons at once, where that is cheaper than one after
            the other; see ``of_heads``. None: it is not.
    """

    what: str
    compute: Callable[[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"], Sides], Result]
    coordinates: Coordinates = "standardised"
    scope: Scope = "gap"
    together: Callable[[Sequence[Sides]], Sequence[Result | UserError]] | None = None

    def __call__(self, sides: Sides) -> Result:
        """Compute the statistic of the two sides."""
        x, y = getattr(sides, self.coordinates)
        return self.compute(x, y, sides)

    def of_heads(self, sides: Sequence[Sides]) -> list[Result | UserError]:
        """Compute the statistic of all heads together and of each head alone.

        Args:
            sides: All heads, then each head in the order of the columns, or all heads only; the
                rows, their samples, the seed and the number of bootstraps are the same.

        Returns:
            The result of each, or why the statistic is undefined for its vectors.
        """
        if self.together is not None:
            return list(self.together(sides))
        return [or_error(self, one) for one in sides]


def or_error(compute: Callable[[Sides], T], sides: Sides) -> T | UserError:
    """The result of a computation, or why it is undefined for these vectors."""
    try:
        return compute(sides)
    except UserError as reason:
        return reason
