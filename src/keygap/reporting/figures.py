"""The figures of a report: each function takes runs and returns a matplotlib figure.

Colours are from a palette that colour-blind readers can tell apart (Okabe and Ito). One contrast
has one colour in all figures; contrasts without a colour of their own take the next one of a cycle.
Every figure states its model, benchmark and site, because it is also saved as a file of its own.
"""

from __future__ import annotations

import itertools
import logging
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from keygap.reporting.run import Run, contrasts_of
from keygap.text import printable

logger = logging.getLogger("keygap")

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
OTHER_COLOURS = ("#56B4E9", "#332288", "#882255", "#44AA99", "#999933", "#6F4E37")
SINGLE = "one word against the rest: large by construction, not a reference"
ACROSS = 4  # most panels beside each other
PANEL = 2.4  # width of a panel in inches
VISIBLE = 0.005  # nats: a smaller decrease of the JSD is not visible in the figure and not marked
FALLEN = "too few samples: below an earlier point"
MARKS: dict[str, dict[str, Any]] = {  # what a profile of the JSD marks, with its style
    "ln 2, the maximum": {"ls": ":", "lw": 0.8},
    "95 % of it: saturated": {"ls": "", "marker": "o", "ms": 9, "mfc": "none"},
    FALLEN: {"ls": "--", "marker": "o", "ms": 3, "mfc": "#FFFFFF"},
}
MISSING_GLYPH = re.compile(r"Glyph (\d+) .*missing from|Matplotlib currently does not support")
# Fonts with characters that matplotlib's own lacks, on Linux, Windows and macOS.
FURTHER_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC"),
    *("WenQuanYi Zen Hei", "Droid Sans Fallback", "Microsoft YaHei", "Malgun Gothic"),
    *("PingFang SC", "Hiragino Sans GB", "Noto Sans Arabic", "Noto Sans Hebrew"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Nirmala UI", "Arial Unicode MS"),
)
STYLE: Any = {  # matplotlib parameters of every figure
    # Names of models are text, whatever "$" or "\\" they have.
    "text.parse_math": False,
    "text.usetex": False,
    "font.family": [
        "DejaVu Sans",
        *sorted(set(FURTHER_FONTS) & set(font_manager.get_font_names()), key=FURTHER_FONTS.index),
    ],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "svg.hashsalt": "keygap",  # equal tables give equal files
    "svg.fonttype": "none",  # text is text: it can be searched, selected and read aloud
    "pdf.fonttype": 42,  # fonts that publishers accept
    "legend.frameon": False,
}


@contextmanager
def missing_glyphs_noted() -> Iterator[None]:
    """Say once which characters no installed font has, in place of a warning for each.

    Figures show an empty box for such a character.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", MISSING_GLYPH.pattern)
        yield
    missing: dict[str, None] = {}
    for warning in caught:
        if match := MISSING_GLYPH.match(str(warning.message)):
            missing[chr(int(match[1] or 32))] = None
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if missing := {character: None for character in missing if character.isprintable()}:
        logger.info(
            "figures show boxes for characters that no installed font has: %s", "".join(missing)
        )


def canvas(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """Make an empty figure.

    Args:
        rows: panels in a column.
        columns: panels in a row.
        width: of one panel, in inches.
        height: of one panel, in inches.

    Returns:
        The figure and its axes, an array of shape (rows, columns).
    """
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def colours_of(runs: Sequence[Run]) -> dict[str, str]:
    """The colour of every contrast of some runs."""
    cycle = itertools.cycle(OTHER_COLOURS)
    return {name: COLOURS.get(name) or next(cycle) for name in contrasts_of(runs)}


def fitted(text: str, inches: float, size: float = 9) -> str:
    """Break a title into lines that fit a width in inches, at a font size in points."""
    text, width = printable(text), int(inches * 72 / (0.58 * size))
    # A model's name is broken at its hyphens only if it is longer than a line.
    long = any(len(word) > width for word in text.split())
    return textwrap.fill(text, width, break_on_hyphens=long)


def named(figure: Figure, run: Run, site: str, what: str) -> None:
    """Title a figure of one run with its content, model, benchmark and site."""
    text = f"{what}: {run.model} on {run.manifest['benchmark']}, {site}"
    figure.suptitle(fitted(text, figure.get_figwidth()), size=9)


def all_heads(run: Run, site: str) -> pd.DataFrame:
    """Rows of all heads together at a site, without confounds."""
    frame = run.table.main
    return frame[(frame["head"] == "all") & (frame["site"] == site)]


def without_single(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without contrasts of a single word, which have a figure of their own."""
    return rows[rows["rung"] != "single"]


