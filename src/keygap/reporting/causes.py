"""The experiment on causes in the report: the verdict, effects, dose and response, baselines.

The section is there if the run folder has the experiment's files. Tables have what a reader needs;
every row is in ``alignment.csv``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from keygap.align.causes.mediation import (
    EFFECTS,
    GROUP,
    OUTCOMES,
    SHARE,
    across_points,
    mediation,
)
from keygap.align.causes.tables import CausesTable, pooled, read_causes, strongest, summarise
from keygap.align.causes.verdict import Verdict, verdict
from keygap.reporting.causes_figure import alternative_text, caption, dose_response, place_of
from keygap.reporting.drawing import Drawn
from keygap.store.results import is_recorded
from keygap.store.run import ALIGNMENT
from keygap.text import printable

FIGURE = "causes"
IN_WORDS = {"followed": "wrong hint followed", "hint_margin": "hint margin", "margin": "margin"}
MEASURES = ("following", "accuracy", "margin", "hint_effect")
PREDICTORS = {"gap": "gap", "image_attention": "attention to the image", "": ""}


@dataclass(frozen=True)
class CausesSection:
    """What the report shows about the experiment in one run.

    Attributes:
        verdict: the mechanism, in sentences.
        effects: rows of the mediation table of the map that decides, at its strongest strengths:
            ``map``, ``site``, ``layers``, ``strength``, ``outcome``, ``n``, a text for each of
            ``EFFECTS`` and for ``share``.
        others: the same of other maps, on following and the hint margin.
        baselines: rows of the table of baselines, the model as it is first: ``name``, ``layers``,
            ``strength``, ``n`` and a text for each of ``MEASURES``.
        steered: rows of the summary of maps and random directions.
        across: rows about correlations over points: ``outcome``, ``predictor``, ``given``,
            ``value``, ``n_points``.
        drawn: dose and response; None if no map was run.
    """

    verdict: Verdict
    effects: list[dict[str, Any]]
    others: list[dict[str, Any]]
    baselines: list[dict[str, Any]]
    steered: list[dict[Any, Any]]
    across: list[dict[str, Any]]
    drawn: Drawn | None


def read(root: Path) -> CausesTable | None:
    """Read what a run folder has of the experiment; None if it was not run there.

    Raises:
        UserError: a file is damaged.
    """
    return read_causes(root) if is_recorded(root, ALIGNMENT) else None


def drawable(tables: Sequence[CausesTable | None]) -> list[CausesTable]:
    """The tables with a map, whose dose and response can be drawn."""
    return [table for table in tables if table is not None and place_of(table.points) is not None]


def drawn(tables: Sequence[CausesTable]) -> Drawn:
    """Dose and response of some tables with a map (see ``drawable``)."""
    return Drawn(FIGURE, dose_response(tables), alternative_text(tables), caption(tables))


def section(table: CausesTable) -> CausesSection:
    """What the report shows of the experiment in one run.

    Args:
        table: of the run.
    """
    drawing: dict[str, Any] = {
        "n_bootstraps": int(table.settings["n_bootstraps"]),
        "seed": int(table.settings["seed"]),
    }
    points = strongest(table.points)
    model = printable(table.settings["model"])
    decided = verdict(table.samples, points, model=model, **drawing)
    rows = effects(mediation(table.samples, points, **drawing))
    deciding = [(row["map"], row["site"], row["layers"]) == decided.decides for row in rows]
    main = [row for row, decides in zip(rows, deciding, strict=True) if decides]
    others = [row for row, decides in zip(rows, deciding, strict=True) if not decides]
    is_steered = table.points["kind"].isin(["map", "control"])
    shown = table.frame[table.frame["point"].isin(table.points.loc[is_steered, "point"])]
    return CausesSection(
        verdict=decided,
        effects=main,
        others=[row for row in others if row["outcome"] != IN_WORDS["margin"]],
        baselines=baselines(table),
        steered=summarise(shown).to_dict("records"),
        across=across(across_points(table.samples, table.points, **drawing)),
        drawn=drawn([table]) if drawable([table]) else None,
    )


def effects(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of the mediation table, one per map, strength and outcome.

    Args:
        frame: of ``mediation``.
    """
    rows = []
    for outcome in OUTCOMES:
        own = frame[frame["outcome"] == outcome]
        for key, same in own.groupby(list(GROUP), sort=False):
            about = dict(zip(GROUP, key, strict=True))
            cells = {row["effect"]: row for row in same.to_dict("records")}
            if math.isnan(cells[EFFECTS[0]]["value"]):
                continue  # answers were generated, so there is no margin
            rows.append(
                {
                    "map": about["name"],
                    **{name: about[name] for name in ("site", "layers", "strength")},
                    "outcome": IN_WORDS[outcome],
                    "n": cells[EFFECTS[0]]["n"],
                    **{name: cell(cells[name]) for name in EFFECTS},
                    SHARE: cell(cells[SHARE]) or cells[SHARE]["note"],
                }
            )
    return rows


def baselines(table: CausesTable) -> list[dict[str, Any]]:
    """Rows of the table of baselines, the model as it is first.

    Args:
        table: of one run.
    """
    points = table.points
    rows = pooled(table.frame)
    found = []
    for kind in ("none", "baseline"):
        for point in points[points["kind"] == kind].to_dict("records"):
            own = rows[rows["point"] == point["point"]]
            values = {row["measure"]: row for row in own.to_dict("records")}
            found.append(
                {
                    "name": "as it is" if kind == "none" else point["name"],
                    "layers": point["layers"],
                    "strength": "" if kind == "none" else f"{point['strength']:g}",
                    "n": values["accuracy"]["n"],
                    **{measure: cell(values[measure]) for measure in MEASURES},
                }
            )
    return found


def across(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows about correlations over points.

    Args:
        frame: of ``across_points``.
    """
    return [
        {
            "outcome": IN_WORDS[row["outcome"]],
            "predictor": PREDICTORS[row["predictor"]],
            "given": PREDICTORS[row["given"]],
            "value": cell(row) or row["note"],
            "n_points": row["n_points"],
        }
        for row in frame.to_dict("records")
    ]


def cell(row: Mapping[Any, Any]) -> str:
    """A value with its interval; empty if there is none."""
    if math.isnan(row["value"]):
        return ""
    numbers = [f"{row[name]:.2f}" for name in ("value", "ci_low", "ci_high")]
    value, low, high = (n if float(n) else n.removeprefix("-") for n in numbers)
    return f"{value} ({low} to {high})"
