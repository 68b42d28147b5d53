"""The tables of the experiment "causes": what every intervention did to keys, attention, answers.

A *point* is one intervention: a map at a strength, with attention to the image free, held, or alone
changed; a random direction; a baseline; or none. ``alignment.csv`` has the measures of every point
with intervals over samples, and ``alignment_samples.parquet`` the answers behind them, which is
what effects that are paired by sample are computed from. Nothing here needs a model, because a
report is made from files alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

from keygap.bias.intervals import Interval, mean, proportion
from keygap.bias.table import ALL
from keygap.display import as_html, brief
from keygap.errors import UserError
from keygap.store import save_results
from keygap.store.reading import read_csv, read_table, read_yaml
from keygap.store.results import is_recorded, result_checksums
from keygap.store.run import ALIGNMENT, ALIGNMENT_SAMPLES, CAUSES_SETTINGS

KINDS = ("none", "map", "control", "baseline")
MODES = ("free", "held", "only")
POINT_COLUMNS = ("point", "kind", "name", "site", "layers", "strength", "mass", "draw")
FRAME_COLUMNS = (
    "model", "benchmark", *POINT_COLUMNS, "measure", "layer", "variant", "value", "ci_low",
    "ci_high", "n",
)  # fmt: skip
SAMPLE_COLUMNS = (
    "point", "sample_id", "variant", "correct", "followed", "correct_conflict", "margin",
    "hint_margin", "hint_effect", "image_attention", "gap",
)  # fmt: skip
SETTINGS = ("model", "benchmark", "seed", "n_bootstraps", "reading_layers")
FILES = (ALIGNMENT, ALIGNMENT_SAMPLES, CAUSES_SETTINGS)
NO_LAYER = -1  # the layer of a measure that is not of one layer
WITHOUT_HINT = ("correct", "margin", "image_attention", "gap")  # the same for every phrasing
_SHARES = {"following": "followed", "accuracy_conflict": "correct_conflict"}
_NUMBERS = ("hint_margin", "hint_effect")
_SHOWN = ("following", "accuracy", "margin", "hint_effect", "image_attention", "gap")
_TEXT = ("model", "benchmark", "point", "kind", "name", "site", "layers", "mass", "measure",
         "variant")  # fmt: skip


@dataclass(frozen=True, repr=False)
class CausesTable:
    """What the experiment found for one model and benchmark.

    Attributes:
        frame: one row per point, measure, layer and phrasing (``FRAME_COLUMNS``), with a 95 %
            interval over samples. ``layer`` is -1 for a measure that is not of one layer;
            ``variant`` is the phrasing of the hint, ``all`` for all phrasings together, and empty
            for a measure without a hint.
        samples: one row per point, sample and phrasing (``SAMPLE_COLUMNS``). The columns
            ``WITHOUT_HINT`` do not depend on the phrasing. Margins and effects are in nats and NaN
            where the answer was generated.
        settings: what was asked, as plain values; ``SETTINGS`` are always there.
    """

    frame: pd.DataFrame
    samples: pd.DataFrame
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def points(self) -> pd.DataFrame:
        """The points: ``POINT_COLUMNS``, one row each, in the order of the frame."""
        return points_of(self.frame)

    def summary(self) -> pd.DataFrame:
        """The strongest strengths of every intervention, all phrasings together.

        Returns:
            One row per kind, name, site, layers, mass and strength, with intervals in the cells. Of
            maps and controls the strongest strength on each side of 0 is kept. Random draws share a
            row, whose intervals reach from the smallest draw to the largest; ``draws`` counts them.
        """
        return summarise(self.frame)

    def save(self, folder: str | Path) -> None:
        """Write ``alignment.csv``, ``alignment_samples.parquet`` and ``causes.yaml``.

        Args:
            folder: the run folder, or any other.

        Raises:
            UserError: another process writes in the folder, the disk is full, or the folder
                cannot be written.
        """
        save_results(
            folder,
            {
                ALIGNMENT: self.frame.to_csv(index=False),
                ALIGNMENT_SAMPLES: pa.Table.from_pandas(self.samples, preserve_index=False),
                CAUSES_SETTINGS: yaml.safe_dump(
                    dict(self.settings), sort_keys=False, allow_unicode=True
                ),
            },
        )

    def __repr__(self) -> str:
        counts = self.points["kind"].value_counts()
        kinds = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if kind in counts)
        return brief(
            f"CausesTable({self.settings.get('model')} on {self.settings.get('benchmark')}: "
            f"{len(self.points)} points ({kinds}), {self.samples['sample_id'].nunique()} samples, "
            f"{self.samples['variant'].nunique()} phrasings)"
        )

    def _repr_html_(self) -> str:
        caption = (
            f"What each change of keys or attention did to the answers of "
            f"{self.settings.get('model')} on {self.settings.get('benchmark')}, "
            f"{self.samples['sample_id'].nunique()} samples. following (of the wrong hint), "
            "accuracy and image_attention are shares; margin and hint_effect are in nats; gap is "
            "the distance of mean image and text vectors in standard deviations. 95 % intervals "
            "over samples; where draws is above 1, the range of the draws. mass: whether "
            "attention to the image was free, held, or alone changed."
        )
        return as_html(caption, self.summary(), self.settings.get("notes", ()))


def points_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The points of an alignment table: ``POINT_COLUMNS``, one row each.

    Args:
        frame: with ``POINT_COLUMNS``; a point may have any number of rows.
    """
    return frame[list(POINT_COLUMNS)].drop_duplicates("point").reset_index(drop=True)


