"""Wide views of ``statistics.parquet``: one row per comparison, columns by statistic.

``statistics.parquet`` has one row for each number, so that it can hold any statistic. The views
have the columns that people read and plot. Every number in a view is in the long table too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

JSD_DIM = 2  # of gap.csv: in more components the JSD of almost any two kinds of token is ln 2
RATIO = "mmd2_ratio"  # MMD squared over that of the highest contrast inside one modality
IN_GAP = ("mmd2", "mmd", "jsd", RATIO)  # the statistics of gap.csv and jsd.csv

STATISTICS_COLUMNS = (
    "model", "connector", "benchmark", "site", "layer", "head", "contrast", "rung", "confound",
    "statistic", "side", "dims", "value", "ci_low", "ci_high", "null", "null_low", "null_high",
    "p_value", "p_holm", "n_samples", "n_a", "n_b", "settings", "what",
)  # fmt: skip
GAP_COLUMNS = (
    "model", "connector", "benchmark", "site", "layer", "head", "contrast", "rung", "confound",
    "n_samples", "n_a", "n_b",
    "mmd2", "mmd2_ci_low", "mmd2_ci_high", "mmd2_null_low", "mmd2_null_high", "mmd",
    "p_value", "p_holm", "bandwidth",
    "jsd_nats", "jsd_bits", "jsd_ci_low", "jsd_ci_high", "jsd_dim", "jsd_estimator",
    "highest", "ratio", "ratio_ci_low", "ratio_ci_high",
)  # fmt: skip
PROFILE_COLUMNS = (
    "model", "connector", "benchmark", "site", "layer", "contrast", "rung",
    "jsd_nats", "jsd_bits", "jsd_ci_low", "jsd_ci_high", "jsd_dim", "jsd_estimator",
    "jsd_saturates_at", "mmd_p_value",
)  # fmt: skip
SHAPE_COLUMNS = (
    "model", "connector", "benchmark", "site", "layer", "head", "contrast", "statistic", "side",
    "dims", "value", "ci_low", "ci_high", "null", "p_value", "what",
)  # fmt: skip
# What a comparison is identified by. With statistic, side and dims, a row of the long table.
KEY = ["model", "benchmark", "site", "layer", "head", "contrast", "confound"]


def gap_view(statistics: pd.DataFrame) -> pd.DataFrame:
    """Build ``gap.csv``: MMD, JSD in two components and the ratio of every comparison.

    Args:
        statistics: rows of ``STATISTICS_COLUMNS``.

    Returns:
        One row per site, layer, head, contrast and confound (``GAP_COLUMNS``), in the order of
        ``statistics``.
    """
    rows = statistics[statistics["statistic"] == "mmd2"].set_index(KEY)
    jsd = _of(statistics, "jsd", dims=JSD_DIM).reindex(rows.index)
    ratio = _of(statistics, RATIO).reindex(rows.index)
    wide = rows.assign(
        mmd2=rows["value"],
        mmd2_ci_low=rows["ci_low"],
        mmd2_ci_high=rows["ci_high"],
        mmd2_null_low=rows["null_low"],
        mmd2_null_high=rows["null_high"],
        mmd=_of(statistics, "mmd").reindex(rows.index)["value"],
        bandwidth=_setting(rows, "bandwidth"),
        **_jsd_columns(jsd),
        highest=_setting(ratio, "highest"),
        ratio=ratio["value"],
        ratio_ci_low=ratio["ci_low"],
        ratio_ci_high=ratio["ci_high"],
    ).reset_index()
    return _typed(wide, GAP_COLUMNS, ["layer", "n_samples", "n_a", "n_b", "jsd_dim"])


def profile_view(statistics: pd.DataFrame) -> pd.DataFrame:
    """Build ``jsd.csv``: the JSD by number of principal components, all heads together.

    A JSD of 0 says that no critic found a difference, and not that there is none. So every row also
    has the p-value of MMD, a test that uses no critic. It is that of the whole vectors, whatever
    the number of components.

    Args:
        statistics: rows of ``STATISTICS_COLUMNS``.

    Returns:
        One row per site, layer, contrast and number of components (``PROFILE_COLUMNS``).
    """
    whole = (statistics["head"] == "all") & (statistics["confound"] == "")
    rows = statistics[(statistics["statistic"] == "jsd") & whole]
    saturates_at = _setting(rows, "saturates_at").astype(float)
    by_mmd = _of(statistics, "mmd2")["p_value"].reindex(pd.MultiIndex.from_frame(rows[KEY]))
    wide = rows.assign(
        **_jsd_columns(rows), jsd_saturates_at=saturates_at, mmd_p_value=by_mmd.to_numpy()
    )
    return _typed(wide, PROFILE_COLUMNS, ["layer", "jsd_dim"])


def shape_view(statistics: pd.DataFrame) -> pd.DataFrame:
    """Build ``shape.csv``: all other statistics of the contrasts between modalities.

    Args:
        statistics: rows of ``STATISTICS_COLUMNS``.

    Returns:
        One row per site, layer, head, contrast and number (``SHAPE_COLUMNS``). Layers are text,
        because a number over all layers has the layer ``all``.
    """
    between = (statistics["rung"] == "between") & (statistics["confound"] == "")
    rows = statistics[between & ~statistics["statistic"].isin(IN_GAP)]
    return _typed(rows.assign(dims=rows["dims"].astype(float)), SHAPE_COLUMNS, [])


def _of(statistics: pd.DataFrame, name: str, dims: int | None = None) -> pd.DataFrame:
    """Rows of one statistic by ``KEY``, in one number of components where there are several."""
    rows = statistics[statistics["statistic"] == name]
    if dims is not None:
        rows = rows[rows["dims"] == dims]
    return rows.set_index(KEY)


def _jsd_columns(rows: pd.DataFrame) -> dict[str, pd.Series]:
    return {
        "jsd_nats": rows["value"],
        "jsd_bits": rows["value"] / math.log(2.0),
        "jsd_ci_low": rows["ci_low"],
        "jsd_ci_high": rows["ci_high"],
        "jsd_dim": rows["dims"],
        "jsd_estimator": _setting(rows, "estimator"),
    }


def _setting(rows: pd.DataFrame, name: str) -> pd.Series:
    """One of the settings of every row; NaN where a row does not have it."""
    values = [
        np.nan if pd.isna(text) else json.loads(text).get(name, np.nan) for text in rows["settings"]
    ]
    return pd.Series(values, index=rows.index)


def _typed(wide: pd.DataFrame, columns: Sequence[str], integers: Sequence[str]) -> pd.DataFrame:
    return wide[list(columns)].astype(dict.fromkeys(integers, int)).reset_index(drop=True)
