"""The figure that carries the verdict: the ratio of the gap to the largest distance in a modality.

A forest plot has a row for each model and layer, so that intervals are read beside each other and
against the line at 1, where the gap is as large as an ordinary distance inside one modality.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    for place, row in enumerate(table.to_dict("records")):
        errors = [[row["ratio"] - row["ratio_ci_low"]], [row["ratio_ci_high"] - row["ratio"]]]
        axes.errorbar(
            [row["ratio"]], [place], xerr=errors, fmt="o", ms=4, capsize=2,
            color=colours[row["run"]],
        )  # fmt: skip
    axes.axvline(1.0, color="#000000", lw=0.8)
    axes.set_xscale("log")
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
    return (
        "The gap (MMD² between image and text) over the largest MMD² between two kinds of token "
        "inside one modality: a ratio without a unit, on a logarithmic axis, all heads together. "
        "A point right of the line at 1 with an interval that does not reach it is a gap larger "
        "than any distance inside one modality that was measured. Bars: 95 % jackknife intervals "
        f"over samples; n = {n}."
    )
