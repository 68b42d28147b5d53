"""What a specification curve shows, apart from how it is drawn.

All choices of one measure are sorted by one number: the ratio of an MMD to those within a modality,
or the value of a JSD. The matrix below the curve has a line for every level. It has at most
``COLUMNS`` columns, whatever the number of choices, and the shade of a cell is the share of the
choices of its column that have the level.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from keygap.choices.tables import FACTORS, levels_of

NUMBERS = {"mmd": "ratio", "jsd": "cross"}  # what the choices of a measure are sorted by
QUANTILES = (0, 5, 25, 50, 75, 95, 100)  # percent, of the choices that have marks and links
COLUMNS = 150  # of the matrix
MOST_LEVELS = 12  # of a factor that have a line each; of more, single heads and layers share one
PLACES = ("model", "benchmark", "site")  # varied like factors if there are several
WORDS = {
    "without_sinks": "without sinks", "without_massive": "without massive",
    "pca_50": "50 components", "gaussian_median": "Gaussian, median", "gaussian_grid":
    "Gaussian, grid", "gaussian_1/d": "Gaussian, 1/d", "gaussian_1": "Gaussian, 1",
    "neighbours": "k nearest neighbours", "mmd": "MMD", "mmd2": "MMD²", "root": "root of nats",
}  # fmt: skip


@dataclass(frozen=True)
class Lane:
    """One line of the matrix.

    Attributes:
        factor: what it is a level of.
        label: the level in words.
        shares: of the choices of every column that have the level.
        median: of the number over all choices that have the level.
    """

    factor: str
    label: str
    shares: Float[np.ndarray, " columns"]
    median: float


@dataclass(frozen=True)
class Curve:
    """The choices of one measure, sorted.

    Attributes:
        measure: ``mmd`` or ``jsd``.
        rows: of the table of choices, sorted by ``number``, with a new index.
        missing: how many choices have no number and are not among them.
    """

    measure: str
    rows: pd.DataFrame
    missing: int

    @property
    def number(self) -> str:
        """The column that the choices are sorted by."""
        return NUMBERS[self.measure]

    @cached_property
    def values(self) -> Float[np.ndarray, " n"]:
        """The sorted numbers."""
        return self.rows[self.number].to_numpy(float)

    @property
    def infinite(self) -> int:
        """How many numbers are infinite; they are the last."""
        return int(np.isposinf(self.values).sum())

    @property
    def not_positive(self) -> int:
        """How many numbers are not above 0, so that they have no logarithm; they are the first."""
        return int((self.values <= 0).sum())

    @cached_property
    def edges(self) -> Int[np.ndarray, " columns+1"]:
        """Where each column of the matrix begins, and where the last one ends."""
        n = len(self.rows)
        return np.linspace(0, n, min(COLUMNS, n) + 1).round().astype(int)

    @cached_property
    def column(self) -> Int[np.ndarray, " n"]:
        """The column of every row."""
        return np.repeat(np.arange(len(self.edges) - 1), np.diff(self.edges))

    def percent(self, position: Int[np.ndarray, " n"] | int) -> Float[np.ndarray, " n"]:
        """Where rows are drawn: the middle of their share of all choices, in percent."""
        return 100 * (np.asarray(position) + 0.5) / len(self.rows)

    def by_column(self, values: pd.Series, q: float = 0.5) -> Float[np.ndarray, " columns"]:
        """A quantile of the values of the rows of every column; missing values are left out."""
        return values.groupby(self.column).quantile(q, interpolation="nearest").to_numpy(float)

    def marked(self) -> dict[int, str]:
        """The position of the row at every quantile, with its quantiles in words."""
        found: dict[int, list[str]] = {}
        for quantile in QUANTILES:
            position = round(quantile / 100 * (len(self.rows) - 1))
            found.setdefault(position, []).append(f"{quantile}")
        return {position: ", ".join(names) + " %" for position, names in found.items()}

    def varied(self) -> list[str]:
        """The factors, and models, benchmarks and sites, of which there are several levels."""
        return [name for name in (*PLACES, *FACTORS) if self.rows[name].nunique() > 1]

    def fixed(self) -> dict[str, str]:
        """The level of each factor that has only one, in words."""
        levels = {name: str(self.rows[name].iloc[0]) for name in FACTORS}
        return {
            name: in_words(name, level)
            for name, level in levels.items()
            if level and self.rows[name].nunique() == 1
        }

    def lanes(self) -> list[Lane]:
        """The lines of the matrix: every level of what varies, in the order of tables."""
        return [lane for name in self.varied() for lane in self._lanes_of(name)]

    def _lanes_of(self, name: str) -> list[Lane]:
        levels = levels_of(self.rows, name)
        levels = levels if name in FACTORS else sorted(levels)
        own = self.rows[name].astype(str)
        groups = {in_words(name, level): [level] for level in levels}
        single = [level for level in levels if level.isdecimal()]
        if name in ("heads", "layer") and len(levels) > MOST_LEVELS:
            groups = {label: same for label, same in groups.items() if same[0] not in single}
            groups[f"each of {len(single)} {'heads' if name == 'heads' else 'layers'}"] = single
        lanes = []
        for label, same in groups.items():
            has = own.isin(same)
            shares = has.groupby(self.column).mean().to_numpy(float)
            median = np.quantile(self.values[has], 0.5, method="nearest")
            lanes.append(Lane(name, label, shares, float(median)))
        return lanes


def curve_of(frame: pd.DataFrame, measure: str) -> Curve | None:
    """Sort the choices of one measure.

    Args:
        frame: of a ``ChoicesTable``.
        measure: ``mmd`` or ``jsd``.

    Returns:
        The curve; None if no choice of this measure has a number. Equal numbers are sorted by the
        ids of their rows, so that equal tables give equal figures.
    """
    own = frame[frame["measure"] == measure]
    rows = own.dropna(subset=NUMBERS[measure]).sort_values([NUMBERS[measure], "row"])
    if rows.empty:
        return None
    return Curve(measure, rows.reset_index(drop=True), len(own) - len(rows))


def in_words(factor: str, level: str) -> str:
    """A level as figures and tables name it.

    Args:
        factor: what it is a level of; names of models, benchmarks and sites are left as they are.
        level: as in ``choices.parquet``.
    """
    if factor not in FACTORS:
        return level
    if factor == "tokens":
        return f"{int(level):,}"
    if factor in ("heads", "layer"):
        if level == "mean":
            return "mean of heads" if factor == "heads" else "mean of layers"
        return f"{'head' if factor == 'heads' else factor} {level}" if level.isdecimal() else level
    if found := re.fullmatch(r"histogram_(\d+)", level):
        return f"histogram, {found[1]} bins"
    if found := re.fullmatch(r"joint_(\d+)_(\d+)", level):
        return f"joint {found[1]}-d, {found[2]} bins"
    return WORDS.get(level, level.replace("_", " "))


def short(value: float) -> str:
    """A number in about three digits."""
    if np.isnan(value):
        return ""
    if np.isinf(value):
        return "∞"
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-4:
        return f"{value:.1e}"
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}"
