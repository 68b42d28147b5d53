"""What kind of gap it is: every further statistic of image against text, one row for each number.

MMD and JSD say how far apart; these say in what way: means or shapes, which heads, a ball or a
cloud, and what other papers would have printed. Each is one file of ``gap`` whose result has
``readings``, and one line in ``STATISTICS``: a new one needs no more, the table, its file and the
report show it. All are cheap beside the ladder, and one that these vectors do not have is a note.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from jaxtyping import Float

from keygap import gap
from keygap.contrasts.confounds import relative_size
from keygap.contrasts.sides import Case
from keygap.errors import UserError
from keygap.gap.core.components import pooled_components
from keygap.gap.core.inputs import two_sides
from keygap.gap.core.standardise import standardise
from keygap.store import write_text

SHAPE, DIMENSIONS = "shape.csv", "dimensions.csv"
COLUMNS = (
    "model", "connector", "benchmark", "site", "layer", "head", "statistic", "side", "dims",
    "value", "ci_low", "ci_high", "null", "p_value", "what",
)  # fmt: skip
DIMENSION_COLUMNS = (
    "model", "connector", "benchmark", "site", "layer", "head", "dimension",
    "contribution", "effect_size", "size",
)  # fmt: skip
COMPONENTS = 50  # the paper's; a covariance of more is not known from a few thousand vectors

Pair = tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]


@dataclass(frozen=True)
class Sides:
    """Image and text vectors of one site and layer, all heads together, image first."""

    raw: Pair  # as captured
    standardised: Pair  # as for the gap
    components: Pair  # the first of the standardised ones, found without labels
    ids: tuple[np.ndarray, np.ndarray]  # samples of both
    heads: int
    seed: int

    @classmethod
    def of(cls, case: Case, seed: int) -> Sides:
        """The sides of a case, in the three coordinates."""
        ids = case.a.sample_ids, case.b.sample_ids
        a, b = (side.array.reshape(len(side), -1) for side in (case.a, case.b))
        sides = two_sides(*standardise(a, b), *ids)
        most = min(COMPONENTS, sides.x.shape[1], len(sides.pooled) - 1)
        found = pooled_components(sides, most, allow_fewer=True)
        scores = found.scores * np.sqrt(found.variance)  # back in the units of the vectors
        return cls(
            raw=(a, b),
            standardised=(sides.x, sides.y),
            components=(scores[: len(a)], scores[len(a) :]),
            ids=ids,
            heads=case.a.array.shape[1],
            seed=seed,
        )


class _Result(Protocol):
    @property
    def readings(self) -> tuple[gap.Reading, ...]: ...


STATISTICS: tuple[Callable[[Sides], _Result], ...] = (
    lambda s: gap.modality_gap(*s.raw, *s.ids, seed=s.seed),
    lambda s: gap.mir_layer(*s.raw),
    lambda s: gap.frechet(*s.components, *s.ids, seed=s.seed),
    lambda s: gap.moments(*s.components, *s.ids, seed=s.seed),
    lambda s: gap.contribution(*s.standardised, *s.ids, n_heads=s.heads),
    lambda s: gap.spread(*s.standardised, *s.ids, seed=s.seed),
    lambda s: gap.c2st(*s.components, *s.ids, dims=2, seed=s.seed),
    lambda s: gap.jsd_histogram(*s.components, *s.ids, dims=2, seed=s.seed),
    lambda s: gap.jsd_histogram(*s.components, *s.ids, dims=10, seed=s.seed),
    lambda s: gap.jsd_histogram(*s.components, *s.ids, dims=50, seed=s.seed),
)


@dataclass(frozen=True)
class ShapeTable:
    """Further statistics of image against text.

    Attributes:
        frame: one row per site, layer and number (``COLUMNS``); ``side`` is image or text where a
            number is of one alone, ``dims`` the columns or components it was taken in, ``null``
            what the number reads where labels are swapped.
        dimensions: one row per site, layer, head and dimension: its part of the squared difference
            of means, its effect size, its size over the median dimension's.
    """

    frame: pd.DataFrame
    dimensions: pd.DataFrame

    def save(self, folder: str | Path) -> None:
        """Write ``shape.csv`` and ``dimensions.csv``, whole or not at all."""
        write_text(Path(folder) / SHAPE, self.frame.to_csv(index=False))
        write_text(Path(folder) / DIMENSIONS, self.dimensions.to_csv(index=False))

    @classmethod
    def read(cls, folder: str | Path) -> ShapeTable:
        """The tables of a measured run."""
        frame = pd.read_csv(Path(folder) / SHAPE, dtype={"layer": str, "head": str})
        frame["side"] = frame["side"].fillna("")
        return cls(frame, pd.read_csv(Path(folder) / DIMENSIONS))


@dataclass
class ShapeRows:
    """Collects the rows while a run is measured, one layer in memory at a time."""

    seed: int
    notes: list[str] = field(default_factory=list)
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _dimensions: list[pd.DataFrame] = field(default_factory=list)

    def add(self, place: Mapping[str, Any], case: Case) -> None:
        """Measure image against text at one site and layer."""
        try:
            sides = Sides.of(case, self.seed)
            self._dimensions.append(_by_dimension(place, case, sides))
        except UserError as reason:
            self._note(place, f"no shape: {reason}")
            return
        for statistic in STATISTICS:
            try:
                readings = statistic(sides).readings
            except UserError as reason:  # for the reader of the table; the other rows stand
                self._note(place, f"{reason}")
                continue
            self._rows += [_row(place, reading) for reading in readings]

    def _note(self, place: Mapping[str, Any], what: str) -> None:
        self.notes.append(f"{place['model']}, {place['site']}, layer {place['layer']}: {what}")

    def table(self) -> ShapeTable:
        """All rows, and MIR of each site over the layers that the run has."""
        frame = pd.DataFrame(self._rows, columns=list(COLUMNS))
        parts = frame[(frame["statistic"] == "mir_distance") & (frame["layer"] != "0")]
        over_layers = []
        for _, rows in parts.groupby(["model", "benchmark", "site"], sort=False):
            place = {**rows.iloc[0][["model", "connector", "benchmark", "site"]], "layer": "all"}
            what = f"log10 of the sum of mir_distance over layers {', '.join(rows['layer'])}"
            try:
                mir = gap.Reading("mir", gap.mir_of(rows["value"].tolist()), what)
            except UserError as reason:
                self._note(place, f"no mir: {reason}")
                continue
            over_layers.append(_row(place, mir))
        whole = pd.DataFrame([*self._rows, *over_layers], columns=list(COLUMNS))
        empty = pd.DataFrame(columns=list(DIMENSION_COLUMNS))
        dimensions = pd.concat(self._dimensions, ignore_index=True) if self._dimensions else empty
        return ShapeTable(whole, dimensions)


def _row(place: Mapping[str, Any], reading: gap.Reading) -> dict[str, Any]:
    low, high = reading.ci or (None, None)
    return {
        **place,
        "layer": str(place["layer"]),
        "head": "all" if reading.head is None else str(reading.head),
        "statistic": reading.name,
        "side": {"x": "image", "y": "text", "": ""}[reading.side],
        "dims": reading.dims,
        "value": reading.value,
        "ci_low": low,
        "ci_high": high,
        "null": reading.null,
        "p_value": reading.p_value,
        "what": reading.what,
    }


def _by_dimension(place: Mapping[str, Any], case: Case, sides: Sides) -> pd.DataFrame:
    heads, head_dim = case.a.array.shape[1:]
    parts = gap.contribution(*sides.standardised, *sides.ids)
    return pd.DataFrame(
        {
            **place,
            "head": np.repeat(np.arange(heads), head_dim),
            "dimension": np.tile(np.arange(head_dim), heads),
            "contribution": parts.by_dimension,
            "effect_size": parts.effect_size,
            "size": relative_size(np.concatenate([case.a.array, case.b.array])).ravel(),
        }
    )
