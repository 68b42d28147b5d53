"""The figure that carries the verdict: the ratio of the gap to the largest distance in a modality.

A forest plot has a row for each model and layer, so that intervals are read beside each other and
against the line at 1, where the gap is as large as the largest distance inside one modality.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keygap.display import counted
from keygap.reporting.figures import OTHER_COLOURS, canvas, fitted
from keygap.reporting.numbers import largest, smallest, with_interval
from keygap.reporting.run import Run

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", *OTHER_COLOURS)
ROW, EDGES, WIDTH = 0.27, 1.0, 6.4  # inches


def rows_of(runs: Sequence[Run], site: str) -> pd.DataFrame:
    """Ratios with an interval at a site, one row per run, contrast and layer."""
    parts = []
    for run in runs:
        frame = run.table.main
        own = frame[(frame["site"] == site) & (frame["head"] == "all") & frame["ratio"].notna()]
        several = own["contrast"].nunique() > 1
        benchmarks = {str(one.manifest["benchmark"]) for one in runs}
        where = f" on {run.manifest['benchmark']}" if len(benchmarks) > 1 else ""
        name = f"{run.model}{where}"
        label = name + (", " + own["contrast"] if several else "")
        parts.append(own.assign(name=label, run=name).sort_values(["contrast", "layer"]))
    return pd.concat(parts, ignore_index=True)


def forest(runs: Sequence[Run], site: str) -> Figure | None:
    """Draw the ratios at a site; None if no gap has anything to be compared with."""
    table = rows_of(runs, site)
    if table.empty:
        return None
    figure, grid = canvas(1, 1, WIDTH, EDGES + ROW * len(table))
    axes: Axes = grid[0, 0]
    colours = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(table["run"].unique())}
    axes.set_xscale("log")
    axes.set_xlim(*_span(table))
    for place, row in enumerate(table.to_dict("records")):
        _draw(axes, place, row, colours[row["run"]])
    axes.axvline(1.0, color="#000000", lw=0.8)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="minor", labelsize=8)
    labels = [
        f"{fitted(str(row['name']), 2.4)}, layer {row['layer']}" for row in table.to_dict("records")
    ]
    axes.set_yticks(range(len(table)), labels, size=8)
    axes.invert_yaxis()
    axes.set_xlabel("MMD\u00b2 of the gap over the largest MMD\u00b2 inside one modality")
    figure.suptitle(f"Is the gap larger than distances inside one modality? {site}", size=9)
    return figure


def _span(table: pd.DataFrame) -> tuple[float, float]:
    """Ends of the axis: all ratios, 1, and every end of an interval that a logarithm has."""
    ends = table[["ratio", "ratio_ci_low", "ratio_ci_high"]].to_numpy(float)
    known = ends[np.isfinite(ends) & (ends > 0)]
    return float(min(known.min(), 1.0)) / 1.2, float(max(known.max(), 1.0)) * 1.2


def _draw(axes: Axes, place: int, row: dict[Hashable, Any], colour: str) -> None:
    """A ratio and its interval; an arrow where an end is 0 or has no bound."""
    left, right = axes.get_xlim()
    low, high = max(row["ratio_ci_low"], left), min(row["ratio_ci_high"], right)
    axes.plot([low, high], [place, place], color=colour, marker="|", ms=4)
    axes.plot([row["ratio"]], [place], "o", ms=4, color=colour)
    for end, given, arrow in ((low, row["ratio_ci_low"], "<"), (high, row["ratio_ci_high"], ">")):
        if end != given:
            axes.plot([end], [place], arrow, ms=6, color=colour, clip_on=False)


def forest_in_words(runs: Sequence[Run], site: str) -> str:
    """What the forest plot shows, for readers who do not see it."""
    table = rows_of(runs, site)
    above = int((table["ratio_ci_low"] > 1).sum())
    least, most = (
        f"{with_interval(row['ratio'], row['ratio_ci_low'], row['ratio_ci_high'], 2)} "
        f"({row['name']}, layer {row['layer']})"
        for row in (smallest(table, "ratio"), largest(table, "ratio"))
    )
    return (
        f"Ratio of the gap to the largest distance inside one modality at {site}: from {least} to "
        f"{most}; in {above} of {counted(len(table), 'row')} the whole interval is above 1"
    )


def forest_caption(runs: Sequence[Run], site: str) -> str:
    """What the forest plot shows and how to read it."""
    table = rows_of(runs, site)
    low, high = int(table["n_samples"].min()), int(table["n_samples"].max())
    n = counted(high, "sample") if low == high else f"{low} to {counted(high, 'sample')}"
    open_ended = ((table["ratio_ci_low"] <= 0) | np.isinf(table["ratio_ci_high"])).any()
    return (
        "The gap (MMD² between image and text) over the largest MMD² between two kinds of token "
        "inside one modality: a ratio without a unit, on a logarithmic axis, all heads together. "
        "A point right of the line at 1 with an interval that does not reach it is a gap larger "
        "than any distance inside one modality that was measured. Bars: 95 % jackknife intervals "
        f"over samples; n = {n}.{' Arrows: intervals without an end here.' if open_ended else ''}"
    )
