"""Compares two ``gap.csv``, such as those of ``keygap demo`` before and after a change.

Rows are matched by model, benchmark, site, layer, head, contrast and confound. For each other
column the largest difference is printed, and the row it is in. Values of at most 1 are compared by
their absolute difference, larger ones by their relative difference; two blanks are equal, and so
are two equal infinities. Text must be the same. The exit status is 1 if a difference exceeds the
tolerance, or if rows or columns are missing on one side.

    python bench/compare_gap.py A B [--tolerance 1e-6]

A and B are files, or folders that hold a ``gap.csv``.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

KEY = ["model", "benchmark", "site", "layer", "head", "contrast", "confound"]


@dataclass(frozen=True)
class Difference:
    """The largest difference of one column: 0 or 1 for text, and the row that has it."""

    column: str
    size: float
    row: str


def read(path: Path) -> pd.DataFrame:
    """The table of a file or folder, indexed by ``KEY``; exits where there is none."""
    file = path / "gap.csv" if path.is_dir() else path
    if not file.is_file():
        sys.exit(f"no file {file}")
    frame = pd.read_csv(file, dtype=dict.fromkeys(KEY, str), keep_default_na=True)
    if lacking := [name for name in KEY if name not in frame.columns]:
        sys.exit(f"{file} has no column {', '.join(lacking)}: it is no gap.csv")
    frame[KEY] = frame[KEY].fillna("")
    frame = frame.set_index(KEY)
    if frame.index.has_duplicates:
        sys.exit(f"{file} has two rows of {shown(frame.index[frame.index.duplicated()][0])}")
    return frame


def shown(key: object) -> str:
    """A row's key on one line."""
    return " ".join(str(value) for value in key if value)  # type: ignore[attr-defined]


def differences(a: pd.Series, b: pd.Series) -> np.ndarray:
    """The difference of each row of one column; infinite where only one side has a value."""
    if not (pd.api.types.is_numeric_dtype(a) and pd.api.types.is_numeric_dtype(b)):
        return (a.fillna("").astype(str) != b.fillna("").astype(str)).to_numpy(float)
    x, y = a.to_numpy(float), b.to_numpy(float)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(invalid="ignore"):
        apart = np.abs(x - y) / np.maximum(1, np.maximum(np.abs(x), np.abs(y)))
    return np.where(same, 0.0, np.where(np.isfinite(apart), apart, np.inf))


def compare(a: pd.DataFrame, b: pd.DataFrame) -> list[Difference]:
    """The largest difference of each column that both tables have, over the rows they share."""
    rows = a.index.intersection(b.index, sort=False)
    found = []
    for column in [name for name in a.columns if name in b.columns]:
        apart = differences(a.loc[rows, column], b.loc[rows, column])
        worst = int(apart.argmax())
        found.append(Difference(column, float(apart[worst]), shown(rows[worst])))
    return found


def missing(a: pd.DataFrame, b: pd.DataFrame) -> list[str]:
    """One line for each row or column that only one of the tables has."""
    lines = []
    for one, other, name in ((a, b, "A"), (b, a, "B")):
        lines += [
            f"column only in {name}: {column}" for column in one.columns.difference(other.columns)
        ]
        lines += [f"row only in {name}: {shown(key)}" for key in one.index.difference(other.index)]
    return lines


def main() -> None:
    """Print the comparison; exit with 1 where the tables differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a", type=Path, metavar="A")
    parser.add_argument("b", type=Path, metavar="B")
    parser.add_argument("--tolerance", type=float, default=1e-6)
    options = parser.parse_args()

    a, b = read(options.a), read(options.b)
    lines = missing(a, b)
    print(*lines, sep="\n", end="\n" if lines else "")
    rows = a.index.intersection(b.index)
    if rows.empty:
        sys.exit("the tables have no row in common")
    found = compare(a, b)
    for each in found:
        print(f"{each.column:16} {each.size:9.2e}" + (f"   {each.row}" if each.size else ""))
    too_large = [each.column for each in found if each.size > options.tolerance]
    verdict = f"differ in {', '.join(too_large)}" if too_large else "equal"
    if lines:
        verdict += f"; {len(lines)} rows or columns are on one side only"
    print(f"{len(rows)} rows, {len(found)} columns compared to {options.tolerance:g}: {verdict}")
    sys.exit(1 if lines or too_large else 0)


if __name__ == "__main__":
    main()