def _placed(
    tables: Sequence[pd.DataFrame],
) -> tuple[int, int, list[tuple[int, int, int, Any, pd.DataFrame]]]:
    """A panel for each run and layer: a row per run, or several where it has many layers.

    Returns:
        The numbers of rows and columns; and for each panel its row, its column, the number of the
        run, the layer and the rows of the table.
    """
    columns = min(ACROSS, max(table["layer"].nunique() for table in tables))
    placed, line = [], 0
    for number, table in enumerate(tables):
        parts = list(table.groupby("layer"))
        for place, (layer, part) in enumerate(parts):
            row, column = divmod(place, columns)
            placed.append((line + row, column, number, layer, part))
        line += -(-len(parts) // columns)
    return line, columns, placed


def _errors(table: pd.DataFrame) -> np.ndarray:
    low = table["mmd2"] - table["mmd2_ci_low"]
    high = table["mmd2_ci_high"] - table["mmd2"]
    return np.clip(np.stack([low, high]), 0, None)


def _panel(runs: Sequence[Run], run: Run, layer: Any, inches: float) -> str:
    """Title of a panel; it names the benchmark if the runs have several."""
    several = len({str(one.manifest["benchmark"]) for one in runs}) > 1
    where = f" on {run.manifest['benchmark']}" if several else ""
    return fitted(f"{run.model}{where}, layer {int(layer)}", inches)


def ladder(runs: Sequence[Run], site: str, single: bool = False) -> Figure | None:
    """MMD squared of every contrast, all heads together: a panel for each run and layer.

    Args:
        runs: the runs.
        site: where.
        single: draw the contrasts with a single word on one side, which are no reference, in place
            of all others.

    Returns:
        The figure; None if nothing of the kind was measured.
    """
    tables = [all_heads(run, site) for run in runs]
    tables = [table[(table["rung"] == "single") == single] for table in tables]
    runs = [run for run, table in zip(runs, tables, strict=True) if not table.empty]
    tables = [table for table in tables if not table.empty]
    if not tables:
        return None
    measured = {name for table in tables for name in table["contrast"]}
    colours = {name: c for name, c in reversed(colours_of(runs).items()) if name in measured}
    rows, columns, placed = _placed(tables)
    figure, grid = canvas(rows, columns, PANEL, max(1.3, 0.8 + 0.2 * len(colours)))
    for empty in grid.flat:
        empty.set_visible(False)  # a model may have fewer layers than the others
    top = max(float(table["mmd2_ci_high"].max()) for table in tables)
    last = {column: row for row, column, *_ in placed}
    for row, column, number, layer, part in placed:
        axes: Axes = grid[row, column]
        _ladder_panel(axes, part, colours, top)
        axes.set_title(_panel(runs, runs[number], layer, PANEL - 0.3))
        if column:
            axes.set_yticklabels([])
        if row == last[column]:
            axes.set_xlabel("MMD² (95 % interval)")
    what = "One word against the rest" if single else "The ladder"
    figure.suptitle(f"{what} at {site}, all heads", size=9)
    return figure


def _ladder_panel(axes: Axes, part: pd.DataFrame, colours: dict[str, str], top: float) -> None:
    """Draw the contrasts of one run and layer, from the bottom up."""
    part = part.set_index("contrast").reindex(list(colours))
    names, palette = list(colours), list(colours.values())
    axes.barh(names, part["mmd2"], xerr=_errors(part), color=palette, height=0.7, ecolor="#000000")
    axes.set_visible(True)
    axes.set_xlim(min(0.0, float(part["mmd2_ci_low"].min())), top * 1.02)
    axes.set_ylim(-0.6, len(colours) - 0.4)  # a contrast that was not measured keeps its row
    axes.tick_params(axis="y", length=0)


def projections(runs: Sequence[Run], site: str) -> Figure:
    """t-SNE of image and text tokens: a panel for each run and layer.

    The legend names the roles that count as text, which a projection chooses for itself.
    """
    frames = [run.projected(site) for run in runs]
    rows, columns, placed = _placed(frames)
    figure, grid = canvas(rows, columns, 2.4, 2.4)
    for axes in grid.flat:
        axes.set_axis_off()
    roles = sorted({role for f in frames for role in f.loc[f["modality"] == "text", "role"]})
    labels = {"text": f"text ({', '.join(roles)})", "image": "image"}
    for row, column, number, layer, part in placed:
        _scatter(grid[row, column], part, labels)
        grid[row, column].set_title(_panel(runs, runs[number], layer, 2.1))
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, markerscale=4, loc="outside upper right", ncols=2)
    note = "t-SNE preserves neighbours, not distances: separation here measures nothing"
    figure.supxlabel(fitted(note, figure.get_figwidth(), 8), size=8)
    figure.suptitle(fitted(f"t-SNE at {site}", figure.get_figwidth()), size=9)
    return figure


