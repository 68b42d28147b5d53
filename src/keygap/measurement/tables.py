"""The tables of a measured run, their columns and their files.

``statistics.parquet`` has every number in one long form. ``gap.csv``, ``jsd.csv`` and ``shape.csv``
are views of it for people, and ``dimensions.csv`` has one row for each dimension. Neither torch nor
a statistic is needed to read them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from keygap.errors import UserError
from keygap.measurement.verdict import summarise
from keygap.measurement.views import (
    GAP_COLUMNS,
    PROFILE_COLUMNS,
    SHAPE_COLUMNS,
    STATISTICS_COLUMNS,
    gap_view,
    profile_view,
    shape_view,
)
from keygap.store import write_table, write_text
from keygap.store.run import DIMENSIONS, GAP, JSD, MEASUREMENT, NOTES, SHAPE, STATISTICS

DIMENSION_COLUMNS = (
    "model", "connector", "benchmark", "site", "layer", "head", "contrast", "dimension",
    "contribution", "effect_size", "size",
)  # fmt: skip

_NUMBERS = ("value", "ci_low", "ci_high", "null", "null_low", "null_high", "p_value", "p_holm")
_COUNTS = ("dims", "n_samples", "n_a", "n_b")
SCHEMA = pa.schema(
    [
        (
            name,
            pa.float64() if name in _NUMBERS else pa.int64() if name in _COUNTS else pa.string(),
        )
        for name in STATISTICS_COLUMNS
    ]
)


def statistics_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Make the long table (``STATISTICS_COLUMNS``) of rows; numbers that are left out are null."""
    frame = pd.DataFrame(rows, columns=list(STATISTICS_COLUMNS))
    kinds = dict.fromkeys(_NUMBERS, "float64") | dict.fromkeys(_COUNTS, "Int64")
    return frame.astype(kinds)


@dataclass(frozen=True)
class ShapeTable:
    """In what way the two sides of a contrast between modalities differ.

    Attributes:
        frame: one row per site, layer, head, contrast and number (``SHAPE_COLUMNS``). ``side`` is
            the side that a number describes, empty where it describes both; ``dims`` the number of
            columns or components it was computed in; ``null`` its mean under label swaps.
        dimensions: one row per site, layer, head, contrast and dimension (``DIMENSION_COLUMNS``):
            its part of the squared difference of means, its effect size, and its root mean square
            over that of the median dimension.
    """

    frame: pd.DataFrame
    dimensions: pd.DataFrame

    def save(self, folder: str | Path) -> None:
        """Write ``shape.csv`` and ``dimensions.csv``, each whole or not at all."""
        write_text(Path(folder) / SHAPE, self.frame.to_csv(index=False))
        write_text(Path(folder) / DIMENSIONS, self.dimensions.to_csv(index=False))

    @classmethod
    def read(cls, folder: str | Path) -> ShapeTable:
        """Read the tables of a measured run.

        Raises:
            UserError: a table is missing or lacks a column.
        """
        frame = _read_csv(Path(folder), SHAPE, SHAPE_COLUMNS, dtype={"layer": str, "head": str})
        frame["side"] = frame["side"].fillna("")
        return cls(frame, _read_csv(Path(folder), DIMENSIONS, DIMENSION_COLUMNS))


