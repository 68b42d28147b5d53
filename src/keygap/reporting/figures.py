"""Every figure of a report, one function each: tables in, a matplotlib figure out.

Colours are of a palette that colour-blind readers can tell apart (Okabe and Ito), the same for the
same thing everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keygap.contrasts import CONTRASTS
from keygap.reporting.run import Run

COLOURS = {
    "image_text": "#D55E00",
    "text_vocabulary": "#0072B2",
    "image_region": "#009E73",
    "image_sink": "#CC79A7",
    "text_sink": "#E69F00",
    "text_token": "#F0E442",
    "image_image": "#8C8C8C",
    "text_text": "#555555",
    "image": "#D55E00",
    "text": "#0072B2",
}
STYLE: Any = {  # matplotlib's parameters while a report is drawn
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "svg.hashsalt": "keygap",  # the same table draws the same file
    "legend.frameon": False,
}


def canvas(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """An empty figure and its axes (rows, columns); sizes in inches, of one panel."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _whole(run: Run, site: str) -> pd.DataFrame:
    """Rows of all heads together."""
    frame = run.table.main
    return frame[(frame["head"] == "all") & (frame["site"] == site)]


def _errors(table: pd.DataFrame) -> np.ndarray:
    low = table["mmd2"] - table["mmd2_ci_low"]
    high = table["mmd2_ci_high"] - table["mmd2"]
    return np.clip(np.stack([low, high]), 0, None)


def _panel(runs: Sequence[Run], run: Run, layer: Any) -> str:
    """A panel's title; the benchmark where there are several."""
    several = len({str(one.manifest["benchmark"]) for one in runs}) > 1
    where = f" on {run.manifest['benchmark']}" if several else ""
    return f"{run.model}{where}, layer {int(layer)}"


def ladder(runs: Sequence[Run], site: str) -> Figure:
    """MMD squared of every contrast, all heads together: a row per model, a column per layer."""
    tables = [_whole(run, site) for run in runs]
    layers = max((sorted(table["layer"].unique()) for table in tables), key=len)
    names = [name for name in CONTRASTS if any(name in set(t["contrast"]) for t in tables)][::-1]
    figure, grid = canvas(len(runs), len(layers), 3.0, 2.0)
    top = max(float(table["mmd2_ci_high"].max()) for table in tables)
    for row, (run, table) in enumerate(zip(runs, tables, strict=True)):
        for column, layer in enumerate(sorted(table["layer"].unique())):
            axes: Axes = grid[row, column]
            part = table[table["layer"] == layer].set_index("contrast").reindex(names)
            colours = [COLOURS.get(name, "#000000") for name in names]
            axes.barh(names, part["mmd2"], xerr=_errors(part), color=colours, height=0.7)
            axes.set_xlim(min(0.0, float(part["mmd2_ci_low"].min())), top * 1.02)
            axes.set_title(_panel(runs, run, layer))
            axes.set_ylim(-0.6, len(names) - 0.4)  # a contrast that is not there keeps its place
            axes.tick_params(axis="y", length=0)
            if column:
                axes.set_yticklabels([])
            if row == len(runs) - 1:
                axes.set_xlabel("MMD² (95 % interval)")
    return figure


def planes(runs: Sequence[Run], site: str) -> Figure:
    """t-SNE of image and text tokens: a row per model, a column per layer."""
    frames = [run.picture(site) for run in runs]
    layers = [sorted(frame["layer"].unique()) for frame in frames]  # models differ in depth
    figure, grid = canvas(len(runs), max(map(len, layers)), 2.6, 2.6)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, (run, frame) in enumerate(zip(runs, frames, strict=True)):
        for column, layer in enumerate(layers[row]):
            axes = grid[row, column]
            part = frame[frame["layer"] == layer]
            for modality in ("text", "image"):
                points = part[part["modality"] == modality]
                axes.scatter(
                    points["x"], points["y"], s=2, alpha=0.6, linewidths=0,
                    color=COLOURS[modality], label=modality, rasterized=True,
                )  # fmt: skip
            axes.set_title(_panel(runs, run, layer))
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, markerscale=4, loc="outside upper right", ncols=2)
    figure.supxlabel("t-SNE keeps neighbours, not distances: separation here is no measure", size=8)
    return figure


