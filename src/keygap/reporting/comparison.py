"""The comparison over models and benchmarks, and what somebody else published beside it.

One row per run, site and layer: the gap between the modalities against both baselines inside one,
each with its interval. Layers of models of different depth stand beside each other by their depth,
and the connector is the one that the loaded model has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from keygap.reporting.published import Kind, Published, published_in
from keygap.reporting.run import Run
from keygap.store.run import study_file

CONTRASTS: dict[Kind, tuple[str, ...]] = {
    "cross-modal": ("image_text",),
    "intra-modal": ("image_image", "text_text"),
}


@dataclass(frozen=True)
class Beside:
    """A published value and ours of the same kind: mean, least and most of MMD and of its square.

    The ranges are None where a study measured no contrast of that kind.
    """

    what: str
    value: float
    contrasts: tuple[str, ...]
    mmd: tuple[float, float, float] | None
    mmd2: tuple[float, float, float] | None


@dataclass(frozen=True)
class Comparison:
    """What the template shows.

    Attributes:
        rows: model, connector, claimed (by the source, or None), benchmark, site, layer, n_layers,
            depth (0 the first layer, 1 the last), its row of ``gap.csv`` by contrast, and the
            ratio of the gap's MMD squared to the most that the baselines can be, the upper end of
            their intervals: to a value that is 0 within noise any ratio is noise.
        contrasts: the columns.
        published: what the study's experiment file cites, with ours beside it.
    """

    rows: list[dict[str, Any]]
    contrasts: tuple[str, ...]
    published: list[tuple[Published, list[Beside]]]


def comparison(runs: Sequence[Run]) -> Comparison | None:
    """The comparison over several runs, or over any number that stand beside published numbers.

    The published numbers are those of the experiment file in the runs' parent folder, where
    ``keygap run`` leaves it.

    Raises:
        UserError: what that file says of them does not fit.
    """
    files = dict.fromkeys(study_file(run.root.resolve().parent) for run in runs)
    cited = [found for path in files if (found := published_in(path)) is not None]
    if len(runs) < 2 and not cited:
        return None
    claimed = {name: words for found in cited for name, words in found.connectors.items()}
    tables = [_whole(run) for run in runs]
    names = tuple(name for group in CONTRASTS.values() for name in group)
    rows = [
        _row(run, site, layer, part, claimed)
        for run, table in zip(runs, tables, strict=True)
        for (site, layer), part in table.groupby(["site", "layer"], sort=False)
    ]
    everything = pd.concat(tables, ignore_index=True)
    return Comparison(rows, names, [(found, _beside(found, everything)) for found in cited])


def _whole(run: Run) -> pd.DataFrame:
    """All heads together, no confound switched."""
    table = run.table.main
    return table[table["head"] == "all"]


def _row(
    run: Run, site: Any, layer: Any, part: pd.DataFrame, claimed: dict[str, str]
) -> dict[str, Any]:
    values: dict[str, Any] = {str(row["contrast"]): row for row in part.to_dict("records")}
    same = [values[name]["mmd2_ci_high"] for name in CONTRASTS["intra-modal"] if name in values]
    ratio = None
    if "image_text" in values and same:
        ratio = values["image_text"]["mmd2"] / max(same) if max(same) > 0 else np.inf
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
        "ratio": ratio,
    }


def _beside(found: Published, table: pd.DataFrame) -> list[Beside]:
    beside = []
    for item in found.values:
        contrasts = CONTRASTS[item.kind]
        ours = table[table["contrast"].isin(contrasts)]
        beside.append(
            Beside(item.what, item.value, contrasts, _range(ours["mmd"]), _range(ours["mmd2"]))
        )
    return beside


def _range(values: pd.Series) -> tuple[float, float, float] | None:
    if values.empty:
        return None
    return float(values.mean()), float(values.min()), float(values.max())