@dataclass(frozen=True)
class GapTable:
    """What ``kg.measure`` found.

    Attributes:
        frame: ``gap.csv``, one row per site, layer, head, contrast and confound (``GAP_COLUMNS``).
        profile: ``jsd.csv``, the JSD of all heads together by number of principal components, and
            the first number at which it saturates (``PROFILE_COLUMNS``).
        notes: what could not be measured, and why; cautions about few or repeated samples.
        shape: ``shape.csv`` and ``dimensions.csv``, further statistics of the contrasts between
            modalities.
        settings: the options of the measurement (text_roles, tokens_per_sample, n_permutations,
            n_bootstraps, seed) and the name, rung and meaning of every contrast that was asked
            for, measured or not.
        statistics: ``statistics.parquet``, one row per number (``STATISTICS_COLUMNS``). ``frame``,
            ``profile`` and ``shape.frame`` are views of it.
    """

    frame: pd.DataFrame
    profile: pd.DataFrame
    notes: tuple[str, ...]
    shape: ShapeTable
    settings: dict[str, Any]
    statistics: pd.DataFrame = field(default_factory=lambda: statistics_frame([]))

    @classmethod
    def of(
        cls,
        statistics: pd.DataFrame,
        dimensions: pd.DataFrame,
        notes: tuple[str, ...],
        settings: dict[str, Any],
    ) -> GapTable:
        """Make the table and its views from the long table."""
        shape = ShapeTable(shape_view(statistics), dimensions)
        gap, profile = gap_view(statistics), profile_view(statistics)
        return cls(gap, profile, notes, shape, settings, statistics)

    def save(self, folder: str | Path) -> None:
        """Write every table of the measurement, each whole or not at all.

        ``measurement.yaml`` is removed first and written last, so that it is never beside tables
        of another measurement.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        root = Path(folder)
        (root / MEASUREMENT).unlink(missing_ok=True)
        write_text(root / NOTES, "".join(f"{note}\n" for note in self.notes))
        long = pa.Table.from_pandas(self.statistics, schema=SCHEMA, preserve_index=False)
        write_table(root / STATISTICS, long)
        write_text(root / GAP, self.frame.to_csv(index=False))
        write_text(root / JSD, self.profile.to_csv(index=False))
        self.shape.save(root)
        settings = yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True)
        write_text(root / MEASUREMENT, settings)

    @classmethod
    def read(cls, folder: str | Path) -> GapTable:
        """Read the tables of a measured run.

        Raises:
            UserError: the run was not measured, not to the end, or by another version.
        """
        root = Path(folder)
        if not (root / GAP).is_file():
            raise UserError(f"{root} was not measured: run keygap measure {root}")
        frame = _read_csv(
            root, GAP, GAP_COLUMNS, dtype={"head": str}, keep_default_na=False, na_values=[""]
        )
        frame["confound"] = frame["confound"].fillna("")
        if not (root / MEASUREMENT).is_file():
            raise UserError(
                f"{root} does not say how it was measured (no {MEASUREMENT}: another version, or "
                f"stopped midway): run keygap measure {root}"
            )
        settings = yaml.safe_load((root / MEASUREMENT).read_text())
        notes = root / NOTES
        return cls(
            frame,
            _read_csv(root, JSD, PROFILE_COLUMNS),
            tuple(notes.read_text().splitlines()) if notes.is_file() else (),
            ShapeTable.read(root),
            settings,
            _read_statistics(root),
        )

    @property
    def main(self) -> pd.DataFrame:
        """The rows of ``frame`` without those of confounds."""
        return self.frame[self.frame["confound"] == ""]

    def summary(self) -> pd.DataFrame:
        """Every contrast between modalities beside its ladder (see ``verdict.summarise``)."""
        return summarise(self.main)

    def _repr_html_(self) -> str:
        return self.summary().to_html(index=False, float_format=lambda value: f"{value:.3f}")


def _read_csv(root: Path, name: str, columns: tuple[str, ...], **options: Any) -> pd.DataFrame:
    if not (root / name).is_file():
        raise _of_another_version(root, f"no {name}")
    frame = pd.read_csv(root / name, **options)
    if missing := set(columns) - set(frame.columns):
        raise _of_another_version(root, f"no column {min(missing)}")
    return frame


def _read_statistics(root: Path) -> pd.DataFrame:
    if not (root / STATISTICS).is_file():
        raise _of_another_version(root, f"no {STATISTICS}")
    table = pq.read_table(root / STATISTICS)
    if missing := set(STATISTICS_COLUMNS) - set(table.column_names):
        raise _of_another_version(root, f"no column {min(missing)}")
    return statistics_frame(table.to_pylist())


def _of_another_version(root: Path, what: str) -> UserError:
    return UserError(f"{root} was measured by another version ({what}): run keygap measure {root}")
