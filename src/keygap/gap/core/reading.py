"""What a statistic says, as numbers with a name: one form for all, so that a table can hold them.

A result knows its own fields; a table of several statistics needs rows that are alike. So every
result that goes into such a table has `readings`, and the table knows nothing else of it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """One number of a statistic, and what is known about it (None: nothing)."""

    name: str
    value: float | None  # None: it does not exist here (a share of a gap that is not there)
    what: str  # one line for the reader of the table
    side: str = ""  # "x" or "y" where the number is of one side alone
    head: int | None = None  # None: all dimensions together
    ci: tuple[float, float] | None = None  # 95 % unless the result says otherwise
    null: float | None = None  # the same number where labels are swapped: what no gap would read
    p_value: float | None = None
    dims: int | None = None  # columns, or principal components, that it was taken in