def gap_by_layer(run: Run, site: str) -> Figure:
    """MMD squared over layers with its interval, one line per contrast, above the null's band."""
    figure, grid = canvas(1, 1, 6.0, 3.4)
    axes: Axes = grid[0, 0]
    table = _whole(run, site)
    for contrast, part in table.groupby("contrast", sort=False):
        colour = COLOURS.get(str(contrast), "#000000")
        axes.plot(part["layer"], part["mmd2"], "o-", ms=3, color=colour, label=contrast)
        axes.fill_between(
            part["layer"], part["mmd2_ci_low"], part["mmd2_ci_high"], color=colour, alpha=0.15
        )
    between = table[table["contrast"] == "image_text"]
    axes.fill_between(
        between["layer"], between["mmd2_null_low"], between["mmd2_null_high"],
        color="#000000", alpha=0.35, lw=0.8, label="image_text, labels swapped (95 %)",
    )  # fmt: skip
    axes.set_xlabel("layer")
    axes.set_ylabel("MMD²")
    axes.set_title(f"{run.model}, {site}, all heads")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def heads(run: Run, site: str) -> Figure:
    """MMD squared of image_text, layer by head."""
    table = run.table.main
    table = table[(table["site"] == site) & (table["head"] != "all")]
    table = table[table["contrast"] == "image_text"]
    square = table.assign(head=table["head"].astype(int)).pivot(
        index="layer", columns="head", values="mmd2"
    )
    figure, grid = canvas(1, 1, 1.6 + 0.28 * square.shape[1], 1.2 + 0.28 * square.shape[0])
    axes: Axes = grid[0, 0]
    image = axes.imshow(square.to_numpy(), cmap="cividis", vmin=0, aspect="auto")
    axes.set_xticks(range(square.shape[1]), [str(head) for head in square.columns])
    axes.set_yticks(range(square.shape[0]), [str(layer) for layer in square.index])
    axes.set_xlabel("key head")
    axes.set_ylabel("layer")
    axes.set_title("image_text MMD²")
    figure.colorbar(image, ax=axes)
    return figure


def jsd_profile(run: Run, site: str) -> Figure:
    """JSD over PCA dimensions, a panel per layer; from the ring on it is full and ranks nothing."""
    table = run.table.profile[run.table.profile["site"] == site]
    layers = sorted(table["layer"].unique())
    figure, grid = canvas(1, len(layers), 2.6, 2.6)
    for axes, layer in zip(grid[0], layers, strict=True):
        for contrast, part in table[table["layer"] == layer].groupby("contrast", sort=False):
            axes.plot(
                part["jsd_dim"], part["jsd_nats"], "o-", ms=3,
                color=COLOURS.get(str(contrast), "#000000"), label=contrast,
            )  # fmt: skip
        full = table[(table["layer"] == layer) & (table["jsd_dim"] == table["jsd_saturates_at"])]
        axes.plot(full["jsd_dim"], full["jsd_nats"], "o", ms=9, mfc="none", color="#000000", lw=0.8)
        axes.axhline(np.log(2), color="#999999", lw=0.8, ls=":")
        axes.set_xscale("log")
        ticks = sorted(table["jsd_dim"].unique())
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(-0.05, 0.75)
        axes.set_xlabel("PCA dimensions")
        axes.set_title(f"layer {layer}")
    grid[0, 0].set_ylabel("JSD, nats")
    grid[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.supxlabel("dotted: ln 2, the most it can be; ringed: 95 % of that, saturated", size=8)
    return figure