def _scatter(axes: Axes, part: pd.DataFrame, labels: dict[str, str]) -> None:
    """Draw the projected tokens of one run and layer, one colour per modality."""
    for modality, label in labels.items():
        points = part[part["modality"] == modality]
        axes.scatter(
            points["x"], points["y"], s=2, alpha=0.6, linewidths=0,
            color=COLOURS[modality], label=label, rasterized=True,
        )  # fmt: skip


def gap_by_layer(run: Run, site: str) -> Figure:
    """MMD squared by layer with its interval: a point per layer and contrast.

    Points are joined only where the layers are neighbours, because nothing was measured between the
    others. The grey bars of a contrast between modalities are its null distribution. Contrasts with
    a single word on one side are not drawn: they are no reference.
    """
    figure, grid = canvas(1, 1, 6.4, 3.4)
    axes: Axes = grid[0, 0]
    table = without_single(all_heads(run, site))
    for contrast in contrasts_of([run], "between"):
        null = table[table["contrast"] == contrast]
        middle = (null["mmd2_null_low"] + null["mmd2_null_high"]) / 2
        half = (null["mmd2_null_high"] - null["mmd2_null_low"]) / 2
        axes.errorbar(
            null["layer"], middle, yerr=half, fmt="_", ms=14, mew=3, elinewidth=9,
            color="#999999", label=f"{contrast}, labels swapped (95 %)", zorder=1,
        )  # fmt: skip
    for contrast, colour in colours_of([run]).items():
        part = table[table["contrast"] == contrast].sort_values("layer")
        if not part.empty:
            _points(axes, part, contrast, colour)
    axes.set_xticks(sorted(table["layer"].unique()) if table["layer"].nunique() <= 12 else [])
    if table["layer"].nunique() > 12:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("layer")
    axes.set_ylabel("MMD²")
    named(figure, run, site, "MMD² by layer, all heads")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _points(axes: Axes, part: pd.DataFrame, contrast: str, colour: str) -> None:
    """Draw one contrast over layers; neighbouring layers are joined."""
    layers, values = part["layer"].to_numpy(), part["mmd2"].to_numpy()
    axes.errorbar(
        layers, values, yerr=_errors(part), fmt="o", ms=4, elinewidth=1, color=colour,
        label=contrast, zorder=3,
    )  # fmt: skip
    for end in np.flatnonzero(np.diff(layers) == 1) + 1:
        axes.plot(layers[end - 1 : end + 1], values[end - 1 : end + 1], "-", lw=1, color=colour)


def jsd_profile(run: Run, site: str) -> Figure:
    """JSD by number of principal components, a panel per layer.

    A ring marks where a contrast saturates: from there on the JSD does not rank it. Components are
    nested, so the true JSD never decreases with their number. Where the bound does, its classifier
    had too few samples: such points are hollow and their lines dashed.
    """
    table = without_single(run.table.profile[run.table.profile["site"] == site])
    layers = sorted(table["layer"].unique())
    columns = max(1, min(ACROSS, len(layers)))
    figure, grid = canvas(-(-len(layers) // columns) or 1, columns, PANEL, 2.6)
    for empty in grid.flat[len(layers) :]:
        empty.set_visible(False)
    fallen = False
    for axes, layer in zip(grid.flat, layers, strict=False):
        for contrast, colour in colours_of([run]).items():
            part = table[(table["layer"] == layer) & (table["contrast"] == contrast)]
            if not part.empty:
                part = part.sort_values("jsd_dim")
                fallen |= _curve(axes, part, contrast, colour)
        axes.axhline(np.log(2), color="#999999", lw=0.8, ls=":")
        axes.set_xscale("log")
        ticks = sorted(table["jsd_dim"].unique())
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(-0.05, 0.75)
        axes.set_xlabel("principal components")
        axes.set_title(f"layer {layer}")
    grid[0, 0].set_ylabel("JSD, nats")
    named_once = {
        name: handle
        for axes in grid.flat
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    for name, style in MARKS.items():
        if fallen or name != FALLEN:
            named_once[name] = Line2D([], [], color="#777777", **style)
    figure.legend(named_once.values(), named_once, loc="outside lower center", ncols=3, fontsize=8)
    named(figure, run, site, "JSD, all heads")
    return figure


def _curve(axes: Axes, part: pd.DataFrame, label: str, colour: str) -> bool:
    """Draw the JSD of one contrast; returns whether any point is below an earlier one."""
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
