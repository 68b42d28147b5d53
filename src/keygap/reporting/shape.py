"""What kind of gap it is: a table and a figure of ``shape.csv`` and ``dimensions.csv``.

The table has a row for every statistic in the file and a column per layer, so a new statistic needs
no code here. The figure draws the statistics that are easier to read from a plot.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keygap.display import counted
from keygap.reporting.figures import COLOURS, OTHER_COLOURS, canvas, named
from keygap.reporting.numbers import from_to, largest, with_interval
from keygap.reporting.run import Run

VISIBLE = (0.3, 0.78)  # part of the colour map that is seen on white and on black
SHARES = {"share_mean": "#0072B2", "share_covariance": "#E69F00", "share_higher": "#8C8C8C"}


def tables(run: Run) -> list[dict[str, Any]]:
    """The tables of a run, one per site and contrast between modalities.

    Returns:
        For each a dictionary: ``site``, ``contrast``, ``layers``, and ``rows`` with the ``name`` of
        a statistic, ``what`` it is, and ``cells``, one text per layer.
    """
    frame = run.table.shape.frame
    frame = frame[frame["head"] == "all"]
    return [
        {"site": site, "contrast": contrast, **_table(part)}
        for (site, contrast), part in frame.groupby(["site", "contrast"], sort=False)
    ]


def _table(part: pd.DataFrame) -> dict[str, Any]:
    """Layers and rows of one table."""
    layers = list(dict.fromkeys(part["layer"]))
    rows = []
    # One statistic in several dims has several rows; dims that differ by layer share a row.
    nth = part.groupby(["layer", "statistic", "side"], sort=False).cumcount()
    for _, same in part.groupby(["statistic", "side", nth], sort=False):
        first = same.iloc[0]
        one = same["dims"].nunique() == 1
        dims = f"{first['dims']:g} dims" if one else ""
        cells = {row["layer"]: _cell(row, not one) for row in same.to_dict("records")}
        rows.append(
            {
                "name": ", ".join(filter(None, (first["statistic"], first["side"], dims))),
                "what": first["what"],
                "cells": [cells.get(layer, "") for layer in layers],
            }
        )
    return {"layers": layers, "rows": rows}


def _cell(row: Mapping[Hashable, Any], with_dims: bool) -> str:
    """Format a value with its interval and its null."""
    if pd.isna(row["value"]):
        return "no gap"
    parts = [f"{row['value']:.3g}"]
    if pd.notna(row["ci_low"]):
        parts.append(f"({row['ci_low']:.3g} to {row['ci_high']:.3g})")
    if pd.notna(row["null"]):
        parts.append(f"null {row['null']:.2g}")
    if with_dims and pd.notna(row["dims"]):
        parts.append(f"in {row['dims']:g} dims")
    return " ".join(parts)


def contrasts_at(run: Run, site: str) -> list[str]:
    """The contrasts between modalities that have these statistics at a site."""
    frame = run.table.shape.frame
    return list(dict.fromkeys(frame.loc[frame["site"] == site, "contrast"]))


def caption(run: Run, site: str, contrast: str) -> str:
    """What the figure shows and how to read it."""
    rows = run.table.main
    rows = rows[(rows["site"] == site) & (rows["contrast"] == contrast)]
    n = rows["n_samples"].max()
    return (
        f"What kind of difference {contrast} is, in standardised vectors of all heads; n = "
        f"{counted(int(n), 'sample')}. First row, by layer: shares of MMD² that the means, the "
        "covariances and what is left explain; spread (root mean squared distance of a vector to "
        "the centre of its side) and effective dimension (1 for a line, the number of dimensions "
        "for a round ball) of each side. Second row: each head's share of the difference of means; "
        "how many dimensions carry that difference (a curve that rises at once: few); JSD in nats "
        "by histogram, with its value under swapped labels dotted and its maximum ln 2 as a line. "
        "Intervals are in the table below."
    )


def in_words(run: Run, site: str, contrast: str) -> str:
    """What the figure shows, for readers who do not see it: its numbers over layers."""
    frame = run.table.shape.frame
    frame = frame[(frame["site"] == site) & (frame["contrast"] == contrast)]
    frame = frame[(frame["head"] == "all") & (frame["layer"] != "all")]
    parts = []
    for name in SHARES:
        values = frame.loc[frame["statistic"] == name, "value"].dropna()
        if len(values):
            what = name.removeprefix("share_").replace("higher", "higher moments")
            parts.append(f"{what} {from_to(100 * values, 0)} %")
    found = [f"shares of MMD squared: {', '.join(parts)}"] if parts else []
    for name in ("spread_ratio", "effective_dimension_ratio"):
        rows = frame[(frame["statistic"] == name) & frame["value"].notna()]
        if len(rows):
            far = largest(rows.assign(far=np.log(rows["value"]).abs()), "far")
            ratio = with_interval(far["value"], far["ci_low"], far["ci_high"], 2)
            what = name.replace("_", " ")
            found.append(f"{what} farthest from 1 at layer {far['layer']} with {ratio}")
    rows = frame[frame["statistic"] == "jsd_histogram"].dropna(subset="value")
    if len(rows):
        few = rows[rows["dims"] == rows["dims"].min()]
        found.append(
            f"JSD by histogram in {few['dims'].iloc[0]:g} components {from_to(few['value'], 2)} "
            f"nats, under swapped labels {from_to(few['null'], 2)}"
        )
    over = counted(frame["layer"].nunique(), "layer")
    what = "; ".join(found) or "there is no gap to describe"
    return f"What kind of gap {contrast} is at {site}, over {over}: {what}"


def figure(run: Run, site: str, contrast: str) -> Figure:
    """Draw the shares of MMD squared, spreads, dimensions, heads and the JSD by histogram."""
    frame, dimensions = (
        table[(table["site"] == site) & (table["contrast"] == contrast)]
        for table in (run.table.shape.frame, run.table.shape.dimensions)
    )
    frame = frame[frame["layer"] != "all"]
    layers = list(dict.fromkeys(frame["layer"]))
    drawn, grid = canvas(2, 3, 3.2, 2.6)
    _shares(grid[0, 0], frame, layers)
    _sides(grid[0, 1], frame, layers, "spread")
    _sides(grid[0, 2], frame, layers, "effective_dimension")
    _heads(drawn, grid[1, 0], frame, layers)
    colours = mpl.colormaps["viridis"](np.linspace(*VISIBLE, len(layers)))
    _dimensions(grid[1, 1], dimensions, layers, colours)
    _histogram(grid[1, 2], frame, layers, colours)
    named(drawn, run, site, f"What kind of gap is {contrast}")
    return drawn


def _label_layers(axes: Axes, layers: list[str]) -> None:
    step = -(-len(layers) // 8)  # at most eight labels
    axes.set_xticks(range(0, len(layers), step), layers[::step])
    axes.set_xlabel("layer")


def _shares(axes: Axes, frame: pd.DataFrame, layers: list[str]) -> None:
    bottom = np.zeros(len(layers))
    for name, colour in SHARES.items():
        part = frame[frame["statistic"] == name].set_index("layer")["value"]
        height = part.reindex(layers).astype(float).fillna(0.0).to_numpy()
        label = name.removeprefix("share_")
        axes.bar(range(len(layers)), height, bottom=bottom, color=colour, label=label, width=0.6)
        bottom += height
    axes.set_ylim(0, 1.3)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("share of MMD²")
    _label_layers(axes, layers)
    axes.legend(ncols=3, loc="upper center", fontsize=8, columnspacing=0.6, handlelength=0.8)


def _sides(axes: Axes, frame: pd.DataFrame, layers: list[str], name: str) -> None:
    rows = frame[frame["statistic"] == name]
    for side, other in zip(dict.fromkeys(rows["side"]), OTHER_COLOURS, strict=False):
        values = rows[rows["side"] == side].set_index("layer")["value"]
        values = values.reindex(layers).astype(float)
        colour = COLOURS.get(side, other)
        axes.plot(range(len(layers)), values, "o-", ms=3, color=colour, label=side)
    axes.set_ylim(0, None)
    axes.set_ylabel(name.replace("_", " "))
    _label_layers(axes, layers)
    axes.legend(fontsize=8)


def _heads(drawn: Figure, axes: Axes, frame: pd.DataFrame, layers: list[str]) -> None:
    part = frame[frame["statistic"] == "head_share"]
    square = (
        part.assign(head=part["head"].astype(int))
        .pivot(index="head", columns="layer", values="value")
        .reindex(columns=layers)
        .astype(float)
    )
    image = axes.imshow(square.to_numpy(), cmap="cividis", vmin=0, aspect="auto")
    axes.set_ylabel("key head")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _label_layers(axes, layers)
    drawn.colorbar(image, ax=axes, label="share of the difference of means")


def _dimensions(axes: Axes, table: pd.DataFrame, layers: list[str], colours: np.ndarray) -> None:
    for layer, colour in zip(layers, colours, strict=True):
        parts = table.loc[table["layer"].astype(str) == layer, "contribution"].to_numpy()
        largest_first = -np.sort(-parts)
        share = np.arange(1, len(parts) + 1) / len(parts)
        axes.plot(share, np.cumsum(largest_first) / largest_first.sum(), color=colour, label=layer)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, None)
    axes.set_xlabel("share of dimensions, largest first")
    axes.set_ylabel("share of the difference of means")
    _label_colours(axes, layers)


def _histogram(axes: Axes, frame: pd.DataFrame, layers: list[str], colours: np.ndarray) -> None:
    part = frame[frame["statistic"] == "jsd_histogram"]
    for layer, colour in zip(layers, colours, strict=True):
        rows = part[part["layer"] == layer]
        axes.plot(rows["dims"], rows["value"], "o-", ms=3, color=colour, label=layer)
        axes.plot(rows["dims"], rows["null"], "o:", ms=3, color=colour)
    axes.axhline(np.log(2), color="#999999", lw=0.8)
    axes.set_xscale("log")
    ticks = sorted(part["dims"].unique())
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 0.75)
    axes.set_ylabel("JSD by histogram (dotted: null)")
    axes.set_xlabel("principal components")
    _label_colours(axes, layers)


def _label_colours(axes: Axes, layers: list[str]) -> None:
    if len(layers) <= 6:
        axes.legend(title="layer", fontsize=8, title_fontsize=8)
