"""Every figure of a report, one function each: tables in, a matplotlib figure out.

Colours are of a palette that colour-blind readers can tell apart (Okabe and Ito), the same for the
same thing everywhere: a contrast of the user's own takes the next of a cycle, in the order asked.
Every figure names what it is of, since it is also a file of its own.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

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
OWN_COLOURS = ("#56B4E9", "#332288", "#882255", "#44AA99", "#999933", "#6F4E37")
SINGLE = "one word against the rest: not a rung to stand on"
HATCH = "////"
VISIBLE = 0.005  # nats: a smaller fall of the JSD is not seen in its figure, nor marked
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


def contrasts_of(runs: Sequence[Run]) -> list[str]:
    """Names of the contrasts that runs were asked for: keygap's own order, then that of asking."""
    asked = [item["name"] for run in runs for item in run.table.settings["contrasts"]]
    return [name for name in CONTRASTS if name in asked] + [
        name for name in dict.fromkeys(asked) if name not in CONTRASTS
    ]


def colours_of(runs: Sequence[Run]) -> dict[str, str]:
    """A colour for every contrast of some runs."""
    cycle = itertools.cycle(OWN_COLOURS)
    return {name: COLOURS.get(name) or next(cycle) for name in contrasts_of(runs)}


def fitted(text: str, inches: float, size: float = 9) -> str:
    """A title in as many lines as its width in a figure needs."""
    width = int(inches * 72 / (0.58 * size))
    # a model's name breaks at its hyphens only where it is longer than a line
    long = any(len(word) > width for word in text.split())
    return textwrap.fill(text, width, break_on_hyphens=long)


def named(figure: Figure, run: Run, site: str, what: str) -> None:
    """Head a figure of one run with what it shows and of what."""
    text = f"{what}: {run.model} on {run.manifest['benchmark']}, {site}"
    figure.suptitle(fitted(text, figure.get_figwidth()), size=9)


def _panel(runs: Sequence[Run], run: Run, layer: Any, inches: float) -> str:
    """A panel's title; the benchmark where there are several."""
    several = len({str(one.manifest["benchmark"]) for one in runs}) > 1
    where = f" on {run.manifest['benchmark']}" if several else ""
    return fitted(f"{run.model}{where}, layer {int(layer)}", inches)


def ladder(runs: Sequence[Run], site: str) -> Figure:
    """MMD squared of every contrast, all heads together: a row per model, a column per layer.

    A contrast one side of which is a single word is hatched: it is no rung to stand on.
    """
    tables = [_whole(run, site) for run in runs]
    layers = max((sorted(table["layer"].unique()) for table in tables), key=len)
    measured = {name for table in tables for name in table["contrast"]}
    names = [name for name in contrasts_of(runs) if name in measured][::-1]
    colour_of = colours_of(runs)
    figure, grid = canvas(len(runs), len(layers), 3.0, max(2.0, 1.0 + 0.2 * len(names)))
    for empty in grid.flat:
        empty.set_visible(False)  # models differ in depth
    top = max(float(table["mmd2_ci_high"].max()) for table in tables)
    for row, (run, table) in enumerate(zip(runs, tables, strict=True)):
        for column, layer in enumerate(sorted(table["layer"].unique())):
            axes: Axes = grid[row, column]
            axes.set_visible(True)
            part = table[table["layer"] == layer].set_index("contrast").reindex(names)
            colours = [colour_of[name] for name in names]
            bars = axes.barh(names, part["mmd2"], xerr=_errors(part), color=colours, height=0.7)
            for bar, rung, colour in zip(bars, part["rung"], colours, strict=True):
                if rung == "single":
                    bar.set(hatch=HATCH, facecolor="#FFFFFF", edgecolor=colour)
            axes.set_xlim(min(0.0, float(part["mmd2_ci_low"].min())), top * 1.02)
            axes.set_title(_panel(runs, run, layer, 2.6))
            axes.set_ylim(-0.6, len(names) - 0.4)  # a contrast that is not there keeps its place
            axes.tick_params(axis="y", length=0)
            if column:
                axes.set_yticklabels([])
            if row == len(runs) - 1:
                axes.set_xlabel("MMD² (95 % interval)")
    figure.suptitle(f"The ladder at {site}, all heads", size=9)
    if any((table["rung"] == "single").any() for table in tables):
        hatched = Patch(hatch=HATCH, facecolor="#FFFFFF", edgecolor="#555555", label=SINGLE)
        figure.legend(handles=[hatched], loc="outside lower center", fontsize=8)
    return figure


