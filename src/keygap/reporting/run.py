"""Everything that a report reads from one run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from keygap.errors import UserError
from keygap.measurement.tables import GAP_COLUMNS, MEASUREMENT, GapTable, ShapeTable
from keygap.store import Store


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
        return str(self.manifest["model"])

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
    if not (store.root / "gap.csv").is_file():
        raise UserError(f"{store.root} was not measured: run keygap measure {store.root}")
    frame = pd.read_csv(
        store.root / "gap.csv", dtype={"head": str}, keep_default_na=False, na_values=[""]
    )
    if missing := set(GAP_COLUMNS) - set(frame.columns):
        raise UserError(
            f"{store.root} was measured by another version (no column {min(missing)}): "
            f"run keygap measure {store.root}"
        )
    if not (store.root / MEASUREMENT).is_file():
        raise UserError(
            f"{store.root} does not say how it was measured (no {MEASUREMENT}: measured by another "
            f"version, or interrupted): run keygap measure {store.root}"
        )
    settings = yaml.safe_load((store.root / MEASUREMENT).read_text())
    frame["confound"] = frame["confound"].fillna("")
    profile = pd.read_csv(store.root / "jsd.csv")
    path = store.root / "projection.parquet"
    projection = pd.read_parquet(path) if path.is_file() else None
    if projection is not None and projection.empty:
        projection = None  # no layer has keys of both modalities
    scored = store.root / "accuracy.csv"
    accuracy = pd.read_csv(scored) if scored.is_file() else None
    said = store.root / "notes.txt"
    notes = tuple(said.read_text().splitlines()) if said.is_file() else ()
    table = GapTable(frame, profile, notes, ShapeTable.read(store.root), settings)
    return Run(store.root, store.manifest, table, projection, accuracy)
