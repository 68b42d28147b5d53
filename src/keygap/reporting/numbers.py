"""How numbers are written in a report, so that none claims more than it is."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd

from keygap.display import counted


def fixed(value: float | None, digits: int) -> str:
    """Format a number with a fixed number of decimals.

    A missing number is empty, an infinite one has no bound, and one that rounds to zero no sign.
    """
    if value is None or math.isnan(value):
        return ""
    if math.isinf(value):
        return "no bound"
    text = f"{value:.{digits}f}"
    return text if float(text) else text.removeprefix("-")


def samples_in(counts: pd.Series) -> str:
    """How many samples some rows are of.

    Args:
        counts: the number of samples of each row.
    """
    least, most = int(counts.min()), int(counts.max())
    return counted(most, "sample") if least == most else f"{least:,} to {counted(most, 'sample')}"


def least_p(statistics: pd.DataFrame) -> dict[tuple[str, int], int]:
    """The number of label swaps behind the p-values of MMD, by site and layer.

    Args:
        statistics: rows of ``statistics.parquet``.

    Returns:
        Swaps of the test of all heads together; empty for a run that did not record them.
    """
    rows = statistics[(statistics["statistic"] == "mmd2") & (statistics["head"] == "all")]
    found: dict[tuple[str, int], int] = {}
    for row in rows.to_dict("records"):
        settings = json.loads(row["settings"] or "{}")
        if "n_permutations" in settings:
            found[str(row["site"]), int(row["layer"])] = int(settings["n_permutations"])
    return found


def p_value(p: float, swaps: int | None = None) -> str:
    """A permutation p-value; one that no swap reached is written as the bound that it is.

    Args:
        p: the p-value.
        swaps: number of label swaps, if it is known.
    """
    if math.isnan(p):
        return ""
    if swaps is not None and p <= 1.0000001 / (1 + swaps):
        return f"\u2264 {1 / (1 + swaps):.2g}"
    return f"{p:.3g}"


def near_zero(value: float, null_low: float, null_high: float, digits: int = 4) -> str:
    """A number, or that it is 0 within the band that label swaps give.

    Args:
        value: an unbiased estimate, which is as often below 0 as above where the truth is 0.
        null_low: low end of the band.
        null_high: high end of the band.
        digits: decimals.
    """
    if null_low <= value <= null_high:
        return f"0 \u00b1 {max(abs(null_low), abs(null_high)):.{digits}f}"
    return fixed(value, digits)


def from_to(values: pd.Series, digits: int) -> str:
    """The smallest and the largest of some numbers, or the one that they round to."""
    first, last = fixed(values.min(), digits), fixed(values.max(), digits)
    return first if first == last else f"{first} to {last}"


def with_interval(value: float, low: float, high: float, digits: int) -> str:
    """A number with the ends of its interval, as far as they are known; empty without a number."""
    if math.isnan(low) or math.isnan(high):
        return fixed(value, digits)
    if math.isnan(value):
        return ""
    return f"{fixed(value, digits)} ({fixed(low, digits)} to {fixed(high, digits)})"


def largest(rows: pd.DataFrame, column: str) -> Any:
    """The row with the largest number in a column; numbers that are not known do not count."""
    return rows.iloc[int(np.nanargmax(rows[column].to_numpy(float)))]


def smallest(rows: pd.DataFrame, column: str) -> Any:
    """The row with the smallest number in a column, as ``largest``."""
    return rows.iloc[int(np.nanargmin(rows[column].to_numpy(float)))]
