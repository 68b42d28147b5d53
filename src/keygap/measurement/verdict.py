"""How a gap between modalities compares with the other contrasts of its ladder.

The ratios are defined here once, so that a table, the command line and a report agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

SIGNIFICANT = 0.05
SUMMARY_COLUMNS = (
    "model", "site", "layer", "contrast", "mmd2", "highest", "kind", "ratio_kind", "interval",
    "same", "ratio_same",
)  # fmt: skip


def ratio_to_same(mmd2: float, upper_ends: Iterable[float]) -> float:
    """Compare a gap with contrasts of rung ``same``, which are 0 apart from noise.

    The denominator is the largest value that these contrasts can have, the upper end of their
    intervals, because a ratio to a value that is 0 within noise is noise. The ratio is
    therefore cautious about the denominator; the error of the gap itself is not included.

    Args:
        mmd2: MMD squared of the gap.
        upper_ends: the upper interval ends of MMD squared (``mmd2_ci_high``) of the contrasts of
            rung ``same`` at the same site, layer and head.

    Returns:
        The ratio; NaN if there are no such contrasts; infinity if all upper ends are 0 or less, so
        that the ratio has no bound.
    """
    known = [end for end in upper_ends if not math.isnan(end)]
    if not known or math.isnan(mmd2):
        return math.nan
    return mmd2 / max(known) if max(known) > 0 else math.inf


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """Summarise every contrast between modalities, all heads together.

    Args:
        frame: rows of ``GAP_COLUMNS`` without confounds.

    Returns:
        One row per site, layer and contrast of rung ``between`` (``SUMMARY_COLUMNS``). ``mmd2`` is
        its MMD squared; ``ratio_kind`` is the ratio to the largest contrast inside one modality,
        which ``highest`` names, ``kind`` is that contrast's MMD squared, and ``interval`` the 95 %
        interval of the ratio. ``same`` is the largest MMD squared of rung ``same``, the paper's
        baseline, and ``ratio_same`` the ratio to it (see ``ratio_to_same``).
    """
    rows: list[dict[str, Any]] = []
    whole = frame[frame["head"] == "all"]
    for (model, site, layer), table in whole.groupby(["model", "site", "layer"], sort=False):
        same = table[table["rung"] == "same"]
        by_name = table.set_index("contrast")["mmd2"].to_dict()
        for gap in table[table["rung"] == "between"].to_dict("records"):
            compared = not pd.isna(gap["ratio"])
            interval = f"{gap['ratio_ci_low']:.2f} to {gap['ratio_ci_high']:.2f}"
            rows.append(
                {
                    "model": model,
                    "site": site,
                    "layer": layer,
                    "contrast": gap["contrast"],
                    "mmd2": gap["mmd2"],
                    "highest": gap["highest"] if compared else "",
                    "kind": by_name[gap["highest"]] if compared else math.nan,
                    "ratio_kind": gap["ratio"],
                    "interval": interval if compared else "",
                    "same": float(same["mmd2"].max()),
                    "ratio_same": ratio_to_same(gap["mmd2"], same["mmd2_ci_high"]),
                }
            )
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def jsd_in_words(nats: float, estimator: str, p_value: float) -> str:
    """A JSD for a table, so that "none found" is never read as "none there".

    Args:
        nats: the bound.
        estimator: the critic behind it; ``none`` if no critic found a bound.
        p_value: that of MMD for the same comparison, which uses no critic.

    Returns:
        The number, or that no bound was found and whether MMD finds a difference.
    """
    if math.isnan(nats):
        return ""
    if estimator != "none" and nats > 0.0:
        return f"{nats:.3f}"
    if p_value <= SIGNIFICANT:
        return f"no bound found, but MMD finds a difference (p = {p_value:.2g})"
    return "no bound found"
