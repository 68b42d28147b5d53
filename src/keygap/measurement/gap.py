"""``kg.measure``: every contrast at every site, layer and head of a run, as one table.

Each contrast is judged in its own coordinates: its two sides' tokens standardised together, its own
bandwidth, its own principal components. A ruler shared by all would be fitted on image and text and
would flatter their gap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from keygap import gap
from keygap.contrasts.ladder import CONTRASTS, Contrast, contrast_of
from keygap.contrasts.own import refuse_twice
from keygap.contrasts.sides import Case, cases
from keygap.errors import UserError
from keygap.measurement.shape import ShapeRows, ShapeTable
from keygap.progress import track
from keygap.store import Store, Vectors, write_text
from keygap.tokens import known_roles

SWAPS_PER_TEST = 40  # Holm multiplies by the family's size: the least p_holm is then 1/40
MEASUREMENT = "measurement.yaml"
JSD_DIM = 2  # of gap.csv: with more dimensions the JSD of almost any two kinds of token is ln 2
COLUMNS = (
    "model", "connector", "benchmark", "site", "layer", "head", "contrast", "rung", "confound",
    "n_samples", "n_a", "n_b",
    "mmd2", "mmd2_ci_low", "mmd2_ci_high", "mmd2_null_low", "mmd2_null_high", "mmd",
    "p_value", "p_holm", "bandwidth",
    "jsd_nats", "jsd_bits", "jsd_ci_low", "jsd_ci_high", "jsd_dim", "jsd_estimator",
    "highest", "ratio", "ratio_ci_low", "ratio_ci_high",
)  # fmt: skip
PROFILE_COLUMNS = (
    "model", "connector", "benchmark", "site", "layer", "contrast", "rung",
    "jsd_nats", "jsd_bits", "jsd_ci_low", "jsd_ci_high", "jsd_dim", "jsd_estimator",
    "jsd_saturates_at",
)  # fmt: skip


@dataclass(frozen=True)
class GapTable:
    """The gap and its ladder.

    Attributes:
        frame: one row per site, layer, head, contrast and confound (``COLUMNS``).
        profile: the JSD of all heads together over PCA dimensions, and the first at which it
            saturates.
        shape: further statistics of image against text.
        notes: contrasts that could not be measured, and why.
        settings: what was asked: text_roles, tokens_per_sample, n_permutations, n_bootstraps, seed,
            and the name, rung and meaning of every contrast, also of those not measured.
    """

    frame: pd.DataFrame
    profile: pd.DataFrame
    notes: tuple[str, ...]
    shape: ShapeTable
    settings: dict[str, Any]

    def save(self, folder: str | Path) -> None:
        """Write ``gap.csv``, ``jsd.csv``, ``notes.txt`` and the shape's tables, each whole.

        ``measurement.yaml``, what was asked, goes first and comes back last, so that it never
        stands beside the tables of another measurement.
        """
        (Path(folder) / MEASUREMENT).unlink(missing_ok=True)
        write_text(Path(folder) / "notes.txt", "".join(f"{note}\n" for note in self.notes))
        write_text(Path(folder) / "gap.csv", self.frame.to_csv(index=False))
        write_text(Path(folder) / "jsd.csv", self.profile.to_csv(index=False))
        self.shape.save(folder)
        asked = yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True)
        write_text(Path(folder) / MEASUREMENT, asked)

    @property
    def main(self) -> pd.DataFrame:
        """The rows without those that switch a confound."""
        return self.frame[self.frame["confound"] == ""]

    def summary(self) -> pd.DataFrame:
        """All heads together: where ``image_text`` stands on each layer's ladder.

        ``ratio_same``: to the most that the two halves-by-sample contrasts (the paper's baseline)
        can be, the upper end of their intervals: a ratio to what is 0 within noise is noise.
        ``ratio_kind``: to the largest contrast inside one modality, named in ``highest``, with its
        95 % interval.
        """
        columns = ["model", "site", "layer", "image_text", "highest", "kind", "ratio_kind"]
        rows: list[dict[str, Any]] = []
        whole = self.main[self.main["head"] == "all"]
        for (model, site, layer), table in whole.groupby(["model", "site", "layer"], sort=False):
            by_name = table.set_index("contrast")
            if "image_text" not in by_name.index:
                continue
            between = by_name.loc["image_text"]
            halves = by_name[by_name["rung"] == "same"]
            most = float(halves["mmd2_ci_high"].max())
            low, high = between["ratio_ci_low"], between["ratio_ci_high"]
            # a study that measures no contrast inside a modality has nothing to stand on
            highest: str = "" if pd.isna(between["ratio"]) else str(between["highest"])
            rows.append(
                {
                    "model": model,
                    "site": site,
                    "layer": layer,
                    "image_text": between["mmd2"],
                    "same": float(halves["mmd2"].max()),
                    "ratio_same": between["mmd2"] / most if most > 0 else np.nan,
                    "highest": highest,
                    "kind": by_name["mmd2"].to_dict().get(highest, np.nan),
                    "ratio_kind": between["ratio"],
                    "interval": f"{low:.2f} to {high:.2f}" if highest else "",
                }
            )
        return pd.DataFrame(rows, columns=[*columns, "interval", "same", "ratio_same"])

    def _repr_html_(self) -> str:
        return self.summary().to_html(index=False, float_format=lambda value: f"{value:.3f}")


def measure(
    store: Store,
    *,
    sites: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    contrasts: Sequence[str | Contrast] = tuple(CONTRASTS),
    text_roles: Sequence[str] = ("question",),
    tokens_per_sample: int | None = 64,
    n_permutations: int = 1000,
    n_bootstraps: int = 1000,
    seed: int = 0,
) -> GapTable:
    """Measure contrasts of a run: per site and layer, all heads together and each head.

    Args:
        store: a finished extraction.
        sites: of the store; None means all it has.
        layers: absolute indices; None means all it has.
        contrasts: names of ``CONTRASTS``, or contrasts of the caller's own.
        text_roles: what counts as text. The question's own tokens by default: template tokens are
            the same in every prompt.
        tokens_per_sample: at most this many tokens of a sample on each side of a contrast, drawn
            by the seed; None takes all. Samples are the unit: an image of 576 tokens says little
            more than 64 of them do, at many times the cost.
        n_permutations: label swaps behind a p-value, at least; 40 for each test of a family that
            ``p_holm`` adjusts (the layers of a site, or its layers and heads) where that is more.
        n_bootstraps: resamplings of whole samples behind the intervals of the JSD.
        seed: of everything random here.

    Raises:
        UserError: an unknown name, one name twice, no image or text tokens of these roles, fewer
            than four samples, or vectors that are not finite.
    """
    chosen = [contrast_of(name) for name in contrasts]
    refuse_twice(contrast.name for contrast in chosen)
    settings = {
        "text_roles": known_roles(text_roles),
        "tokens_per_sample": tokens_per_sample,
        "n_permutations": n_permutations,
        "n_bootstraps": n_bootstraps,
        "seed": seed,
        "contrasts": [{"name": c.name, "rung": c.rung, "what": c.what} for c in chosen],
    }
    manifest = store.manifest
    identity = {key: manifest[key] for key in ("model", "connector", "benchmark")}
    rows: list[dict[str, Any]] = []
    profile: list[dict[str, Any]] = []
    notes: list[str] = []
    shape = ShapeRows(seed)
    places = store.places(sites, layers)
    layers_of = Counter(site for site, _ in places)
    for site, layer in track(places, len(places), f"gap of {manifest['model']}"):
        vectors = store.vectors(site, layer)
        _refuse_non_finite(vectors, site, layer)
        place = {**identity, "site": site, "layer": layer}
        here: list[tuple[dict[str, Any], gap.MMDResult]] = []
        for case in cases(vectors, chosen, text_roles, tokens_per_sample, seed):
            if isinstance(case, str):
                notes.append(f"{manifest['model']}, {site}, layer {layer}: {case}")
                continue
            if case.contrast.rung == "between" and not case.confound:
                shape.add(place, case)
            named = {**place, "contrast": case.contrast.name, "rung": case.rung}
            for head, x, y in case.by_head():
                family = layers_of[site] * (1 if head == "all" else vectors.array.shape[1])
                swaps = max(n_permutations, SWAPS_PER_TEST * family)
                try:
                    row, curve, mmd = _row(case, head, x, y, swaps, n_bootstraps, seed)
                except UserError as reason:
                    if case.rung == "between" and head == "all" and not case.confound:
                        raise UserError(f"{site}, layer {layer}: {reason}") from reason
                    what = f"{case.contrast.name} {case.confound}".strip()
                    notes.append(
                        f"{manifest['model']}, {site}, layer {layer}: no {what}, head {head}: "
                        f"{reason}"
                    )
                    continue
                here.append(({**named, "confound": case.confound, "head": head, **row}, mmd))
                if head == "all" and not case.confound:
                    profile += [{**named, **point} for point in curve]
        _stand_on_ladder(here)
        rows += [row for row, _ in here]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    whole = frame["head"] == "all"  # a family of its own: few tests, and the ones that are read
    for _, index in frame.groupby(["site", "contrast", "confound", whole]).groups.items():
        frame.loc[index, "p_holm"] = gap.holm(frame.loc[index, "p_value"].to_numpy())
    shapes = shape.table()  # before its notes are read
    points = pd.DataFrame(profile, columns=list(PROFILE_COLUMNS))
    return GapTable(frame, points, (*notes, *shape.notes), shapes, settings)


def _stand_on_ladder(here: list[tuple[dict[str, Any], gap.MMDResult]]) -> None:
    """Give each ``image_text`` row its ratio to the highest contrast inside one modality.

    A ratio leaves the same sample out of both, so sides of different samples have none.
    """
    for row, mmd in here:
        rivals = [
            (other, result)
            for other, result in here
            if other["rung"] == "kind"
            and other["head"] == row["head"]
            and result.mmd2 > 0
            and mmd.without.keys() & result.without.keys()
        ]
        if row["rung"] != "between" or not rivals or mmd.mmd2 <= 0:
            continue
        highest, rival = max(rivals, key=lambda pair: pair[1].mmd2)
        found = gap.mmd_ratio(mmd, rival)
        row |= {"highest": highest["contrast"], "ratio": found.ratio}
        row |= {"ratio_ci_low": found.ci[0], "ratio_ci_high": found.ci[1]}


def _refuse_non_finite(vectors: Vectors, site: str, layer: int) -> None:
    finite = np.isfinite(vectors.array).all(axis=(1, 2))
    if not finite.all():
        first = vectors.labels.iloc[int(np.argmin(finite))]
        raise UserError(
            f"{int((~finite).sum())} vectors of {site} at layer {layer} are NaN or infinite, the "
            f"first in sample {first['sample_id']} at position {first['position']}; extract again "
            "with --dtype float32 or bfloat16"
        )


def _row(
    case: Case,
    head: str,
    x: np.ndarray,
    y: np.ndarray,
    n_permutations: int,
    n_bootstraps: int,
    seed: int,
) -> tuple[dict[str, Any], list[dict[str, Any]], gap.MMDResult]:
    """One row of ``gap.csv``, the JSD at every dimension, and the MMD with its bootstraps."""
    a, b = case.a, case.b
    dims = None if head == "all" and not case.confound else (JSD_DIM,)
    groups: dict[str, Any] = {"groups_x": a.sample_ids, "groups_y": b.sample_ids, "seed": seed}
    # what no column holds is not drawn: MMD's interval is a jackknife, and JSD's p is not shown
    mmd = gap.mmd(x, y, **groups, n_permutations=n_permutations, n_bootstraps=0)
    profile = gap.jsd_profile(
        x, y, **groups, n_permutations=0, n_bootstraps=n_bootstraps, dims=dims
    )
    curve = [
        {
            "jsd_nats": jsd.nats,
            "jsd_bits": jsd.bits,
            "jsd_ci_low": jsd.ci[0],
            "jsd_ci_high": jsd.ci[1],
            "jsd_dim": jsd.dims,
            "jsd_estimator": jsd.estimator,
        }
        for jsd in profile.results
    ]
    for point in curve:
        point["jsd_saturates_at"] = profile.saturates_at
    main = next(point for point in curve if point["jsd_dim"] == JSD_DIM)
    row = {
        "n_samples": len({*a.sample_ids, *b.sample_ids}),
        "n_a": len(a),
        "n_b": len(b),
        "mmd2": mmd.mmd2,
        "mmd2_ci_low": mmd.ci[0],
        "mmd2_ci_high": mmd.ci[1],
        "mmd2_null_low": mmd.null_band[0],
        "mmd2_null_high": mmd.null_band[1],
        "mmd": mmd.mmd,
        "p_value": mmd.p_value,
        "bandwidth": mmd.bandwidth,
        **main,
    }
    return row, curve, mmd
