"""``keygap choices``: one gap under every choice that a paper leaves open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from keygap.arguments import folder_of
from keygap.cli_options import Seed, listed
from keygap.cli_output import Output, quoted, with_output
from keygap.errors import UserError

if TYPE_CHECKING:
    from keygap.choices.direct import DirectRow

Folder = Annotated[str, typer.Argument(metavar="DIR", help="A run folder or a study folder.")]
Row = Annotated[str | None, typer.Option(help="Compute this row again, directly.")]
Layers = Annotated[
    str | None,
    typer.Option(help="Layers: first, middle, last, mean (over those of the run). Default: all."),
]
Heads = Annotated[
    str | None,
    typer.Option(help="Heads: together, mean (of the numbers of all heads), each. Default: all."),
]
Text = Annotated[
    str | None,
    typer.Option(
        help="Text tokens: question, user (question, options and hint), all. Default: all three."
    ),
]
Outliers = Annotated[
    str | None,
    typer.Option(help="Treatment of outliers: kept, without_sinks, without_massive. Default: all."),
]
Units = Annotated[
    str | None,
    typer.Option(help="What counts as independent: sample, token. Default: all."),
]
Spaces = Annotated[
    str | None,
    typer.Option(help="Coordinates: raw, standardised, pca_50. Default: all."),
]
Estimators = Annotated[
    str | None,
    typer.Option(
        help="Of the MMD: gaussian_median, gaussian_grid, gaussian_1/d, gaussian_1, linear, "
        "energy. Of the JSD: histogram_10, histogram_30, histogram_100 (number of bins), "
        "joint_2_10, joint_2_30, joint_2_100, joint_50_10, joint_50_30, joint_50_100 (numbers of "
        "dimensions and bins), neighbours, classifier. Default: all."
    ),
]
Tokens = Annotated[str, typer.Option(help="Numbers of image tokens, with as many text tokens.")]
Sites = Annotated[str | None, typer.Option(help="Sites of the run. Default: all it has.")]


@with_output
def choices(
    folder: Folder,
    row: Row = None,
    layers: Layers = None,
    heads: Heads = None,
    text: Text = None,
    outliers: Outliers = None,
    tokens: Tokens = "200,1000,5000",
    units: Units = None,
    spaces: Spaces = None,
    estimators: Estimators = None,
    sites: Sites = None,
    seed: Seed = 0,
    *,
    say: Output,
) -> None:
    """Measure the gap under every choice: what holds whatever is chosen?"""
    from keygap.choices.direct import again
    from keygap.choices.levels import Plan
    from keygap.choices.running import specifications
    from keygap.choices.tables import read_choices
    from keygap.store import Store
    from keygap.store.lock import at_work
    from keygap.study.run import runs_in

    given = {
        "layers": layers, "heads": heads, "text": text, "outliers": outliers, "units": units,
        "spaces": spaces, "estimators": estimators,
    }  # fmt: skip
    levels: dict[str, Any] = {
        name: listed(value) for name, value in given.items() if value is not None
    }
    plan = Plan(tokens=[_count(item) for item in listed(tokens)], **levels)
    place = folder_of(folder, "DIR")
    stores = [Store(run) for run in runs_in(place)]
    if row is not None:
        found = again(read_choices(place), stores, row)
        if not say.as_json:
            _print_row(found)
        facts: dict[str, Any] = {"row": found.row, "calls": found.calls, "directly": found.values}
        say.result(then=quoted("report", place), facts=facts)
        return
    with at_work(place):
        for store in stores:
            store.verify()
        table = specifications(
            *stores, plan=plan, sites=None if sites is None else listed(sites), seed=seed
        )
        table.save(place)
    say.result(
        f"{len(table.frame)} choices, every one in {place / 'choices.parquet'}",
        table=table.summary(),
        notes=table.settings["notes"],
        rows=table.statements,
        then=quoted("choices", place, "--row", table.frame["row"].iloc[0]),
        facts={"folder": place},
    )


def _count(item: str) -> int:
    try:
        return int(item)
    except ValueError as error:
        raise UserError(f"--tokens has {item!r}: give numbers, such as 200,1000") from error


def _print_row(found: DirectRow) -> None:
    """Print a row of the table beside the same choice made directly."""
    from keygap.choices.levels import FACTORS

    for name in ("model", "benchmark", "site", "measure", *FACTORS):
        if found.row[name] != "":
            typer.echo(f"{name:<12}{found.row[name]}")
    typer.echo("\nfirst layer and head, after selection and coordinates:")
    for call in found.calls:
        typer.echo(f"  {call}")
    typer.echo(f"\n{'':<12}{'in the table':>16}{'directly':>16}")
    for name, value in found.values.items():
        typer.echo(f"{name:<12}{found.row[name]:>16.8g}{value:>16.8g}")
