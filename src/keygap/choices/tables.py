"""The tables of a specification curve: every choice, the statements, and what moves the numbers.

A *choice* is one combination of everything that a paper may leave open: a level of every factor.
``choices.parquet`` has a row for each, ``choices_statements.csv`` says in what share of them each
statement holds, and ``choices_variance.csv`` which factor moves each number. Nothing here needs a
model or torch, because a report is made from files alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml

from keygap.choices import levels
from keygap.choices.levels import FACTORS
from keygap.choices.statements import STATEMENT_COLUMNS
from keygap.choices.variance import VARIANCE_COLUMNS
from keygap.display import as_html, counted
from keygap.errors import UserError
from keygap.store import save_results
from keygap.store.files import Content
from keygap.store.reading import read_csv, read_table, read_yaml
from keygap.store.results import is_recorded, result_checksums
from keygap.store.run import CHOICES, CHOICES_SETTINGS, CHOICES_STATEMENTS, CHOICES_VARIANCE
from keygap.text import first_line

PLACE = ("model", "connector", "benchmark", "site")  # what was measured
MEASURES = ("mmd", "jsd")
VALUES = (
    "cross", "cross_low", "cross_high", "image_image", "text_text", "ratio", "ratio_low",
    "ratio_high",
)  # fmt: skip
COUNTS = ("n_samples", "n_image", "n_text")
COLUMNS = (
    "row", *PLACE, "layer", "heads", "text", "outliers", "tokens", "unit", "space", "measure",
    "estimator", "bias", "scale", *VALUES, *COUNTS, "weight",
)  # fmt: skip
SETTINGS = ("levels", "n_groups", "seed", "sources", "rules", "notes", "published")
FILES = (CHOICES, CHOICES_STATEMENTS, CHOICES_VARIANCE, CHOICES_SETTINGS)
SCHEMA = pa.schema(
    [
        (
            name,
            pa.float64()
            if name in (*VALUES, "weight")
            else pa.int64()
            if name in (*COUNTS, "tokens")
            else pa.string(),
        )
        for name in COLUMNS
    ]
)
# The order of the levels of a factor in tables and figures; other levels follow, by their numbers.
LEVELS: Mapping[str, tuple[str, ...]] = {
    "layer": levels.LAYERS,
    "heads": (levels.TOGETHER, levels.MEAN),
    "text": tuple(levels.TEXTS),
    "outliers": levels.OUTLIERS,
    "tokens": (),
    "unit": levels.UNITS,
    "space": levels.SPACES,
    "estimator": levels.ESTIMATORS,
    "bias": (levels.UNBIASED, levels.BIASED),
    "scale": (*levels.MMD_SCALES, *levels.JSD_SCALES),
}
ROBUST = 0.95  # a statement is robust if the interval of its share lies above
MOST_SHOWN = 20  # rows of a summary
_IDENTITY = ("model", "benchmark", "site", "measure", *FACTORS)  # what the id of a row is made of
_STATEMENT_TEXT = ("statement", "what", "measure", "model", "benchmark", "site")
_VARIANCE_TEXT = ("number", "measure", "factor")


@dataclass(frozen=True, repr=False)
class ChoicesTable:
    """The numbers of every choice, and what they say about the statements of a paper.

    Attributes:
        frame: one row per choice (``COLUMNS``). ``row`` is its id (see ``row_ids``), and the
            columns ``FACTORS`` and ``measure`` its levels, text but for ``tokens``. ``cross``
            compares image and text, with a 95 % interval over samples; ``image_image`` and
            ``text_text`` compare two halves of one modality. ``ratio`` is ``cross`` over the mean
            of the two, infinite where that mean is not above 0. ``weight`` is the weight of
            the row in every share: 1. A row of a single head has 1/H, so that the H heads of a
            layer together count as one choice.
        statements: one row per statement, measure, model and benchmark (``STATEMENT_COLUMNS``).
            ``what`` is the statement as a clause, such as "the ratio is at least 10", and ``share``
            that of the choices in which it holds, with a 95 % interval over samples; NaN ends mean
            that no interval was computed. The ``model`` of an order of two models is "A > B".
        variance: the share of the variance over choices that a factor accounts for, alone and with
            its interactions (``VARIANCE_COLUMNS``).
        settings: what was asked, as plain values; ``SETTINGS`` are always there. ``rules`` lists
            the combinations that were left out (``rule``, ``reason``), ``notes`` what the stores
            could not serve, and ``published`` has ``source``, ``cross``, ``intra`` and ``jsd`` as
            far as they are known.
    """

    frame: pd.DataFrame
    statements: pd.DataFrame
    variance: pd.DataFrame
    settings: Mapping[str, Any] = field(default_factory=dict)

    def summary(self) -> pd.DataFrame:
        """The share of the choices in which each statement holds, in at most about 20 rows.

        Returns:
            Columns ``statement``, ``measure``, ``model``, ``benchmark``, ``choices`` and ``share``
            in percent. One row per row of ``statements``; if there are more than 20 of them, one
            per statement and measure, whose ``share`` reaches from the smallest to the largest.
        """
        found = self.statements
        if len(found) > MOST_SHOWN:
            groups = found.groupby(["statement", "measure"], sort=False)
            rows = [_group(own) for _, own in groups]
        else:
            rows = [
                row | {"choices": row["n_choices"], "share": share_cell(row)}
                for row in found.to_dict("records")
            ]
        columns = ["statement", "measure", "model", "benchmark", "choices", "share"]
        return pd.DataFrame(rows, columns=columns)

    def files(self) -> dict[str, Content]:
        """The contents of the four files by name, for a caller that holds the folder's lock.

        It passes them to ``keygap.store.results.record_results``.
        """
        return {
            CHOICES: pa.Table.from_pandas(
                self.frame[list(COLUMNS)], schema=SCHEMA, preserve_index=False
            ),
            CHOICES_STATEMENTS: self.statements.to_csv(index=False),
            CHOICES_VARIANCE: self.variance.to_csv(index=False),
            CHOICES_SETTINGS: yaml.safe_dump(
                dict(self.settings), sort_keys=False, allow_unicode=True
            ),
        }

    def save(self, folder: str | Path) -> None:
        """Write the four files (``FILES``), under the lock of the folder.

        Args:
            folder: the run folder, or any other.

        Raises:
            UserError: another process writes in the folder, the disk is full, or the folder
                cannot be written.
        """
        save_results(folder, self.files())

    def _repr_html_(self) -> str:
        caption = (
            f"{self!r}: the share of the choices in which each statement holds, in percent, with "
            "its 95 % interval over samples."
        )
        return as_html(caption, self.summary(), self.settings.get("notes", ()))

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{number} {measure}"
            for measure, number in self.frame["measure"].value_counts().items()
        )
        return (
            f"ChoicesTable({len(self.frame)} choices ({counts}) of "
            f"{counted(self.frame['model'].nunique(), 'model')} on "
            f"{counted(self.frame['benchmark'].nunique(), 'benchmark')}, "
            f"{counted(self.statements['statement'].nunique(), 'statement')})"
        )


def percent(share: float, digits: int = 0) -> str:
    """A share in percent, without its sign; what is neither 0 nor 1 never reads "0" or "100".

    Args:
        share: between 0 and 1.
        digits: decimals.
    """
    text = f"{100 * share:.{digits}f}"
    if float(text) == 0 and share > 0:
        return f"< {10.0**-digits:.{digits}f}"
    if float(text) == 100 and share < 1:
        return f"> {100 - 10.0**-digits:.{digits}f}"
    return text


def share_cell(row: Mapping[Any, Any]) -> str:
    """The share of a row of ``statements`` with its interval, in percent; empty if it is NaN."""
    if math.isnan(row["share"]):
        return ""
    text = f"{percent(row['share'])} %"
    if math.isnan(row["share_low"]) or math.isnan(row["share_high"]):
        return text
    return f"{text} ({percent(row['share_low'])} to {percent(row['share_high'])})"


def row_ids(frame: pd.DataFrame) -> list[str]:
    """The id of every row: 12 hex digits of a SHA-256 of what was measured and of every level.

    Args:
        frame: with the columns model, benchmark, site, measure and ``FACTORS``.
    """
    columns = (frame[name].astype(str) for name in _IDENTITY)
    return [
        hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]
        for values in zip(*columns, strict=True)
    ]


def levels_of(frame: pd.DataFrame, factor: str) -> list[str]:
    """The levels of a factor that a table has, as text, in the order of tables and figures.

    Args:
        frame: with the column ``factor``.
        factor: one of ``FACTORS``, or another column such as ``model``.

    Returns:
        The levels of ``LEVELS`` first, in their order; then the others, numbers by their size.
        Columns that are not factors keep the order of their rows.
    """
    present = [str(level) for level in frame[factor].unique()]
    if factor not in LEVELS:
        return present
    known = [level for level in LEVELS[factor] if level in present]
    return known + sorted(set(present) - set(known), key=_by_numbers)


def read_choices(folder: str | Path) -> ChoicesTable:
    """Read the tables of a study folder or a run folder.

    Args:
        folder: the study folder or the run folder.

    Returns:
        The tables as they were saved.

    Raises:
        UserError: the choices were not computed there, or a file is damaged or of another run.
    """
    root = Path(folder)
    remedy = f"run keygap choices {root}"
    if not is_recorded(root, CHOICES):
        raise UserError(f"{root} has no {CHOICES}: {remedy}")
    sums = {name: result_checksums(root, name, remedy) for name in FILES}
    table = read_table(root / CHOICES, remedy, COLUMNS, sums[CHOICES])
    try:
        frame = table.select(list(COLUMNS)).cast(SCHEMA).to_pandas()
    except (pa.ArrowException, ValueError) as error:
        path = root / CHOICES
        raise UserError(f"{path} is damaged ({first_line(error)}): {remedy}") from error
    statements, variance = (
        read_csv(root / name, remedy, columns, text, sums[name], **_csv_options(columns, text))
        for name, columns, text in (
            (CHOICES_STATEMENTS, STATEMENT_COLUMNS, _STATEMENT_TEXT),
            (CHOICES_VARIANCE, VARIANCE_COLUMNS, _VARIANCE_TEXT),
        )
    )
    path = root / CHOICES_SETTINGS
    settings = read_yaml(path, remedy, sums[CHOICES_SETTINGS])
    if wrong := _wrong(settings):
        raise UserError(f"{path} is damaged ({wrong}): {remedy}")
    return ChoicesTable(frame, statements, variance, settings)


def _csv_options(columns: tuple[str, ...], text: tuple[str, ...]) -> dict[str, Any]:
    numbers = [name for name in columns if name not in text]
    return {
        "dtype": dict.fromkeys(text, str),
        "keep_default_na": False,  # a name may be "NA"
        "na_values": dict.fromkeys(numbers, ""),
    }


def _wrong(settings: Mapping[str, Any]) -> str:
    """What a report could not use of the settings; empty if there is nothing."""
    if missing := [name for name in SETTINGS if name not in settings]:
        return f"no {missing[0]}"
    rules, notes = settings["rules"], settings["notes"]
    if not isinstance(rules, list) or not all(
        isinstance(one, dict) and {"rule", "reason"} <= one.keys() for one in rules
    ):
        return "its rules are not a list of rule and reason"
    if not isinstance(notes, list):
        return "its notes are not a list"
    if not isinstance(settings["published"], dict | None):
        return "its published numbers are not a mapping"
    return ""


def _group(own: pd.DataFrame) -> dict[Any, Any]:
    """What rows of one statement and measure have in common, and the range of their shares."""
    first = own.iloc[0]
    names = {
        name: first[name] if own[name].nunique() == 1 else f"{own[name].nunique()} {name}s"
        for name in ("model", "benchmark")
    }
    shared = {name: first[name] for name in ("statement", "measure")}
    return shared | names | {"choices": int(own["n_choices"].sum()), "share": _range(own)}


def _range(own: pd.DataFrame) -> str:
    """The smallest and the largest share of some rows, in percent."""
    low, high = (percent(end) for end in (own["share"].min(), own["share"].max()))
    return f"{low} %" if low == high else f"{low} to {high} %"


def _by_numbers(level: str) -> tuple[Any, ...]:
    """Sort key of a level: its numbers by size, and text before and between them."""
    parts = re.split(r"(\d+)", level)
    return tuple(int(part) if number % 2 else part for number, part in enumerate(parts))
