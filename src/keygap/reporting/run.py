"""Everything that a report reads from one run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keygap.contrasts import CONTRASTS
from keygap.errors import UserError
from keygap.measurement.tables import GapTable
from keygap.store import Store
from keygap.store.checksums import REPAIR
from keygap.store.reading import read_bytes, read_csv, read_table
from keygap.store.results import is_recorded, result_checksums
from keygap.store.run import ACCURACY, ANSWERS, MANIFEST, PROJECTION
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
        store: the extraction; None for tables without one.
    """

    root: Path
    manifest: dict[str, Any]
    table: GapTable
    projection: pd.DataFrame | None
    accuracy: pd.DataFrame | None
    store: Store | None = None

    @property
    def model(self) -> str:
        """The model's name."""
        return printable(self.manifest["model"])

    @cached_property
    def identical_prompts(self) -> bool:
        """Whether the text that counts is the same in each of several prompts."""
        if self.store is None:
            return False
        tokens, roles = self.store.tokens, list(self.table.settings["text_roles"])
        text = tokens[(tokens["modality"] == "text") & tokens["role"].isin(roles)]
        prompts = text.groupby("sample_id", observed=True)["token"].agg(tuple)
        return bool(len(prompts) > 1 and prompts.nunique() == 1)

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


def read_run(folder: str | Path, verify: bool = False) -> Run:
    """Read a run folder.

    Args:
        folder: the run folder.
        verify: whether to read the vectors too, only to compare them with their checksums.

    Raises:
        UserError: the folder holds no run, one that was not measured by this version, or a damaged
            one.
    """
    store = Store(folder)
    manifest, table = store.manifest, GapTable.read(store.root)
    if missing := {"model", "benchmark", "connector", "n_layers", "versions"} - manifest.keys():
        raise UserError(f"{store.root / MANIFEST} is damaged (no {min(missing)}): {REPAIR}")
    projection, accuracy = projection_of(store.root), _accuracy(store.root)
    run = Run(store.root, manifest, table, projection, accuracy, store)
    if verify:
        store.verify()
    return run


def projection_of(root: Path) -> pd.DataFrame | None:
    """The rows of ``projection.parquet``; None if nothing was projected.

    Args:
        root: the run folder.

    Raises:
        UserError: the file is damaged.
    """
    if not is_recorded(root, PROJECTION):
        return None
    remedy = f"run keygap project {root}"
    checksums = result_checksums(root, PROJECTION, remedy)
    columns = ("site", "layer", "modality", "x", "y")
    return read_table(root / PROJECTION, remedy, columns, checksums).to_pandas()


def _accuracy(root: Path) -> pd.DataFrame | None:
    """The rows of ``accuracy.csv``; None if no answers were scored."""
    remedy = "repeat the keygap run or kg.answer that wrote it"
    if is_recorded(root, ANSWERS):  # which the accuracy was counted in
        read_bytes(root / ANSWERS, remedy, result_checksums(root, ANSWERS, remedy))
    if not is_recorded(root, ACCURACY):
        return None
    checksums = result_checksums(root, ACCURACY, remedy)
    columns = ("rule", "correct", "total", "accuracy")
    return read_csv(root / ACCURACY, remedy, columns, ("rule",), checksums)


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
