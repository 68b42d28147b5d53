"""The gap of every model and benchmark beside its baselines, and beside published numbers.

One row per run, site and layer has the contrasts between modalities and those of one modality with
itself, each with its interval. Layers of models of different depth are compared by relative depth.
The connector is the one found in the loaded model, whatever a source calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from keygap.measurement.verdict import ratio_to_same
from keygap.reporting.published import Kind, Published, PublishedValue, published_in
from keygap.reporting.run import Run, contrasts_of
from keygap.store.run import study_file

RUNGS: dict[Kind, str] = {"cross-modal": "between", "intra-modal": "same"}


@dataclass(frozen=True)
class Range:
    """Mean, smallest and largest of some values."""

    mean: float
    least: float
    most: float

    @classmethod
    def of(cls, values: pd.Series) -> Range | None:
        """The range of some values; None if there are none."""
        if values.empty:
            return None
        return cls(float(values.mean()), float(values.min()), float(values.max()))


@dataclass(frozen=True)
class Counterpart:
    """The study's own values of the kind of a published one.

    Attributes:
        published: the published value.
        contrasts: the study's contrasts of its kind.
        mmd: their MMD; None if none of them was measured.
        mmd2: their MMD squared; None if none of them was measured.
    """

    published: PublishedValue
    contrasts: tuple[str, ...]
    mmd: Range | None
    mmd2: Range | None


@dataclass(frozen=True)
class Comparison:
    """What the template ``published.html`` shows.

    Attributes:
        rows: one per run, site and layer: model, connector, claimed (what the source calls it, or
            None), benchmark, site, layer, n_layers, depth (0 for the first layer, 1 for the last),
            values (a row of ``gap.csv`` by contrast) and ratios (by contrast between modalities).
        contrasts: the columns, contrasts between modalities first.
        ratios: the contrasts that have a ratio: those between modalities.
        published: what the studies cite, each source with the counterparts of its values.
    """

    rows: list[dict[str, Any]]
    contrasts: tuple[str, ...]
    ratios: tuple[str, ...]
    published: list[tuple[Published, list[Counterpart]]]


def comparison(runs: Sequence[Run]) -> Comparison | None:
    """Compare several runs, or any number of runs of a study that cites published numbers.

    The published numbers are read from ``study.yaml`` in the runs' parent folder, where
    ``keygap run`` writes it.

    Returns:
        The comparison; None for a single run of a study that cites nothing.

    Raises:
        UserError: a study file cites numbers in a form that is not valid.
    """
    files = dict.fromkeys(study_file(run.root.resolve().parent) for run in runs)
    cited = [found for path in files if (found := published_in(path)) is not None]
    if len(runs) < 2 and not cited:
        return None
    claimed = {model: words for source in cited for model, words in source.connectors.items()}
    between, same = (tuple(contrasts_of(runs, rung)) for rung in RUNGS.values())
    tables = [_all_heads(run) for run in runs]
    rows = [
        _row(run, site, layer, part, claimed)
        for run, table in zip(runs, tables, strict=True)
        for (site, layer), part in table.groupby(["site", "layer"], sort=False)
    ]
    table = pd.concat(tables, ignore_index=True)
    published = [
        (source, [_counterpart(value, runs, table) for value in source.values]) for source in cited
    ]
    return Comparison(rows, (*between, *same), between, published)


def _all_heads(run: Run) -> pd.DataFrame:
    """Rows of all heads together, without confounds."""
    table = run.table.main
    return table[table["head"] == "all"]


def _row(
    run: Run, site: Any, layer: Any, part: pd.DataFrame, claimed: dict[str, str]
) -> dict[str, Any]:
    values: dict[str, Any] = {str(row["contrast"]): row for row in part.to_dict("records")}
    same = [row["mmd2_ci_high"] for row in values.values() if row["rung"] == "same"]
    ratios = {
        name: ratio_to_same(row["mmd2"], same)
        for name, row in values.items()
        if row["rung"] == "between"
    }
    n_layers = int(run.manifest["n_layers"])
    return {
        "model": run.model,
        "connector": run.manifest["connector"],
        "claimed": claimed.get(run.model),
        "benchmark": run.manifest["benchmark"],
        "site": site,
        "layer": layer,
        "n_layers": n_layers,
        "depth": layer / max(1, n_layers - 1),
        "values": values,
        "ratios": ratios,
    }


def _counterpart(value: PublishedValue, runs: Sequence[Run], table: pd.DataFrame) -> Counterpart:
    contrasts = tuple(contrasts_of(runs, RUNGS[value.kind]))
    ours = table[table["contrast"].isin(contrasts)]
    return Counterpart(value, contrasts, Range.of(ours["mmd"]), Range.of(ours["mmd2"]))
