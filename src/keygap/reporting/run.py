"""Everything that a report reads from one run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keygap.contrasts import CONTRASTS
from keygap.measurement.tables import GapTable
from keygap.store import Store
from keygap.store.run import ACCURACY, PROJECTION
from keygap.text import printable


@dataclass(frozen=True)
class Run:
    """A measured run.

    Attributes:
        root: the run folder.
        manifest: the contents of ``manifest.json``.
        table: the measurement.
        projection: the rows of ``projection.parquet``; None if nothing was projected.
        accuracy: the rows of ``accuracy.csv``; None if no answers were scored.
    """

    root: Path
    manifest: dict[str, Any]
    table: GapTable
    projection: pd.DataFrame | None
    accuracy: pd.DataFrame | None

    @property
    def model(self) -> str:
        """The model's name."""
        return printable(self.manifest["model"])

    def saturates_at(self) -> dict[tuple[str, int, str], int]:
        """Map (site, layer, contrast) to the first number of dimensions where its JSD saturates."""
        found = self.table.profile.dropna(subset="jsd_saturates_at")
        places = zip(found["site"], found["layer"], found["contrast"], strict=True)
        return dict(zip(places, found["jsd_saturates_at"].astype(int), strict=True))

    def projected(self, site: str) -> pd.DataFrame:
        """Rows of the projection at a site; empty if nothing was projected."""
        if self.projection is None:
            return pd.DataFrame({"site": [], "layer": []})
        return self.projection[self.projection["site"] == site]

    def summary(self) -> pd.DataFrame:
        """The summary of the measurement, with the benchmark and the model's accuracy on it."""
        frame = self.table.summary()
        frame.insert(1, "benchmark", self.manifest["benchmark"])
        overall = np.nan if self.accuracy is None else float(self.accuracy["accuracy"].iloc[0])
        frame.insert(2, "accuracy", overall)
        return frame


def read_run(folder: str | Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: the folder holds no run, or one that was not measured by this version.
    """
    store = Store(folder)
    table = GapTable.read(store.root)
    projection, accuracy = None, None
    if (store.root / PROJECTION).is_file():
        projection = pd.read_parquet(store.root / PROJECTION)
    if (store.root / ACCURACY).is_file():
        accuracy = pd.read_csv(store.root / ACCURACY)
    return Run(store.root, store.manifest, table, projection, accuracy)


def contrasts_of(runs: Sequence[Run], rung: str | None = None) -> list[str]:
    """Names of the contrasts that runs were asked for, in the order of tables and figures.

    Args:
        runs: the runs.
        rung: only contrasts of this rung.

    Returns:
        The registered contrasts in the order of the ladder, then the others in the order asked.
    """
    asked = [
        item["name"]
        for run in runs
        for item in run.table.settings["contrasts"]
        if rung in (None, item["rung"])
    ]
    return [name for name in CONTRASTS if name in asked] + [
        name for name in dict.fromkeys(asked) if name not in CONTRASTS
    ]