def planes(runs: Sequence[Run], site: str) -> Figure:
    """t-SNE of image and text tokens: a row per model, a column per layer.

    The legend names the roles that count as text here: a projection chooses its own.
    """
    frames = [run.picture(site) for run in runs]
    layers = [sorted(frame["layer"].unique()) for frame in frames]  # models differ in depth
    figure, grid = canvas(len(runs), max(map(len, layers)), 2.6, 2.6)
    for axes in grid.flat:
        axes.set_axis_off()
    roles = sorted({role for f in frames for role in f.loc[f["modality"] == "text", "role"]})
    labels = {"text": f"text ({', '.join(roles)})", "image": "image"}
    for row, (run, frame) in enumerate(zip(runs, frames, strict=True)):
        for column, layer in enumerate(layers[row]):
            axes = grid[row, column]
            part = frame[frame["layer"] == layer]
            for modality in ("text", "image"):
                points = part[part["modality"] == modality]
                axes.scatter(
                    points["x"], points["y"], s=2, alpha=0.6, linewidths=0,
                    color=COLOURS[modality], label=labels[modality], rasterized=True,
                )  # fmt: skip
            axes.set_title(_panel(runs, run, layer, 2.3))
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, markerscale=4, loc="outside upper right", ncols=2)
    note = "t-SNE keeps neighbours, not distances: separation here is no measure"
    figure.supxlabel(fitted(note, figure.get_figwidth(), 8), size=8)
    figure.suptitle(fitted(f"t-SNE at {site}", figure.get_figwidth()), size=9)
    return figure


def gap_by_layer(run: Run, site: str) -> Figure:
    """MMD squared over layers with its interval, one line per contrast, above the null's band.

    A hollow point is a contrast one side of which is a single word.
    """
    figure, grid = canvas(1, 1, 6.4, 3.4)
    axes: Axes = grid[0, 0]
    table = _whole(run, site)
    for contrast, colour in colours_of([run]).items():
        part = table[table["contrast"] == contrast].sort_values("layer")
        if part.empty:
            continue
        axes.plot(part["layer"], part["mmd2"], "o-", ms=3, color=colour, label=contrast)
        single = part[part["rung"] == "single"]
        axes.plot(single["layer"], single["mmd2"], "o", ms=3, color=colour, mfc="#FFFFFF")
        axes.fill_between(
            part["layer"], part["mmd2_ci_low"], part["mmd2_ci_high"], color=colour, alpha=0.15
        )
    between = table[table["contrast"] == "image_text"]
    axes.fill_between(
        between["layer"], between["mmd2_null_low"], between["mmd2_null_high"],
        color="#000000", alpha=0.35, lw=0.8, label="image_text, labels swapped (95 %)",
    )  # fmt: skip
    if (table["rung"] == "single").any():
        label = fitted(SINGLE, 2.2)
        axes.plot([], [], "o", ms=3, color="#555555", mfc="#FFFFFF", label=label)
    axes.set_xlabel("layer")
    axes.set_ylabel("MMD²")
    named(figure, run, site, "MMD² by layer, all heads")
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
    width, height = 0.28 * square.shape[1], 0.28 * square.shape[0]
    figure, grid = canvas(1, 1, max(3.4, 1.6 + width), 1.5 + height)
    axes: Axes = grid[0, 0]
    image = axes.imshow(square.to_numpy(), cmap="cividis", vmin=0, aspect="auto")
    axes.set_xticks(range(square.shape[1]), [str(head) for head in square.columns])
    axes.set_yticks(range(square.shape[0]), [str(layer) for layer in square.index])
    axes.set_xlabel("key head")
    axes.set_ylabel("layer")
    named(figure, run, site, "image_text MMD² by head")
    figure.colorbar(image, ax=axes)
    return figure


def jsd_profile(run: Run, site: str) -> Figure:
    """JSD over PCA dimensions, a panel per layer; from the ring on it is full and ranks nothing.

    The components are nested, so the true JSD cannot fall from one number of them to a larger one.
    Where the bound does, its critic ran out of samples: such points are hollow, their lines dashed.
    """
    table = run.table.profile[run.table.profile["site"] == site]
    layers = sorted(table["layer"].unique())
    figure, grid = canvas(1, len(layers), 2.6 + 1.6 / len(layers), 3.0)
    short = False
    for axes, layer in zip(grid[0], layers, strict=True):
        for contrast, colour in colours_of([run]).items():
            part = table[(table["layer"] == layer) & (table["contrast"] == contrast)]
            if not part.empty:
                part = part.sort_values("jsd_dim")
                short |= _curve(axes, part, contrast, colour)
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
    note = "dotted: ln 2, the most it can be; ringed: 95 % of that, saturated"
    if short:
        note += "; hollow, dashed: below an earlier point, so too few samples for the classifier"
    figure.supxlabel(fitted(note, figure.get_figwidth(), 8), size=8)
    named(figure, run, site, "JSD, all heads")
    return figure


def _curve(axes: Axes, part: pd.DataFrame, label: str, colour: str) -> bool:
    """One contrast's JSD over dimensions; whether any point is below an earlier one."""
    dims, nats = part["jsd_dim"].to_numpy(), part["jsd_nats"].to_numpy()
    fallen = nats < np.maximum.accumulate(nats) - VISIBLE
    for end in range(1, len(dims)):
        style = "--" if fallen[end - 1 : end + 1].any() else "-"
        axes.plot(dims[end - 1 : end + 1], nats[end - 1 : end + 1], style, color=colour)
    axes.plot(dims[fallen], nats[fallen], "o", ms=3, color=colour, mfc="#FFFFFF", zorder=3)
    axes.plot(dims[~fallen], nats[~fallen], "o", ms=3, color=colour)
    full = dims == part["jsd_saturates_at"].to_numpy()
    axes.plot(dims[full], nats[full], "o", ms=9, mfc="none", color=colour)
    axes.plot([], [], "o-", ms=3, color=colour, label=label)
    return bool(fallen.any())
