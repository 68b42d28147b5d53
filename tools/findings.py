"""Writes the tables and the figure of docs/findings.md from runs of the experiment on causes.

Every number in that page comes from here. The text between ``<!-- table NAME -->`` and
``<!-- end -->`` is replaced; what is around it is written by hand.

    python tools/findings.py RUN... [--page docs/findings.md] [--figure docs/images/causes.png]
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from keygap.align.causes.mediation import across_points, mediation
from keygap.align.causes.tables import CausesTable, read_causes
from keygap.align.causes.verdict import verdict
from keygap.reporting.causes_figure import dose_response
from keygap.reporting.papers import markdown

MEASURES = {
    "image_attention": "attention to the image",
    "following": "follows the wrong hint",
    "accuracy": "accuracy, no hint",
    "margin": "margin, nats",
    "hint_effect": "hint effect, nats",
}
OUTCOMES = {"followed": "follows", "hint_margin": "hint margin, nats"}
Rows = list[dict[str, Any]]


def value(rows: pd.DataFrame, measure: str, *, layer: int = -1, variant: str | None = None) -> str:
    """One cell: a value with its interval; of several points, their mean and range."""
    own = rows[(rows["measure"] == measure) & (rows["layer"] == layer)]
    own = own[own["variant"].isin(["", "all"] if variant is None else [variant])]
    if own.empty:
        return ""
    if len(own) > 1:
        low, high = own["value"].min(), own["value"].max()
    else:
        low, high = own["ci_low"].iloc[0], own["ci_high"].iloc[0]
    return f"{own['value'].mean():.2f} ({low:.2f}, {high:.2f})".replace("-0.00", "0.00")


def gap(rows: pd.DataFrame, layers: Sequence[int]) -> str:
    """MMD squared, mean over some layers."""
    own = rows[(rows["measure"] == "mmd_squared") & rows["layer"].isin(layers)]
    return f"{own['value'].mean():.3f}" if len(own) else ""


def points(table: CausesTable, **wanted: Any) -> pd.DataFrame:
    """The rows of the points with these values."""
    rows = table.frame
    for name, each in wanted.items():
        rows = rows[rows[name] == each]
    return rows


def described(table: CausesTable, rows: pd.DataFrame) -> dict[str, str]:
    """The measures of one kind of point."""
    reading = table.settings["reading_layers"] or table.settings["layer_sets"]["all"]
    cells = {"MMD squared": gap(rows, reading)}
    return cells | {what: value(rows, name) for name, what in MEASURES.items()}


def dose(tables: Sequence[CausesTable]) -> Rows:
    """The map under test at all layers, by strength and mass."""
    found: Rows = []
    for table in tables:
        model = table.settings["model"]
        none = points(table, kind="none")
        found.append(
            {"model": model, "keys": "as they are", "strength": "0"} | described(table, none)
        )
        name, site = table.settings["plan"]["maps"][0], table.settings["site"]
        for mass, what in (("free", "moved"), ("held", "moved, attention held"),
                           ("only", "unmoved, attention alone")):  # fmt: skip
            for strength in sorted(table.settings["plan"]["strengths"]):
                rows = points(
                    table, name=name, site=site, layers="all", strength=strength, mass=mass
                )
                if len(rows):
                    cells = {"model": model, "keys": what, "strength": f"{strength:+g}"}
                    found.append(cells | described(table, rows))
    return found


def compared(*kinds: str) -> Callable[[Sequence[CausesTable]], Rows]:
    """A table of points of some kinds, without those of the dose-response table."""

    def rows_of(tables: Sequence[CausesTable]) -> Rows:
        found: Rows = []
        for table in tables:
            first, site = table.settings["plan"]["maps"][0], table.settings["site"]
            names = ["kind", "name", "site", "layers", "strength", "mass"]
            own = table.frame[table.frame["kind"].isin(kinds)]
            for key, rows in own.groupby(names, sort=False):
                place = dict(zip(names, key, strict=True))
                if (place["name"], place["site"], place["layers"]) == (first, site, "all"):
                    continue
                cells = {
                    "model": table.settings["model"],
                    "intervention": place["name"],
                    "site": place["site"],
                    "layers": place["layers"],
                    "strength": f"{place['strength']:+g}",
                    "attention": place["mass"],
                    "draws": str(rows["draw"].nunique()),
                }
                found.append(cells | described(table, rows))
        return found

    return rows_of


def effects(tables: Sequence[CausesTable]) -> Rows:
    """Total effect, direct effect of the keys and effect through attention."""
    found: Rows = []
    for table in tables:
        frame = mediation(table.samples, table.points, seed=table.settings["seed"])
        keys = ["name", "site", "layers", "strength", "outcome"]
        for key, own in frame.groupby(keys, sort=False):
            place = dict(zip(keys, key, strict=True))
            if place["outcome"] == "margin" or abs(float(str(place["strength"]))) < 1:
                continue
            cells: dict[str, Any] = {"model": table.settings["model"], "map": place["name"]}
            cells |= {"layers": place["layers"], "strength": f"{place['strength']:+g}"}
            cells["outcome"] = OUTCOMES[str(place["outcome"])]
            for effect in ("total", "direct", "attention", "share"):
                row = own[own["effect"] == effect].iloc[0]
                numbers = [row[name] for name in ("value", "ci_low", "ci_high")]
                low = "{:.2f} ({:.2f}, {:.2f})".format(*numbers).replace("-0.00", "0.00")
                cells[effect] = "" if pd.isna(row["value"]) else low
            found.append(cells)
    return found


def across(tables: Sequence[CausesTable]) -> Rows:
    """Over all points: does following go with the gap or with attention?"""
    found: Rows = []
    for table in tables:
        frame = across_points(table.samples, table.points, seed=table.settings["seed"])
        for row in frame[frame["outcome"] == "followed"].to_dict("records"):
            numbers = [row[name] for name in ("value", "ci_low", "ci_high")]
            cell = "{:.2f} ({:.2f}, {:.2f})".format(*numbers)
            found.append(
                {
                    "model": table.settings["model"],
                    "following and": row["predictor"],
                    "given": row["given"] or "",
                    "correlation": cell,
                    "points": row["n_points"],
                }
            )
    return found


def readout(tables: Sequence[CausesTable]) -> Rows:
    """How well a linear probe reads the answer from image tokens, and the other probes."""
    found: Rows = []
    for table in tables:
        first, site = table.settings["plan"]["maps"][0], table.settings["site"]
        shown = [("as it is", points(table, kind="none"))]
        for strength in (-1.0, 1.0):
            for mass in ("free", "held", "only"):
                rows = points(
                    table, name=first, site=site, layers="all", strength=strength, mass=mass
                )
                shown.append((f"{first} {strength:+g}, {mass}", rows))
        for what, rows in shown:
            own = rows[rows["measure"] == "readout"]
            cells = {"model": table.settings["model"], "keys": what}
            for row in own[["layer", "variant"]].to_dict("records"):
                layer, variant = int(row["layer"]), str(row["variant"])
                cells[f"{variant}, layer {layer}"] = value(
                    own, "readout", layer=layer, variant=variant
                )
            found.append(cells)
    return found


def probed(tables: Sequence[CausesTable]) -> Rows:
    """Accuracy under the conditions of the other probes."""
    found: Rows = []
    for table in tables:
        own = table.frame[table.frame["measure"] == "probe_accuracy"]
        for point, rows in own.groupby("point", sort=False):
            cells = {"model": table.settings["model"], "intervention": str(point)}
            for variant in rows["variant"]:
                name = str(variant)
                if not name.endswith("/as_is"):
                    cells[name.replace("/", ": ")] = value(rows, "probe_accuracy", variant=name)
            found.append(cells)
    return found


TABLES: Mapping[str, Callable[[Sequence[CausesTable]], Rows]] = {
    "dose": dose,
    "effects": effects,
    "maps": compared("map"),
    "controls": compared("control"),
    "baselines": compared("baseline"),
    "readout": readout,
    "probes": probed,
    "across": across,
}


def verdicts(tables: Sequence[CausesTable]) -> str:
    """What is said of every model, as a list."""
    said = []
    for table in tables:
        model, seed = table.settings["model"], table.settings["seed"]
        said.append(f"- {verdict(table.samples, table.points, model=model, seed=seed)}")
    return "\n".join(said)


def main() -> None:
    """Write the page and the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--page", type=Path, default=Path("docs/findings.md"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/causes.png"))
    options = parser.parse_args()
    tables = [read_causes(run) for run in options.runs]
    text = options.page.read_text()
    made = {name: markdown(pd.DataFrame(make(tables)).fillna("")) for name, make in TABLES.items()}
    made["verdicts"] = verdicts(tables)
    for name, block in made.items():
        pattern = rf"(<!-- table {name} -->\n).*?(<!-- end -->)"
        kept = block.replace("\\", "\\\\")  # a backslash is one, and no reference to a group
        text = re.sub(pattern, rf"\g<1>{kept}\n\g<2>", text, flags=re.DOTALL)
    options.page.write_text(text)
    dose_response(tables).savefig(options.figure, dpi=110)


if __name__ == "__main__":
    main()
