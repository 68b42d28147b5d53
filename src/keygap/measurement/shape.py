"""What the shape of a gap needs beyond single readings: dimensions, and MIR over the layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from keygap import gap
from keygap.contrasts.confounds import relative_size
from keygap.contrasts.sides import Case
from keygap.errors import UserError
from keygap.measurement.tables import DIMENSION_COLUMNS, statistics_frame


def by_dimension(key: Mapping[str, Any], case: Case, parts: gap.ContributionResult) -> pd.DataFrame:
    """Build the rows of ``dimensions.csv`` for one contrast at one site and layer.

    Args:
        key: the columns that say what was compared.
        case: its two sides, (n, heads, head_dim).
        parts: the contribution of each of the heads x head_dim dimensions.
    """
    heads, head_dim = case.a.array.shape[1:]
    size = relative_size(np.concatenate([case.a.array, case.b.array]))
    frame = pd.DataFrame(
        {
            **key,
            "head": np.repeat(np.arange(heads), head_dim),
            "dimension": np.tile(np.arange(head_dim), heads),
            "contribution": parts.by_dimension,
            "effect_size": parts.effect_size,
            "size": size.ravel(),
        }
    )
    return frame[list(DIMENSION_COLUMNS)]


def mir_over_layers(statistics: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Add up MIR over the layers of each site that a run has, without the first, as published.

    Args:
        statistics: rows of ``STATISTICS_COLUMNS`` with one ``mir_distance`` per layer.

    Returns:
        A row of layer ``all`` for each site and contrast, and a note for each that has none.
    """
    of_layers = statistics[
        (statistics["statistic"] == "mir_distance") & (statistics["layer"] != "0")
    ]
    rows, notes = [], []
    for (model, site, contrast), parts in of_layers.groupby(
        ["model", "site", "contrast"], sort=False
    ):
        try:
            value = gap.mir_of(parts["value"].tolist())
        except UserError as reason:
            notes.append(f"{model}, {site}: no mir of {contrast}: {reason}")
            continue
        shared = parts.iloc[0][["model", "connector", "benchmark", "site", "contrast", "rung"]]
        rows.append(
            {
                **shared,
                "layer": "all",
                "head": "all",
                "confound": "",
                "statistic": "mir",
                "side": "",
                "value": value,
                "settings": parts["settings"].iloc[0],
                "what": f"log10 of the sum of mir_distance over layers {', '.join(parts['layer'])}",
            }
        )
    return statistics_frame(rows), notes
