"""The common form of a statistic's numbers, so that one table can hold all of them.

Each result class has its own fields. A table that lists several statistics needs rows of one shape,
so every result also has ``readings``, a tuple of ``Reading``. Tables and reports use nothing else
of a result, and a new statistic appears in them without a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Reading:
    """One number of a statistic and what is known about it.

    Attributes:
        name: Name of the number, the same for every comparison. It is unique in a result together
            with ``side``, ``head`` and ``dims``.
        value: The number; None where it is undefined, such as a share of a gap of zero.
        what: One line that explains the number to the reader of a table, with its unit.
        side: "x" or "y" if the number describes one side alone, "" if it describes both.
        head: Index of the head that the number describes; None: all dimensions together.
        ci: Low and high end of the confidence interval; None: there is none.
        null: Mean of the number under label swaps, which is what it reads without a difference
            between the sides; None: unknown.
        p_value: Probability of a value at least as large without a difference; None: not tested.
        dims: Number of columns or principal components that it was computed in; None: not stated.
        null_band: Low and high end of the band that holds most values under label swaps; None:
            unknown.
        settings: What the number depends on, as plain values: the kernel, its bandwidth, the
            estimator, the confidence level and so on.
    """

    name: str
    value: float | None
    what: str
    side: str = ""
    head: int | None = None
    ci: tuple[float, float] | None = None
    null: float | None = None
    p_value: float | None = None
    dims: int | None = None
    null_band: tuple[float, float] | None = None
    settings: Mapping[str, Scalar] = field(default_factory=dict)
