"""The specification curve: the number of every choice, and below it which choices give it.

All parts share the horizontal axis, the sorted choices in percent. The figure is as wide as the
text of a paper, and nothing in it is smaller than 7 points. Marks at the quantiles of
``choices_curve.QUANTILES`` are links to the rows of the report's table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from keygap.display import counted
from keygap.reporting.choices_curve import PLACES, Curve, Lane, quantile, short
from keygap.reporting.figures import fitted
from keygap.text import printable

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#332288", "#999933")
INK, PUBLISHED, BAND = "#222222", "#882255", "#BBBBBB"
SIZE = 7.0  # points, of all text but the title
WIDTH = 5.5  # inches, the width of the text of a paper
LEFT, RIGHT = 1.86, 0.58  # inches, of the names of levels and of their medians
CURVE, VALUES, LINE = 1.9, 1.0, 0.122  # inches, of height; a line is of the matrix
PIXELS, GAP = 12, 5  # of a line of the matrix, and of the gap between factors
MOST_POINTS = 900
MOST_CHARACTERS = 22  # of the name of a level
NORM = PowerNorm(0.6, vmin=0, vmax=1)  # shades: small shares are still told apart
MOST_RANGE = 3e4  # from the smallest to the largest value that is drawn
MOST_NAMED = 4  # models that the title names
_BARS = (0.05, 0.25, 0.5, 0.75, 0.95)  # quantiles that are drawn for each model
NAMES = {"mmd": "ratio", "jsd": "JSD"}


def specification_curve(curve: Curve, published: Mapping[str, Any]) -> Figure:
    """Draw the curve of one measure.

    Args:
        curve: the sorted choices.
        published: the numbers ``cross``, ``intra`` and ``jsd`` of a source, as far as known.

    Returns:
        The figure. Its panels have the labels ``curve``, ``models``, ``values`` (of MMD only),
        ``levels`` and ``shades``.
    """
    lanes = curve.lanes()
    title, notes = _title(curve), _notes(curve)
    n_groups, n_notes = len({lane.factor for lane in lanes}), notes.count("\n") + 1
    heights = {
        "title": 0.14 + 0.155 * (title.count("\n") + 1),
        "curve": CURVE,
        "values": VALUES if curve.measure == "mmd" else 0.0,
        "levels": LINE * max(len(lanes) + n_groups * GAP / PIXELS, 1.0),
        "notes": 0.62 + 0.125 * n_notes,
    }
    gaps = 0.1 + 0.22
    height = sum(heights.values()) + gaps
    figure = Figure(figsize=(WIDTH, height))
    figure.text(0.1 / WIDTH, 1 - 0.1 / height, title, size=8.5, va="top")
    top = height - heights["title"]
    main = _axes(figure, "curve", top, CURVE)
    beside = _axes(figure, "models", top, CURVE, beside=True)
    draw_curve(main, curve, published)
    _models(beside, main, curve)
    top -= CURVE + 0.22
    if curve.measure == "mmd":
        draw_values(_axes(figure, "values", top, VALUES), curve, published)
        top -= VALUES
    levels = _axes(figure, "levels", top - 0.1, heights["levels"])
    draw_levels(levels, curve, lanes)
    for axes in figure.axes:
        if axes.get_label() in ("curve", "values", "levels"):
            _horizontal(axes, curve, labelled=axes is levels)
    _shades(figure, 0.06 + 0.125 * n_notes)
    figure.text(0.1 / WIDTH, 0.05 / height, notes, size=SIZE, va="bottom", color=INK)
    return figure


def colours_of(models: Sequence[str]) -> dict[str, str]:
    """The colour of every model, in the order of the rows of a table."""
    return {model: PALETTE[number % len(PALETTE)] for number, model in enumerate(models)}


def draw_curve(axes: Axes, curve: Curve, published: Mapping[str, Any]) -> None:
    """Draw the sorted numbers, their intervals, the published number and the marks.

    Args:
        axes: of the panel.
        curve: the sorted choices. Infinite numbers are drawn on the upper edge, and those without a
            logarithm on the lower one.
        published: as in ``specification_curve``.
    """
    values, log = curve.values, curve.measure == "mmd"
    known = values[np.isfinite(values) & ((values > 0) if log else True)]
    cross, intra = published.get("cross"), published.get("intra")
    line = cross / intra if log and cross and intra else None if log else published.get("jsd")
    shown = [*known, *([1.0] if log else [0.0]), *([] if line is None else [line])]
    _scale(axes, min(shown), max(shown), log)
    bottom, top = axes.get_ylim()
    ends = [curve.by_column(curve.rows[f"{curve.number}_{end}"]) for end in ("low", "high")]
    low, high = (np.clip(np.append(end, end[-1]), bottom, top) for end in ends)
    axes.fill_between(
        curve.edges, low, high, step="post", color=BAND, alpha=0.6, lw=0, label="interval"
    )
    at = _points(curve)
    models = curve.rows["model"]
    palette = colours_of(models_of(curve))
    axes.scatter(
        curve.middles[at], np.clip(values[at], bottom, top), s=5, lw=0, clip_on=False, zorder=3,
        c=[palette[model] for model in models.iloc[at]], label="choices",
    )  # fmt: skip
    _marks(axes, curve)
    if log:
        axes.axhline(1, color="#777777", lw=0.6, ls=":")
        _edges(axes, curve)
    if line is not None:
        _published(axes, line, f"published: {line:.3g}")
    axes.set_ylabel("ratio of the gap to\nhalves of one modality" if log else "JSD", size=SIZE)


def models_of(curve: Curve) -> list[str]:
    """The models of a curve; their order does not depend on the numbers."""
    return sorted(curve.rows["model"].unique())


def _marks(axes: Axes, curve: Curve) -> None:
    """Mark the rows at the quantiles; in an SVG each mark is a link to its row in the report."""
    at = np.array(list(curve.marked()))
    bottom, top = axes.get_ylim()
    marks = axes.scatter(
        curve.middles[at], np.clip(curve.values[at], bottom, top), s=26, marker="D", lw=0.9,
        facecolors="#FFFFFF", edgecolors=INK, clip_on=False, zorder=5, label="marks",
    )  # fmt: skip
    marks.set_urls([f"#row-{row}" for row in curve.rows["row"].iloc[at]])


def _edges(axes: Axes, curve: Curve) -> None:
    """Say how many ratios are infinite or have no logarithm, and where they are."""
    bottom, top = axes.get_ylim()
    sides = (
        (curve.is_infinite, 100, top, "right", "infinite"),
        (curve.is_not_positive, 0, bottom, "left", "not above 0"),
    )
    for rows, edge, y, side, what in sides:
        if not rows.any():
            continue
        share = curve.weights[rows].sum()
        axes.axvspan(abs(edge - share), edge, color="#F0E442", alpha=0.35, lw=0, zorder=0)
        text = f"{what}: {rows.sum():,} ({share:.1f} %)"
        at = (98.5, 0.93) if y == top else (1.5, 0.03)
        box = {"facecolor": "#FFFFFF", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
        axes.text(
            *at, text, size=SIZE, ha=side, va="top" if y == top else "bottom", zorder=6,
            transform=axes.get_xaxis_transform(), bbox=box,
        )  # fmt: skip


def draw_values(axes: Axes, curve: Curve, published: Mapping[str, Any]) -> None:
    """Draw the values that the ratios are of: between modalities, and within one.

    Lines are medians of every column, and bands reach from the 5 % to the 95 % quantile.

    Args:
        axes: of the panel.
        curve: the sorted choices of MMD.
        published: as in ``specification_curve``.
    """
    within = curve.rows[["image_image", "text_text"]].mean(axis=1)
    x = (curve.edges[:-1] + curve.edges[1:]) / 2
    drawn = ((curve.rows["cross"], "between", "-", "#777777"), (within, "within", "--", "#CCCCCC"))
    known = [values[values > 0].quantile([0.01, 0.99]) for values, *_ in drawn]
    marks = [published[name] for name in ("cross", "intra") if published.get(name)]
    shown = [*np.concatenate(known), *marks]
    if not np.isfinite(shown).any():
        shown = [0.1, 1.0]
    top = np.nanmax(shown)  # a kernel that is too narrow gives values that are 0 but for noise
    _scale(axes, max(0.6 * np.nanmin(shown), top / MOST_RANGE), top, log=True)
    for values, label, style, colour in drawn:
        low, middle, high = (curve.by_column(values, q) for q in (0.05, 0.5, 0.95))
        floor = axes.get_ylim()[0]
        axes.fill_between(
            x, np.maximum(low, floor), np.maximum(high, floor), color=colour, alpha=0.45, lw=0
        )
        axes.plot(x, np.where(middle > 0, middle, np.nan), style, color=INK, lw=1, label=label)
    for name in ("cross", "intra"):
        if published.get(name):
            _published(axes, published[name], f"published: {published[name]:.3g}", beside=True)
    axes.set_ylabel("MMD or MMD²", size=SIZE)
    labels = ("between image and text", "within one modality")
    axes.legend(
        axes.lines[:2], labels, fontsize=SIZE, ncols=2, loc="lower left", handlelength=2.2,
        bbox_to_anchor=(-0.02, 0.95), borderpad=0.1, columnspacing=1.2,
    )  # fmt: skip


def _models(axes: Axes, main: Axes, curve: Curve) -> None:
    """Draw the quantiles of every model beside the curve: 5 to 95 %, 25 to 75 %, and the median."""
    models = models_of(curve)
    bottom, top = main.get_ylim()
    axes.set_yscale(main.get_yscale())
    axes.set_ylim(bottom, top)
    axes.set_xlim(-0.7, len(models) - 0.3)
    for number, (model, colour) in enumerate(colours_of(models).items()):
        own = curve.rows["model"].to_numpy() == model
        shown = [quantile(curve.values[own], curve.weights[own], q) for q in _BARS]
        ends = np.clip(shown, bottom, top)
        axes.plot([number] * 2, ends[[0, 4]], color=colour, lw=1, solid_capstyle="butt")
        axes.plot([number] * 2, ends[[1, 3]], color=colour, lw=3.5, solid_capstyle="butt")
        axes.plot([number], ends[[2]], "o", ms=3.2, mfc="#FFFFFF", mec=colour, mew=0.9, zorder=4)
    axes.set_axis_off()
    if len(models) > 1:
        place = axes.transAxes
        axes.text(0.5, 1.02, "by model", size=SIZE, ha="center", va="bottom", transform=place)


def draw_levels(axes: Axes, curve: Curve, lanes: Sequence[Lane]) -> None:
    """Draw the matrix: a line per level, grouped by factor, and the median of each level.

    Args:
        axes: of the panel. The matrix is one image, in which a line is ``PIXELS`` high and its last
            pixel is white.
        curve: the sorted choices.
        lanes: the lines.
    """
    if not lanes:  # a single choice, or several that differ in nothing
        axes.set_yticks([])
        return
    palette = colours_of(models_of(curve))
    side = axes.get_yaxis_transform()
    n_columns = len(curve.edges) - 1
    parts: list[np.ndarray] = []
    y, factor = 0, ""
    for lane in lanes:
        if lane.factor != factor:
            factor = lane.factor
            parts.append(np.ones((GAP, n_columns, 3)))
            y += GAP
            at = (-(LEFT - 0.1) / _inner(), y + PIXELS / 2)
            axes.text(*at, factor, size=SIZE, weight="bold", va="center", transform=side)
        colour = palette.get(lane.label, INK) if factor == "model" else INK
        parts.append(np.repeat(shaded(lane.shares, colour)[None], PIXELS, axis=0))
        parts[-1][-1] = 1
        style: dict[str, Any] = {"size": SIZE, "va": "center", "transform": side}
        axes.text(-0.02, y + PIXELS / 2, fit(lane.label), ha="right", **style)
        axes.text(1.03, y + PIXELS / 2, short(lane.median), **style)
        y += PIXELS
    axes.imshow(
        np.concatenate(parts), extent=(0, 100, y, 0), aspect="auto", interpolation="nearest"
    )
    axes.set_ylim(y, 0)
    axes.set_yticks([])
    axes.text(
        1.03, 0, f"median\n{NAMES[curve.measure]}", size=SIZE, va="bottom", linespacing=1.15,
        transform=side,
    )  # fmt: skip


def shaded(shares: Float[np.ndarray, " n"], colour: str) -> Float[np.ndarray, "n 3"]:
    """Mix white with a colour: white at a share of 0, the colour at 1."""
    weight = np.asarray(NORM(shares), float)[:, None]
    return 1 - weight * (1 - np.array(to_rgb(colour)))


def fit(label: str) -> str:
    """The name of a level without line breaks and folders, its middle left out if it is long."""
    text = printable(label)
    if len(text) > MOST_CHARACTERS:
        text = text.rstrip("/").rpartition("/")[2]
    if len(text) <= MOST_CHARACTERS:
        return text
    half = (MOST_CHARACTERS - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def _horizontal(axes: Axes, curve: Curve, labelled: bool) -> None:
    """The axis that all parts share, with a thin line at each marked row."""
    axes.set_xlim(0, 100)
    at = list(curve.marked())
    axes.set_xticks([])
    for x in curve.middles[at]:
        axes.axvline(x, color="#56B4E9" if labelled else "#BBBBBB", lw=0.5, zorder=1, alpha=0.8)
    if labelled:
        ticks = [0, 5, 25, 50, 75, 95, 100]
        axes.set_xticks(ticks, [f"{tick}" for tick in ticks], size=SIZE)
        axes.get_xticklabels()[-1].set_horizontalalignment("left")  # apart from the one before
        axes.tick_params(axis="x", length=2, pad=2)
        n = len(curve.values)
        text = f"% of {n:,} choice{'' if n == 1 else 's'}, sorted by {NAMES[curve.measure]}"
        axes.set_xlabel(text, size=SIZE)
        axes.xaxis.labelpad = 1.5
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)


def _scale(axes: Axes, low: float, high: float, log: bool) -> None:
    """Set the vertical axis, with some room around the numbers."""
    if log:
        room = max(high / low, 10) ** 0.06
        axes.set_yscale("log")
        axes.set_ylim(low / room, high * room)
        axes.yaxis.set_major_locator(LogLocator(numticks=7))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    else:
        room = 0.06 * max(high - low, 1e-9)
        axes.set_ylim(low - (room if low < 0 else 0), high + room)
    axes.tick_params(axis="y", labelsize=SIZE, length=2, pad=2)


def _published(axes: Axes, value: float, text: str, beside: bool = False) -> None:
    """Draw a published number as a line with its value, above the line or beside the panel."""
    axes.axhline(value, color=PUBLISHED, lw=1, ls=(0, (4, 2)), zorder=4, label=text)
    axes.text(
        1.015 if beside else 0.015, value, text.replace(": ", "\n") if beside else text,
        size=SIZE, color=PUBLISHED, va="center" if beside else "bottom", linespacing=0.95,
        transform=axes.get_yaxis_transform(), zorder=6,
    )  # fmt: skip


def _shades(figure: Figure, bottom: float) -> None:
    """Draw the key of the shades of the matrix."""
    height = figure.get_figheight()
    at = (LEFT / WIDTH, (bottom + 0.16) / height, 0.8 / WIDTH, 0.09 / height)
    axes = figure.add_axes(at, label="shades")
    axes.imshow(shaded(np.linspace(0, 1, 100), INK)[None], extent=(0, 1, 0, 1), aspect="auto")
    axes.set_xticks([0, 0.25, 0.5, 1], ["0", "25", "50", "100"], size=SIZE)
    axes.tick_params(axis="x", length=1.5, pad=1)
    axes.set_yticks([])
    text = "% of the choices of a column that have the level"
    axes.text(1.08, 0.4, text, size=SIZE, va="center", transform=axes.transAxes)


def _axes(figure: Figure, label: str, top: float, height: float, beside: bool = False) -> Axes:
    """Add axes whose place is given in inches."""
    left, width = (WIDTH - RIGHT + 0.05, RIGHT - 0.1) if beside else (LEFT, _inner())
    whole = figure.get_figheight()
    return figure.add_axes(
        (left / WIDTH, (top - height) / whole, width / WIDTH, height / whole), label=label
    )


def _inner() -> float:
    return WIDTH - LEFT - RIGHT


def _title(curve: Curve) -> str:
    """What is drawn, of which models, benchmarks and sites."""
    models = [printable(name) for name in models_of(curve)]
    others = (
        printable(name) for place in PLACES[1:] for name in sorted(curve.rows[place].unique())
    )
    what = "MMD between image and text over MMD within one modality"
    what = what if curve.measure == "mmd" else "JSD between image and text"
    named = ", ".join(models) if len(models) <= MOST_NAMED else counted(len(models), "model")
    return fitted(f"{what}: {named} on {', '.join(others)}", WIDTH - 0.2, 8.5)


def _points(curve: Curve) -> Int[np.ndarray, " n"]:
    """The rows that are drawn as points: all of them, or some that are evenly spaced."""
    if len(curve.values) <= MOST_POINTS:
        return np.arange(len(curve.values))
    return np.unique(curve.at(np.linspace(0, 100, MOST_POINTS)))


def _notes(curve: Curve) -> str:
    """What a reader needs to read the figure."""
    text = "Band: 95 % interval over samples, median of a column. Diamonds: rows of the table."
    if (points := len(_points(curve))) < len(curve.values):
        text += f" Only {points} evenly spaced choices are drawn as points."
    if curve.is_weighted:
        text += " Single heads of a model count as one choice together."
    if len(models := models_of(curve)) > 1:
        text += " By model: median, quartiles, and from 5 to 95 %."
    if len(models) > MOST_NAMED:
        text += f" Models: {', '.join(printable(model) for model in models)}."
    if fixed := curve.fixed():
        text += " The same in every choice: "
        text += ", ".join(f"{name} {level}" for name, level in fixed.items()) + "."
    if curve.missing:
        text += f" {counted(curve.missing, 'choice')} without a number."
    return fitted(text, WIDTH - 0.2, 6.6)
