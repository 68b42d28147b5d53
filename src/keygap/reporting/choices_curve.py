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
from jaxtyping import Bool, Float, Int

from keygap.choices.tables import FACTORS, levels_of

NUMBERS = {"mmd": "ratio", "jsd": "cross"}  # what the choices of a measure are sorted by
QUANTILES = (0, 5, 25, 50, 75, 95, 100)  # percent, of the choices that have marks and links
COLUMNS = 150  # of the matrix
ROUNDING = 1e-9  # percent
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

    Every row is as wide as it counts in shares (``weight``), so that the single heads of a model
    are together as wide as one choice.

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

    @cached_property
    def weights(self) -> Float[np.ndarray, " n"]:
        """What each row counts, in percent of all."""
        weights = self.rows["weight"].to_numpy(float)
        return 100 * weights / weights.sum()

    @property
    def is_weighted(self) -> bool:
        """Whether some rows count less than others."""
        return bool(np.ptp(self.weights) > 1e-9 * self.weights.max())

    @cached_property
    def ends(self) -> Float[np.ndarray, " n"]:
        """Where each row ends, in percent of all choices."""
        return np.cumsum(self.weights)

    @cached_property
    def middles(self) -> Float[np.ndarray, " n"]:
        """Where each row is drawn, in percent of all choices."""
        return self.ends - self.weights / 2

    @cached_property
    def edges(self) -> Float[np.ndarray, " columns+1"]:
        """Where each column of the matrix begins, and where the last one ends, in percent."""
        n = len(self.rows)
        return np.linspace(0, 100, (n if n <= COLUMNS and not self.is_weighted else COLUMNS) + 1)

    @property
    def is_infinite(self) -> Bool[np.ndarray, " n"]:
        """Which numbers are infinite; they are the last."""
        return np.isposinf(self.values)

    @property
    def is_not_positive(self) -> Bool[np.ndarray, " n"]:
        """Which numbers are not above 0, so that they have no logarithm; they are the first."""
        return self.values <= 0

    def by_column(self, values: pd.Series, q: float = 0.5) -> Float[np.ndarray, " columns"]:
        """A quantile of the values of the rows of every column; missing values are left out."""
        numbers, starts = values.to_numpy(float), self.ends - self.weights
        found = []
        for left, right in zip(self.edges[:-1], self.edges[1:], strict=True):
            first, last = np.searchsorted(self.ends, (left + ROUNDING, right - ROUNDING))
            rows = slice(first, last + 1)
            inside = np.minimum(self.ends[rows], right) - np.maximum(starts[rows], left)
            found.append(quantile(numbers[rows], inside, q))
        return np.array(found)

    def shares(self, has: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " columns"]:
        """The share of every column that is of some rows."""
        covered = np.cumsum(np.where(has, self.weights, 0.0))
        at_edges = np.interp(self.edges, np.append(0, self.ends), np.append(0, covered))
        return np.clip(np.diff(at_edges) / np.diff(self.edges), 0, 1)

    def at(self, percent: Float[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """The rows up to which these shares of the choices reach."""
        found = np.searchsorted(self.ends, np.asarray(percent) - ROUNDING)
        return np.minimum(found, len(self.ends) - 1)

    def marked(self) -> dict[int, str]:
        """The position of the row at every quantile, with its quantiles in words."""
        found: dict[int, list[str]] = {}
        for position, percent in zip(self.at(np.array(QUANTILES)), QUANTILES, strict=True):
            found.setdefault(int(position), []).append(f"{percent}")
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
            has = own.isin(same).to_numpy(bool)
            median = quantile(self.values[has], self.weights[has], 0.5)
            lanes.append(Lane(name, label, self.shares(has), median))
        return lanes


def quantile(values: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"], q: float) -> float:
    """The smallest value up to which the weights reach a share; NaN if no value is known.

    Args:
        values: in any order; those that are NaN are left out.
        weights: of the values.
        q: the share.
    """
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return float("nan")
    order = known[np.argsort(values[known], kind="stable")]
    reached = np.cumsum(weights[order])
    at = np.searchsorted(reached, q * reached[-1] * (1 - 1e-9))
    return float(values[order[at]])


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