def point_rows(
    samples: pd.DataFrame, point: Mapping[str, Any], *, n_bootstraps: int, seed: int
) -> pd.DataFrame:
    """The measures of one point that its answers give, with intervals.

    Shares have Wilson intervals, whose number of observations is divided by the design effect where
    a sample has several phrasings. Means are bootstrapped over whole samples.

    - ``following``, ``accuracy_conflict``: the share of answers to the wrong hint that are the
      suggested one, and that are right.
    - ``tpr``: of the samples that are answered rightly without the hint, following / (following +
      right): the text preference ratio (``kg.bias.tpr``) if the text alone leads to what it
      suggests.
    - ``hint_margin``: log-probability of the suggested minus that of the right answer, under the
      hint; ``hint_effect``: by how much the hint raises it.
    - ``accuracy``, ``margin``, ``image_attention``, ``gap``: without the hint, one observation of
      each sample.

    Args:
        samples: ``SAMPLE_COLUMNS`` of one point.
        point: values of ``model``, ``benchmark`` and ``POINT_COLUMNS``, copied into every row.
        n_bootstraps: resamplings of samples.
        seed: of the resamplings. Two points of the same samples are resampled alike.

    Returns:
        Rows of ``alignment.csv`` (``FRAME_COLUMNS``).

    Raises:
        ValueError: a column of ``WITHOUT_HINT`` differs between phrasings of one sample.
    """
    rows = []
    variants = list(dict.fromkeys(samples["variant"]))
    for variant in [*variants, ALL]:
        here = samples if variant == ALL else samples[samples["variant"] == variant]
        found = _with_hint(here, n_bootstraps, seed)
        rows += [_row(point, measure, variant, each) for measure, each in found.items()]
    once = _one_of_each_sample(samples)
    ids = once.index.to_numpy(dtype=object)
    rows.append(_row(point, "accuracy", "", _share(once["correct"], ids)))
    for name in WITHOUT_HINT[1:]:
        found_mean = mean(once[name].to_numpy(float), ids, n_bootstraps, seed)
        rows.append(_row(point, name, "", found_mean))
    return pd.DataFrame(rows, columns=list(FRAME_COLUMNS))


def _with_hint(here: pd.DataFrame, n_bootstraps: int, seed: int) -> dict[str, Interval]:
    """The measures under the hint, by name."""
    ids = here["sample_id"].to_numpy(dtype=object)
    found = {name: _share(here[column], ids) for name, column in _SHARES.items()}
    followed, right = (here[name].astype(float) for name in ("followed", "correct_conflict"))
    decided = (here["correct"].astype(float) == 1) & (followed + right == 1)
    found["tpr"] = _share(followed[decided], ids[decided.to_numpy()])
    for name in _NUMBERS:
        found[name] = mean(here[name].to_numpy(float), ids, n_bootstraps, seed)
    return found


def _one_of_each_sample(samples: pd.DataFrame) -> pd.DataFrame:
    values = samples[list(WITHOUT_HINT)].astype(float)
    grouped = values.groupby(samples["sample_id"].to_numpy(dtype=object), sort=True)
    for name, most in grouped.nunique().max().items():
        if most > 1:
            raise ValueError(f"{name} is without a hint, and differs between phrasings of a sample")
    return grouped.first()


