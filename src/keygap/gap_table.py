"""``kg.measure``: every contrast at every site, layer and head of a run, as one table.

Each contrast is judged in its own coordinates: its two sides' tokens standardised together, its own
bandwidth, its own principal components. A ruler shared by all would be fitted on image and text and
would flatter their gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keygap import gap
from keygap.contrasts import CONTRASTS, Contrast, NotMeasurable
from keygap.errors import UserError, unknown
from keygap.progress import track
from keygap.projection import standardise
from keygap.store import Store, Vectors, write_text

MIN_SAMPLES = 4  # of a side; a test with fewer has no power and no interval
JSD_DIM = 2  # of gap.csv: with more dimensions the JSD of almost any two kinds of token is ln 2
COLUMNS = (
    "model", "connector", "benchmark", "site", "layer", "head", "contrast", "rung",
    "n_samples", "n_a", "n_b",
    "mmd2", "mmd2_ci_low", "mmd2_ci_high", "mmd", "p_value", "bandwidth",
    "jsd_nats", "jsd_bits", "jsd_ci_low", "jsd_ci_high", "jsd_dim", "jsd_estimator",
)  # fmt: skip


@dataclass(frozen=True)
class GapTable:
    """The gap and its ladder.

    Attributes:
        frame: one row per site, layer, head and contrast (``COLUMNS``).
        profile: the JSD of all heads together over PCA dimensions.
        notes: contrasts that could not be measured, and why.
    """

    frame: pd.DataFrame
    profile: pd.DataFrame
    notes: tuple[str, ...]

    def save(self, folder: str | Path) -> None:
        """Write ``gap.csv`` and ``jsd.csv``, whole or not at all."""
        write_text(Path(folder) / "gap.csv", self.frame.to_csv(index=False))
        write_text(Path(folder) / "jsd.csv", self.profile.to_csv(index=False))

    def summary(self) -> pd.DataFrame:
        """All heads together: where image_text stands on each layer's ladder.

        ``ratio_same``: to the larger of the two halves-by-sample contrasts (the paper's baseline);
        ``ratio_kind``: to the largest contrast inside one modality, named in ``highest``.
        """
        rows = []
        whole = self.frame[self.frame["head"] == "all"]
        for (model, site, layer), table in whole.groupby(["model", "site", "layer"], sort=False):
            mmd2 = table.set_index("contrast")["mmd2"]
            rungs = table.set_index("contrast")["rung"]
            between = float(mmd2["image_text"])
            same, kind = mmd2[rungs == "same"], mmd2[rungs == "kind"]
            row: dict[str, Any] = {
                "model": model,
                "site": site,
                "layer": layer,
                "image_text": between,
            }
            row["same"] = float(same.max())
            row["ratio_same"] = between / row["same"] if row["same"] > 0 else np.inf
            row["highest"] = str(kind.idxmax())
            row["kind"] = float(kind.max())
            row["ratio_kind"] = between / row["kind"] if row["kind"] > 0 else np.inf
            rows.append(row)
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        return self.summary().to_html(index=False, float_format=lambda value: f"{value:.3f}")


def measure(
    store: Store,
    *,
    sites: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    contrasts: Sequence[str] = tuple(CONTRASTS),
    text_roles: Sequence[str] = ("question",),
    n_permutations: int = 1000,
    n_bootstraps: int = 1000,
    seed: int = 0,
) -> GapTable:
    """Measure contrasts of a run: per site and layer, all heads together and each head.

    Args:
        store: a finished extraction.
        sites: of the store; None means all it has.
        layers: absolute indices; None means all it has.
        contrasts: names of ``CONTRASTS``.
        text_roles: what counts as text. The question's own tokens by default: template tokens are
            the same in every prompt.
        n_permutations: label swaps behind a p-value.
        n_bootstraps: resamplings of whole samples.
        seed: of everything random here.

    Raises:
        UserError: an unknown name, no image or text tokens of these roles, fewer than four samples,
            or vectors that are not finite.
    """
    for name in contrasts:
        if name not in CONTRASTS:
            raise unknown("contrast", name, CONTRASTS)
    manifest = store.manifest
    identity = {key: manifest[key] for key in ("model", "connector", "benchmark")}
    places = store.places(sites, layers)
    rows: list[dict[str, Any]] = []
    profile: list[dict[str, Any]] = []
    notes: list[str] = []
    for site, layer in track(places, len(places), f"gap of {manifest['model']}"):
        vectors = store.vectors(site, layer)
        _refuse_non_finite(vectors, site, layer)
        for contrast in (CONTRASTS[name] for name in contrasts):
            place = {**identity, "site": site, "layer": layer}
            named = {**place, "contrast": contrast.name, "rung": contrast.rung}
            try:
                a, b = _sides(vectors, contrast, text_roles, seed)
            except NotMeasurable as reason:
                where = f"{manifest['model']}, {site}, layer {layer}"
                notes.append(f"{where}: no {contrast.name}: {reason}")
                continue
            for head, x, y in _by_head(a, b):
                dims = None if head == "all" else (JSD_DIM,)
                row, curve = _row(a, b, x, y, dims, n_permutations, n_bootstraps, seed)
                rows.append({**named, "head": head, **row})
                if head == "all":
                    profile += [{**named, **point} for point in curve]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return GapTable(frame, pd.DataFrame(profile), tuple(notes))


def _refuse_non_finite(vectors: Vectors, site: str, layer: int) -> None:
    finite = np.isfinite(vectors.array).all(axis=(1, 2))
    if not finite.all():
        first = vectors.labels.iloc[int(np.argmin(finite))]
        raise UserError(
            f"{int((~finite).sum())} vectors of {site} at layer {layer} are NaN or infinite, the "
            f"first in sample {first['sample_id']} at position {first['position']}; extract again "
            "with --dtype float32 or bfloat16"
        )


def _sides(
    vectors: Vectors, contrast: Contrast, roles: Sequence[str], seed: int
) -> tuple[Vectors, Vectors]:
    """Both sides' vectors, of the samples that a paired contrast has on both.

    Raises:
        NotMeasurable: too few samples on a side.
        UserError: the run has no image tokens, or no text of these roles, at all.
    """
    masks = contrast.select(vectors.labels, roles, seed)
    if contrast.name == "image_text" and not all(mask.any() for mask in masks):
        raise UserError(
            f"the run has no {'image' if masks[1].any() else 'text'} tokens to compare "
            f"(text roles: {', '.join(roles)})"
        )
    a, b = (vectors.where(mask) for mask in masks)
    if contrast.rung != "same":
        both = set(a.sample_ids) & set(b.sample_ids)
        a, b = (side.where(side.labels["sample_id"].isin(both).to_numpy()) for side in (a, b))
    counts = [side.labels["sample_id"].nunique() for side in (a, b)]
    if min(counts) < MIN_SAMPLES:
        short = f"{min(counts)} samples on a side, {MIN_SAMPLES} are needed"
        if contrast.name == "image_text":
            raise UserError(f"too few samples to measure: {short}; extract more with --samples")
        raise NotMeasurable(short)
    return a, b


def _by_head(a: Vectors, b: Vectors) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """All heads together, then each head where there are several: standardised (n, d) arrays."""
    heads = a.array.shape[1]
    yield "all", *standardise(a.array.reshape(len(a), -1), b.array.reshape(len(b), -1))
    if heads > 1:
        for head in range(heads):
            yield str(head), *standardise(a.array[:, head], b.array[:, head])


def _row(
    a: Vectors,
    b: Vectors,
    x: np.ndarray,
    y: np.ndarray,
    dims: tuple[int, ...] | None,
    n_permutations: int,
    n_bootstraps: int,
    seed: int,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One row of ``gap.csv``, and the JSD at every dimension."""
    groups: dict[str, Any] = {"groups_x": a.sample_ids, "groups_y": b.sample_ids, "seed": seed}
    draws: dict[str, Any] = {"n_permutations": n_permutations, "n_bootstraps": n_bootstraps}
    mmd = gap.mmd(x, y, **groups, **draws)
    profile = gap.jsd_profile(x, y, **groups, **draws, dims=dims)
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
    main = next(point for point in curve if point["jsd_dim"] == JSD_DIM)
    row = {
        "n_samples": len({*a.sample_ids, *b.sample_ids}),
        "n_a": len(a),
        "n_b": len(b),
        "mmd2": mmd.mmd2,
        "mmd2_ci_low": mmd.ci[0],
        "mmd2_ci_high": mmd.ci[1],
        "mmd": mmd.mmd,
        "p_value": mmd.p_value,
        "bandwidth": mmd.bandwidth,
        **main,
    }
    return row, curve
