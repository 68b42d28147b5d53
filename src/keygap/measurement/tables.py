"""The tables of a measured run, their columns and their files.

``statistics.parquet`` has every number in one long form. ``gap.csv``, ``jsd.csv`` and ``shape.csv``
are views of it for people, and ``dimensions.csv`` has one row for each dimension. Neither torch nor
a statistic is needed to read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml

from keygap.display import as_html, brief, counted, names
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
from keygap.store import save_results
from keygap.store.reading import read_csv, read_table, read_text, read_yaml
from keygap.store.results import is_recorded, result_checksums
from keygap.store.run import DIMENSIONS, GAP, JSD, MEASUREMENT, NOTES, SHAPE, STATISTICS
from keygap.text import first_line

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


# Columns of the CSV files that are text; the others are numbers.
_TEXT = (
    "model", "connector", "benchmark", "site", "head", "contrast", "rung", "confound",
    "jsd_estimator", "highest", "statistic", "side", "what",
)  # fmt: skip


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

    def files(self) -> dict[str, str]:
        """The contents of ``shape.csv`` and ``dimensions.csv``, by file name."""
        return {
            SHAPE: self.frame.to_csv(index=False),
            DIMENSIONS: self.dimensions.to_csv(index=False),
        }

    @classmethod
    def read(cls, folder: str | Path) -> ShapeTable:
        """Read the tables of a measured run.

        Raises:
            UserError: a table is missing or damaged.
        """
        text = dict.fromkeys(("layer", "head", "side"), str)  # also a column without any value
        frame = _read_csv(Path(folder), SHAPE, SHAPE_COLUMNS, dtype=text)
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
        """Make the table and its views from the long table.

        Args:
            statistics: rows of ``STATISTICS_COLUMNS``.
            dimensions: rows of ``DIMENSION_COLUMNS``.
            notes: what could not be measured, and why.
            settings: options of the measurement, and every contrast that was asked for.
        """
        shape = ShapeTable(shape_view(statistics), dimensions)
        gap, profile = gap_view(statistics), profile_view(statistics)
        return cls(gap, profile, notes, shape, settings, statistics)

    def save(self, folder: str | Path) -> None:
        """Write every table of the measurement, all or none.

        Args:
            folder: the run folder, or any other.

        Raises:
            UserError: another process writes in the folder, the disk is full, or the folder
                cannot be written.
        """
        long = pa.Table.from_pandas(self.statistics, schema=SCHEMA, preserve_index=False)
        files = {
            NOTES: "".join(f"{note}\n" for note in self.notes),
            STATISTICS: long,
            GAP: self.frame.to_csv(index=False),
            JSD: self.profile.to_csv(index=False),
            **self.shape.files(),
            MEASUREMENT: yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True),
        }
        save_results(folder, files)

    @classmethod
    def read(cls, folder: str | Path) -> GapTable:
        """Read the tables of a measured run.

        Args:
            folder: the run folder.

        Raises:
            UserError: the run was not measured, not to the end, or by another version; or a table
                is damaged, or is of another run.
        """
        root = Path(folder)
        if not is_recorded(root, GAP):
            raise UserError(f"{root} was not measured: {_remedy(root)}")
        text = {"head": str, "confound": str}  # also a column without any value
        frame = _read_csv(root, GAP, GAP_COLUMNS, dtype=text, keep_default_na=False, na_values=[""])
        frame["confound"] = frame["confound"].fillna("")
        settings = _read_settings(root)
        notes = _read_text(root, NOTES) if is_recorded(root, NOTES) else ""
        return cls(
            frame,
            _read_csv(root, JSD, PROFILE_COLUMNS),
            tuple(notes.splitlines()),
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

    def __repr__(self) -> str:
        frame = self.frame
        of = f"{names(frame['model'])} on {names(frame['benchmark'])}"
        found = [
            counted(len(frame[["site", "layer"]].drop_duplicates()), "layer"),
            counted(frame["contrast"].nunique(), "contrast"),
            counted(int(frame["n_samples"].max() if len(frame) else 0), "sample"),
            counted(len(self.notes), "note"),
        ]
        return brief(f"GapTable({of}: {', '.join(found)})")

    def _repr_html_(self) -> str:
        between = self.main[(self.main["rung"] == "between") & (self.main["head"] == "all")]
        sizes = sorted({int(n) for n in between["n_samples"]})
        n = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else str(*sizes)
        caption = (
            f"Gap between modalities, {names(self.frame['model'])} on "
            f"{names(self.frame['benchmark'])}, all heads together, {n or 'no'} samples. mmd2: MMD "
            "squared of standardised vectors (no unit, at most 2). kind: MMD squared of the "
            "largest contrast inside one modality, which is named under highest. ratio_kind: mmd2 "
            "/ kind. interval: 95 % interval of ratio_kind, a jackknife over samples. same: MMD "
            "squared of two halves of one modality, 0 apart from noise. ratio_same: mmd2 divided "
            "by the upper end of the interval of same."
        )
        return as_html(caption, self.summary(), self.notes)


def _read_csv(
    root: Path,
    name: str,
    columns: tuple[str, ...],
    dtype: Mapping[str, type] | None = None,
    **options: Any,
) -> pd.DataFrame:
    text = (*_TEXT, *(dtype or {}))
    checksums = _checksums(root, name)
    return read_csv(*_file(root, name), columns, text, checksums, dtype=dtype, **options)


def _read_text(root: Path, name: str) -> str:
    return read_text(*_file(root, name), _checksums(root, name))


def _read_statistics(root: Path) -> pd.DataFrame:
    path, remedy = _file(root, STATISTICS)
    table = read_table(path, remedy, STATISTICS_COLUMNS, _checksums(root, STATISTICS))
    try:
        return statistics_frame(table.to_pylist())
    except (TypeError, ValueError) as error:  # possible without checksums only
        raise UserError(f"{path} is damaged ({first_line(error)}): {remedy}") from error


def _read_settings(root: Path) -> dict[str, Any]:
    """How the run was measured."""
    if not is_recorded(root, MEASUREMENT):
        raise UserError(
            f"{root} does not say how it was measured (no {MEASUREMENT}: another version, or "
            f"stopped midway): {_remedy(root)}"
        )
    settings = read_yaml(*_file(root, MEASUREMENT), _checksums(root, MEASUREMENT))
    contrasts = settings.get("contrasts")
    keys = {"name", "rung", "what"}
    if not isinstance(contrasts, list) or not all(
        isinstance(one, dict) and keys <= one.keys() for one in contrasts
    ):
        raise UserError(f"{root / MEASUREMENT} names no contrasts: {_remedy(root)}")
    return settings


def _file(root: Path, name: str) -> tuple[Path, str]:
    """The path of a table, which must exist, and what to do if it is damaged."""
    if not is_recorded(root, name):
        raise UserError(f"{root} was measured by another version (no {name}): {_remedy(root)}")
    return root / name, _remedy(root)


def _checksums(root: Path, name: str) -> tuple[str, ...] | None:
    return result_checksums(root, name, _remedy(root))


def _remedy(root: Path) -> str:
    return f"run keygap measure {root}"