def _share(hits: pd.Series, ids: np.ndarray) -> Interval:
    """A share of those observations that are known."""
    values = hits.to_numpy(dtype=float, na_value=np.nan)
    known = ~np.isnan(values)
    return proportion(values[known].astype(bool), ids[known])


def _row(point: Mapping[str, Any], measure: str, variant: str, found: Interval) -> dict[str, Any]:
    described = {name: point[name] for name in ("model", "benchmark", *POINT_COLUMNS)}
    return {
        **described, "measure": measure, "layer": NO_LAYER, "variant": variant,
        "value": found.value, "ci_low": found.low, "ci_high": found.high, "n": found.n,
    }  # fmt: skip


def pooled(frame: pd.DataFrame) -> pd.DataFrame:
    """The measures that are not of one layer, all phrasings together.

    Args:
        frame: of a ``CausesTable``.
    """
    return frame[(frame["layer"] == NO_LAYER) & frame["variant"].isin([ALL, ""])]


def strongest(points: pd.DataFrame) -> pd.DataFrame:
    """The points that are the strongest of their intervention on their side of 0.

    Args:
        points: ``POINT_COLUMNS``.

    Returns:
        The rows of maps and controls whose strength is the largest in absolute value among those of
        the same kind, name, site, layers, mass and sign; and all rows of other kinds.
    """
    steered = points["kind"].isin(["map", "control"])
    sign = np.sign(points["strength"])
    size = points["strength"].abs()
    names = ["kind", "name", "site", "layers", "mass"]
    most = size.groupby([*(points[name] for name in names), sign]).transform("max")
    return points[~steered | (size == most)]


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """As ``CausesTable.summary``, of the rows of one or several tables.

    Args:
        frame: ``FRAME_COLUMNS``.
    """
    names = ["kind", "name", "site", "layers", "mass", "strength"]
    chosen = strongest(points_of(frame))
    rows = pooled(frame)
    rows = rows[rows["point"].isin(chosen["point"]) & rows["measure"].isin(_SHOWN)]
    found = []
    for key, same in chosen.groupby(names, sort=False):
        own = rows[rows["point"].isin(same["point"])]
        cells = {name: _cell(own[own["measure"] == name]) for name in _SHOWN}
        n = own.loc[own["measure"] == "following", "n"].max()
        found.append(dict(zip(names, key, strict=True)) | {"draws": len(same), "n": n} | cells)
    return pd.DataFrame(found, columns=[*names, "draws", "n", *_SHOWN])


def _cell(rows: pd.DataFrame) -> str:
    """A value with its interval; of several draws, their mean with their range."""
    value = float(rows["value"].mean()) if len(rows) else math.nan
    if math.isnan(value):
        return ""
    ends = ("value", "value") if len(rows) > 1 else ("ci_low", "ci_high")
    low, high = float(rows[ends[0]].min()), float(rows[ends[1]].max())
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def read_causes(folder: str | Path) -> CausesTable:
    """Read the tables of a run.

    Args:
        folder: the run folder.

    Returns:
        The tables as they were saved.

    Raises:
        UserError: the experiment was not run, or a file is damaged or of another run.
    """
    root = Path(folder)
    remedy = f"run keygap causes again, with {root} as --out"
    if not is_recorded(root, ALIGNMENT):
        raise UserError(f"{root} has no {ALIGNMENT}: {remedy}")
    sums = {name: result_checksums(root, name, remedy) for name in FILES}
    settings = read_yaml(root / CAUSES_SETTINGS, remedy, sums[CAUSES_SETTINGS])
    if missing := [name for name in SETTINGS if name not in settings]:
        raise UserError(f"{root / CAUSES_SETTINGS} is damaged (no {missing[0]}): {remedy}")
    numbers = [name for name in FRAME_COLUMNS if name not in _TEXT]
    options: dict[str, Any] = {
        "dtype": dict.fromkeys(_TEXT, str),
        "keep_default_na": False,  # a name may be "NA"
        "na_values": dict.fromkeys(numbers, ""),
    }
    frame = read_csv(root / ALIGNMENT, remedy, FRAME_COLUMNS, _TEXT, sums[ALIGNMENT], **options)
    samples = read_table(root / ALIGNMENT_SAMPLES, remedy, SAMPLE_COLUMNS, sums[ALIGNMENT_SAMPLES])
    return CausesTable(frame, samples.to_pandas(), settings)
