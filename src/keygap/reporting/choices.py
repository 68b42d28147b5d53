"""The choices that a paper leaves open, in the report: sentences, curves, and tables behind them.

The section is there if the folder of the report, or of a run, has ``choices.parquet``. Marks of a
curve lead to the rows of a table, and each of those has the command that computes it again. Every
row is in ``choices.parquet``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from keygap.choices.sentences import moved_most, sentences, verdict_of
from keygap.choices.tables import (
    FACTORS,
    MEASURES,
    ChoicesTable,
    levels_of,
    percent,
    read_choices,
    share_cell,
)
from keygap.reporting.choices_curve import PLACES, Curve, curve_of, in_words, quantile, short
from keygap.reporting.choices_figure import specification_curve
from keygap.store.results import is_recorded
from keygap.store.run import CHOICES

FIGURE = "choices"
CAPTION = (
    "Every combination of choices, sorted by the number that it gives: the ratio of the gap to "
    "halves of one modality (MMD, logarithmic axis, no unit) or the JSD. Band: 95 % jackknife "
    "interval over groups of samples, median of a column. Below, a line for each level of a "
    "choice, dark where the choices of a column have it, and the median of the level; a level "
    "that is dark at one end only goes with small or with large values. A diamond links to its row "
    "in the table."
)
MEANINGS = {
    "layer": "which stored layer, or the mean of the number over all stored layers",
    "heads": "heads concatenated, the mean of the number over heads, or one head",
    "text": "which text tokens: the question, all that the user wrote, or system and template too",
    "outliers": "whether sinks (tokens) or massive dimensions are left out",
    "tokens": "how many image tokens, and as many text tokens",
    "unit": "whether samples weigh the same and halves are made of samples, or tokens count as if "
    "they were independent",
    "space": "vectors as they are, each dimension standardised, or its 50 principal components",
    "estimator": "the kernel of MMD, or the estimator of JSD",
    "bias": "whether MMD² is estimated without bias",
    "scale": "MMD or its square; JSD in nats or bits, or its square root",
}
WHAT = {"mmd": "Maximum mean discrepancy (MMD)", "jsd": "Jensen-Shannon divergence (JSD)"}


@dataclass(frozen=True)
class CurveSection:
    """What the report shows of the choices of one measure.

    Attributes:
        measure: ``mmd`` or ``jsd``.
        what: the measure in words, with its abbreviation.
        figure: the specification curve.
        alt: what the figure shows, in words.
        marked: the rows that are marked in the figure, one dictionary each: ``quantile``,
            ``anchor`` (its id in the page, empty if another place of the page has it) and
            ``command``, which computes it again.
        lines: of the table of these rows, a column for each: a heading and their numbers, choices
            and ids.
    """

    measure: str
    what: str
    figure: Figure
    alt: str
    marked: list[dict[str, str]]
    lines: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class ChoicesSection:
    """What the report shows of the choices in one folder.

    Attributes:
        sentences: what is robust and what depends on the choices.
        curves: one per measure that has numbers.
        statements: rows of the table of statements, with ``cell`` (the share) and ``verdict``.
        numbers: the columns of the table of variance: name and number of choices.
        variance: rows of it: ``factor`` and ``cells``, the shares alone and with interactions.
        moved: which choice moves each number most, in a sentence.
        factors: what was varied: ``name``, ``what``, ``levels``.
        n_choices: how many choices the table has.
        n_groups: groups of samples that were left out in turn.
        rules: combinations that were left out: ``rule``, ``reason``.
        notes: what the stores could not serve.
    """

    sentences: list[str]
    curves: list[CurveSection]
    statements: list[dict[Any, Any]]
    numbers: list[tuple[str, int]]
    variance: list[dict[str, Any]]
    moved: str
    factors: list[dict[str, str]]
    n_choices: int
    n_groups: int
    rules: list[Mapping[str, Any]]
    notes: list[str]


def read(root: Path) -> ChoicesTable | None:
    """Read the choices of a folder; None if they were not computed there.

    Raises:
        UserError: a file is damaged.
    """
    return read_choices(root) if is_recorded(root, CHOICES) else None


def section(table: ChoicesTable, root: Path, anchors: set[str]) -> ChoicesSection:
    """What the report shows of the choices in a folder.

    Args:
        table: of the folder.
        root: the folder, which commands name.
        anchors: the ids that rows of the page have so far; those of this section are added.
    """
    published = table.settings["published"] or {}
    curves = [found for name in MEASURES if (found := curve_of(table.frame, name)) is not None]
    statements = [
        row | {"cell": share_cell(row), "verdict": verdict_of(row)}
        for row in table.statements.to_dict("records")
    ]
    numbers, variance = variance_rows(table.variance)
    return ChoicesSection(
        sentences=sentences(table.statements, str(published.get("source") or "")),
        curves=[_curve(curve, published, root, anchors) for curve in curves],
        statements=statements,
        numbers=numbers,
        variance=variance,
        moved=moved_most(table.variance),
        factors=factors_of(table.frame),
        n_choices=len(table.frame),
        n_groups=int(table.settings["n_groups"]),
        rules=list(table.settings["rules"]),
        notes=[str(note) for note in table.settings["notes"]],
    )


def factors_of(frame: pd.DataFrame) -> list[dict[str, str]]:
    """What was varied, with the levels that the table has.

    Args:
        frame: of a ``ChoicesTable``.
    """
    return [
        {
            "name": name,
            "what": MEANINGS[name],
            "levels": ", ".join(in_words(name, one) for one in levels_of(frame, name) if one),
        }
        for name in FACTORS
    ]


def variance_rows(variance: pd.DataFrame) -> tuple[list[tuple[str, int]], list[dict[str, Any]]]:
    """The table of what moves each number, the strongest factor first.

    Args:
        variance: of a ``ChoicesTable``.

    Returns:
        The numbers, each with its number of choices, and a row per factor: ``factor`` and
        ``cells``, two texts in percent for each number, empty where the factor was not varied.
    """
    numbers = list(dict.fromkeys(variance["number"]))
    counts = variance.groupby("number")["n_choices"].max()
    strength = variance.groupby("factor", sort=False)["with_interactions"].max()
    by_place = {(row["number"], row["factor"]): row for row in variance.to_dict("records")}
    rows = []
    for factor in strength.sort_values(ascending=False, kind="stable").index:
        cells = []
        for number in numbers:
            row = by_place.get((number, factor), {})
            shares = (row.get(name, float("nan")) for name in ("alone", "with_interactions"))
            cells += ["" if pd.isna(share) else percent(share, 1) for share in shares]
        rows.append({"factor": factor, "cells": cells})
    return [(name, int(counts[name])) for name in numbers], rows


def alternative_text(curve: Curve) -> str:
    """What a curve shows, for readers who do not see it.

    Args:
        curve: the sorted choices.
    """
    what = "ratio of MMD between and within modalities" if curve.measure == "mmd" else "JSD"
    low, middle, high = (short(quantile(curve.values, curve.weights, q)) for q in (0.05, 0.5, 0.95))
    text = (
        f"Specification curve of {len(curve.values):,} choices sorted by {what}: half of them are "
        f"below {middle}, and nine in ten from {low} to {high}"
    )
    return text + (f"; {curve.is_infinite.sum():,} are infinite" if curve.is_infinite.any() else "")


def _curve(
    curve: Curve, published: Mapping[str, Any], root: Path, anchors: set[str]
) -> CurveSection:
    marked = []
    for position, percent_below in curve.marked().items():
        row = curve.rows["row"].iloc[position]
        anchor = f"row-{row}"
        marked.append(
            {
                "quantile": percent_below,
                "anchor": "" if anchor in anchors else anchor,
                "command": f"keygap choices {shlex.quote(str(root))} --row {row}",
            }
        )
        anchors.add(anchor)
    return CurveSection(
        measure=curve.measure,
        what=WHAT[curve.measure],
        figure=specification_curve(curve, published),
        alt=alternative_text(curve),
        marked=marked,
        lines=lines_of(curve),
    )


def lines_of(curve: Curve) -> list[tuple[str, list[str]]]:
    """The table of the rows that are marked in a curve: headings, and a text for every row.

    Args:
        curve: the sorted choices.
    """
    rows = [curve.rows.iloc[position].to_dict() for position in curve.marked()]
    is_mmd = curve.measure == "mmd"
    numbers = {"ratio": "ratio"} if is_mmd else {}
    numbers |= {"cross": "between image and text" if is_mmd else "JSD"}
    lines = [(what, [_cell(row, name) for row in rows]) for name, what in numbers.items()]
    for name, what in (("image_image", "within image"), ("text_text", "within text")):
        lines.append((what, [short(row[name]) for row in rows]))
    places = [name for name in curve.varied() if name in PLACES]
    for name in (*places, *(name for name in FACTORS if any(row[name] for row in rows))):
        lines.append((name, [in_words(name, str(row[name])) for row in rows]))
    for name in ("samples", "image", "text"):
        what = name if name == "samples" else f"{name} tokens"
        lines.append((what, [f"{row[f'n_{name}']:,}" for row in rows]))
    return [*lines, ("row", [str(row["row"]) for row in rows])]


def _cell(row: Mapping[Any, Any], name: str) -> str:
    """A number with its interval, if it has one that says more."""
    value, low, high = (short(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{value} ({low} to {high})" if low and high and {low, high} != {value} else value
