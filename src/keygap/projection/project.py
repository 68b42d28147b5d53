"""``kg.project``: a picture of each layer: standardise, PCA to 50, t-SNE to 2.

Separation in a t-SNE picture is no evidence of distance: t-SNE keeps neighbours, not lengths. The
figures say so; the numbers stand in ``gap.csv``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from keygap import defaults
from keygap.contrasts.ladder import is_image, is_text, refuse_one_sided
from keygap.gap.core.standardise import standardise
from keygap.progress import track
from keygap.projection import principal_components, tsne
from keygap.store import Store
from keygap.tokens import known_roles

PCA_DIM = 50
COLUMNS = ["modality", "role", "token", "sample_id", "position", "patch_row", "patch_column"]


@dataclass(frozen=True)
class Projection:
    """Two-dimensional coordinates of tokens.

    Attributes:
        frame: site, layer, x, y, modality, role, token, sample_id, position, patch_row,
            patch_column.
    """

    frame: pd.DataFrame

    def save(self, folder: str | Path) -> None:
        """Write ``projection.parquet``."""
        path = Path(folder) / "projection.parquet"
        scratch = path.with_name(f".{path.name}.tmp")
        pq.write_table(pa.Table.from_pandas(self.frame, preserve_index=False), scratch)
        scratch.replace(path)


def project(
    store: Store,
    *,
    sites: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    text_roles: Sequence[str] = defaults.TEXT_ROLES,
    tokens: int = defaults.PROJECTION_TOKENS,
    perplexity: float = defaults.PERPLEXITY,
    seed: int = 0,
) -> Projection:
    """Project image tokens and text tokens of each site and layer to the plane.

    Args:
        store: a finished extraction.
        sites: of the store; None means all it has.
        layers: absolute indices; None means all it has.
        text_roles: what counts as text.
        tokens: at most this many of each modality, drawn by ``seed``.
        perplexity: of t-SNE.
        seed: of the draw, the PCA and t-SNE.

    Raises:
        UserError: an unknown role, no image or text tokens of these roles, or too few for the
            perplexity.
    """
    text_roles = known_roles(text_roles)
    places = store.places(sites, layers)
    frames = []
    for site, layer in track(places, len(places), f"t-SNE of {store.experiment['model']}"):
        vectors = store.vectors(site, layer)
        if vectors.labels["modality"].nunique() == 1:
            continue  # image and text are never keys of one layer: nothing to put side by side
        refuse_one_sided(vectors.labels, text_roles)
        rng = np.random.default_rng(seed)
        sides = []
        for mask in (is_image(vectors.labels), is_text(vectors.labels, text_roles)):
            rows = np.flatnonzero(mask)
            sides.append(np.sort(rng.choice(rows, min(tokens, len(rows)), replace=False)))
        rows = np.concatenate(sides)
        flat = vectors.array[rows].reshape(len(rows), -1)
        scaled = np.concatenate(standardise(flat[: len(sides[0])], flat[len(sides[0]) :]))
        plane = tsne(principal_components(scaled, PCA_DIM, seed), perplexity, seed)
        labels = vectors.labels.iloc[rows].reset_index(drop=True)
        frames.append(labels[COLUMNS].assign(site=site, layer=layer, x=plane[:, 0], y=plane[:, 1]))
    empty = pd.DataFrame(columns=[*COLUMNS, "site", "layer", "x", "y"])
    return Projection(pd.concat(frames, ignore_index=True) if frames else empty)
