"""The dose-response figure: what stronger and weaker maps do to keys, attention and answers.

A column per model has three panels over the strength of one map: the gap, the attention to the
image, and how often a wrong hint is followed. If distance moved the answers, following would go
with the gap while attention is held; if attention did, it would go with attention alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keygap.align.causes.rule import RANDOM
from keygap.align.causes.tables import MODES, CausesTable, points_of, pooled
from keygap.display import counted
from keygap.reporting.figures import canvas, fitted
from keygap.reporting.numbers import with_interval
from keygap.text import printable

Place = tuple[str, str, str]  # name, site and layers of a map
VALUES = ["point", "value", "ci_low", "ci_high"]
STYLES = {  # colour, line, width, mark, its size, label; where two lines coincide both are seen
    "free": ("#D55E00", "-", 2.6, "o", 6.0, "free: keys moved"),
    "held": ("#0072B2", "--", 1.2, "s", 3.2, "held: keys moved, attention to the image held"),
    "only": ("#009E73", "-.", 1.2, "^", 3.6, "only: keys unmoved, attention changed alone"),
}
GREY = "#8C8C8C"
WIDTH, HEIGHT = 3.4, 2.0  # of a panel, in inches


def place_of(points: pd.DataFrame) -> Place | None:
    """The map that is drawn: the first with more than one mode, or else the first.

    Args:
        points: ``POINT_COLUMNS``.

    Returns:
        Its name, site and set of layers; None if no map was run.
    """
    maps = points[points["kind"] == "map"]
    if maps.empty:
        return None
    modes = maps.groupby(["name", "site", "layers"], sort=False)["mass"].nunique()
    places: list[Place] = [*modes.index]
    return places[int(modes.to_numpy().argmax())]  # the first of the largest


def alternative_text(tables: Sequence[CausesTable]) -> str:
    """How far the map moves gap, attention and following at its strongest, with intervals.

    Args:
        tables: those that are drawn.
    """
    return "; ".join(_moved(table) for table in tables)


def _moved(table: CausesTable) -> str:
    """What one model does at the strength that moves following most, in each mode."""
    place = place_of(table.points)
    if place is None:
        raise ValueError(f"no map in {table!r}")
    gap, what = _gap(table)
    shown = pooled(table.frame)
    measures = {
        what: gap,
        "attention to the image": shown[shown["measure"] == "image_attention"],
        "wrong hint followed": shown[shown["measure"] == "following"],
    }
    following = measures["wrong hint followed"].set_index("point")["value"]
    (unmoved,) = table.points.loc[table.points["kind"] == "none", "point"].iloc[:1]
    lines = {mode: _line(table.points, place, mode) for mode in STYLES}
    moved = {
        mode: line.loc[line["strength"] != 0].set_index("strength")["point"]
        for mode, line in lines.items()
    }
    shown_modes = [mode for mode, points in moved.items() if len(points)]
    name, site, layers = place
    which = f"{printable(table.settings['model'])}, {printable(name)} of {site} at {layers} layers"
    if not shown_modes:
        return f"{which}: no strength but 0 was run"
    first = moved[shown_modes[0]]
    change = np.abs(following[first].to_numpy(float) - following[unmoved])
    strength = first.index[int(change.argmax())]
    parts = []
    for mode in shown_modes:
        if strength not in moved[mode].index:
            continue
        end = str(moved[mode][strength])
        values = [
            f"{measure} {_at(rows, unmoved)} to {_at(rows, end)}"
            for measure, rows in measures.items()
            if {unmoved, end} <= set(rows["point"])
        ]
        parts.append(f"{STYLES[mode][-1]}: {', '.join(values)}")
    return f"{which}, from strength 0 to {strength:g}: {'; '.join(parts)}"


def _at(rows: pd.DataFrame, point: str) -> str:
    """The value of a measure at a point."""
    row = rows[rows["point"] == point].iloc[0]
    return with_interval(row["value"], row["ci_low"], row["ci_high"], 2)


def caption(tables: Sequence[CausesTable]) -> str:
    """What dose and response show and how to read them.

    Args:
        tables: those that are drawn.
    """
    shown = pd.concat([pooled(table.frame) for table in tables])
    n = shown.loc[shown["measure"] == "following", "n"]
    low, high = int(n.min()), int(n.max())
    count = counted(high, "sample") if low == high else f"{low} to {counted(high, 'sample')}"
    return (
        "Gap of image and text keys, attention to the image (share) and following of a wrong hint "
        "(share of answers) over the strength of the map that moves image keys; 0: keys as they "
        f"are. Bands: 95 % intervals over samples; n = {count}. Grey: random directions of the "
        "same norm, mean and range over draws. If following goes with the gap while attention is "
        "held, distance moves answers; if it goes with attention changed alone, attention does."
    )


def dose_response(tables: Sequence[CausesTable]) -> Figure:
    """Draw gap, attention and following over the strength of a map; a column per table.

    Bands are 95 % intervals over samples. Random directions of the same norm are grey: the mean of
    the draws, and a bar from the smallest to the largest.

    Args:
        tables: with at least one map each (see ``place_of``).
    """
    figure, grid = canvas(3, len(tables), WIDTH, HEIGHT)
    for column, table in zip(grid.T, tables, strict=True):
        place = place_of(table.points)
        if place is None:
            raise ValueError(f"no map in {table!r}")
        gap, what = _gap(table)
        shown = pooled(table.frame)
        drawn = (
            (gap, what),
            (shown[shown["measure"] == "image_attention"], "attention to the image"),
            (shown[shown["measure"] == "following"], "wrong hint followed"),
        )
        for axes, (rows, label) in zip(column, drawn, strict=True):
            _panel(axes, table, place, rows)
            axes.set_ylabel(label, size=8)
        accuracy = shown[shown["measure"] == "accuracy"]
        _accuracy(column[-1], table, place, accuracy)
        column[-1].set_ylim(-0.03, 1.03)
        column[-1].set_xlabel("strength (0: keys as they are)")
        name, site, layers = place
        lines = (str(table.settings["model"]), f"{name} of {site}, {layers} layers")
        column[0].set_title("\n".join(fitted(line, WIDTH - 0.6) for line in lines))
        for axes in column[:-1]:
            axes.set_ylim(min(0.0, axes.get_ylim()[0]), None)
            axes.tick_params(labelbottom=False)
    handles, labels = _legend([*grid.flat])
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(2, len(tables)), fontsize=8
    )
    return figure


def _legend(panels: Sequence[Axes]) -> tuple[list, list[str]]:
    """Handles and labels of all panels, each label once."""
    found: dict[str, object] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    order = [label for *_, label in STYLES.values()]
    labels = sorted(found, key=lambda label: order.index(label) if label in order else len(order))
    return [found[label] for label in labels], labels


def _gap(table: CausesTable) -> tuple[pd.DataFrame, str]:
    """MMD squared of every point, and what it is of.

    It is a mean over the reading layers, or over all layers if none of those was measured. The
    ends are means of the layers' ends, which are at least as wide as an interval of the mean.
    Without any MMD it is the distance of means that samples have.
    """
    rows = table.frame[table.frame["measure"] == "mmd_squared"]
    if rows.empty:
        shown = pooled(table.frame)
        return shown[shown["measure"] == "gap"], "distance of mean keys"
    reading = rows["layer"].isin(list(table.settings["reading_layers"]))
    what = "MMD², reading layers" if reading.any() else "MMD², mean of layers"
    rows = rows[reading] if reading.any() else rows
    means = rows.groupby("point", sort=False)[VALUES[1:]].mean().reset_index()
    return means, what


def _panel(axes: Axes, table: CausesTable, place: Place, rows: pd.DataFrame) -> None:
    """Draw one measure: a line per mode, and random directions in grey."""
    points = table.points.merge(rows[VALUES], on="point")
    for number, mode in enumerate(MODES):
        colour, line, thick, mark, size, label = STYLES[mode]
        own = _line(points, place, mode)
        if len(own) < 2:
            continue
        axes.fill_between(
            own["strength"], own["ci_low"], own["ci_high"], color=colour, alpha=0.13, lw=0
        )
        axes.plot(
            own["strength"], own["value"], linestyle=line, marker=mark, ms=size, lw=thick,
            color=colour, label=label, zorder=2 + number,
        )  # fmt: skip
    _random(axes, points, place)
    axes.set_xticks(sorted({0.0, *_line(points, place)["strength"]}))
    axes.margins(x=0.08)


def _line(points: pd.DataFrame, place: Place, mode: str | None = None) -> pd.DataFrame:
    """The map in one mode (or all), and the keys as they are, by strength."""
    name, site, layers = place
    own = (
        (points["kind"] == "map")
        & (points["name"] == name)
        & (points["site"] == site)
        & (points["layers"] == layers)
    )
    if mode is not None:
        own &= points["mass"] == mode
    if not own.any():
        return points[own]
    return points[own | (points["kind"] == "none")].sort_values("strength")


def _random(axes: Axes, points: pd.DataFrame, place: Place) -> None:
    """Draw random directions: their mean over draws, and a bar over all of them."""
    _, site, layers = place
    own = points[
        (points["kind"] == "control")
        & (points["name"] == RANDOM)
        & (points["site"] == site)
        & (points["layers"] == layers)
    ]
    steps = _line(points, place)["strength"]
    width = steps.max() - steps.min()
    for (strength, mode), draws in own.groupby(["strength", "mass"]):
        if mode not in MODES:
            continue
        mean = draws["value"].mean()
        ends = np.abs([[draws["value"].min() - mean], [draws["value"].max() - mean]])
        # beside the lines and beside each other, away from 0
        shift = math.copysign(0.04 + 0.04 * MODES.index(str(mode)), float(str(strength))) * width
        axes.errorbar(
            [float(str(strength)) + shift], [mean], yerr=ends, color=GREY, ecolor=GREY,
            marker=STYLES[str(mode)][3], ms=3.5, mfc="#FFFFFF", elinewidth=1, zorder=5,
        )  # fmt: skip


def _accuracy(axes: Axes, table: CausesTable, place: Place, rows: pd.DataFrame) -> None:
    """Draw the accuracy without a hint while attention is free."""
    points = points_of(table.frame).merge(rows[VALUES], on="point")
    own = _line(points, place, "free")
    axes.plot(
        own["strength"], own["value"], ":", lw=1, color="#333333", zorder=1,
        label="accuracy without a hint, free",
    )  # fmt: skip
    if (points["name"] == RANDOM).any():
        axes.plot(
            [], [], "o-", ms=3.5, mfc="#FFFFFF", lw=1, color=GREY,
            label="random directions of the same norm, mean and range",
        )  # fmt: skip
