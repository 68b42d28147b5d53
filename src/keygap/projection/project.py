"""``kg.project``: two coordinates for the image and text tokens of each site and layer.

Tokens are standardised, reduced to 50 principal components and then to two dimensions by t-SNE. The
first two components are kept too. A projection is for looking: t-SNE keeps neighbours and not
distances, and two components leave out most of the variance, so separation in it is no measure of
the gap. The figures say so, and ``gap.csv`` has the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from keygap import defaults, random_streams
from keygap.arguments import real, seed_of, whole
from keygap.contrasts.contrast import Masks, NotMeasurable
from keygap.contrasts.ladder import IMAGE_TEXT
from keygap.contrasts.sides import Layer, refuse_non_finite
from keygap.display import as_html, brief, counted, names
from keygap.gap.core.standardise import standardise
from keygap.progress import track
from keygap.projection import principal_components, tsne
from keygap.projection.tsne import MOST_PERPLEXITY
from keygap.store import Store, save_results
from keygap.store.run import PROJECTION
from keygap.tokens import known_roles

PCA_DIM = 50
LABELS = (
    *("modality", "role", "token", "sample_id", "position", "image", "frame"),
    *("patch_row", "patch_column", "attention"),
)
COLUMNS = (*LABELS, "site", "layer", "x", "y", "pc_1", "pc_2")


@dataclass(frozen=True)
class Projection:
    """Two coordinates of every projected token, with its labels.

    Attributes:
        frame: one row per site, layer and token (``COLUMNS``): ``x`` and ``y`` of t-SNE, the first
            two principal components, and the attention that the token receives there, divided by
            its even share. Coordinates of different sites or layers are not comparable.
    """

    frame: pd.DataFrame

    def __repr__(self) -> str:
        places = len(self.frame[["site", "layer"]].drop_duplicates())
        said = f"{counted(len(self.frame), 'point')} of {counted(places, 'layer')}"
        return brief(f"Projection({said}, sites {names(self.frame['site'])})")

    def _repr_html_(self) -> str:
        keys = ["site", "layer", "modality", "role"]
        found = self.frame.groupby(keys, sort=False, observed=True)
        rows = found.agg(tokens=("x", "size"), samples=("sample_id", "nunique")).reset_index()
        caption = (
            "Tokens in a projection to two dimensions (PCA, then t-SNE; coordinates without a "
            "unit), and the samples they come from. t-SNE keeps neighbours and not distances: how "
            "far groups lie apart says nothing about the gap. .frame has the coordinates."
        )
        return as_html(caption, rows)

    def save(self, folder: str | Path) -> None:
        """Write ``projection.parquet``, whole or not at all.

        Args:
            folder: the run folder, or any other.

        Raises:
            UserError: another process writes in the folder, the disk is full, or the folder
                cannot be written.
        """
        save_results(folder, {PROJECTION: pa.Table.from_pandas(self.frame, preserve_index=False)})


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
    """Project image tokens and text tokens of each site and layer to two dimensions.

    A layer whose tokens are all of one modality has no rows: in a model with cross-attention, image
    and text are never keys of the same layer.

    Args:
        store: a finished extraction.
        sites: sites of the store; None means all it has.
        layers: absolute indices; None means all it has.
        text_roles: what counts as text.
        tokens: at most this many of each modality, drawn at random.
        perplexity: of t-SNE.
        seed: of the draw, the principal components and t-SNE.

    Returns:
        The coordinates of every drawn token.

    Raises:
        UserError: a role is unknown, there are no image tokens or no text tokens of these roles,
            there are too few tokens for the perplexity, or vectors are not finite.
    """
    tokens, seed = whole(tokens, "tokens", 10), seed_of(seed)
    perplexity = real(perplexity, "perplexity", 1, MOST_PERPLEXITY)
    text_roles = known_roles(text_roles)
    places = store.site_layers(sites, layers)
    frames = []
    for site, layer in track(places, len(places), f"t-SNE of {store.manifest['model']}"):
        vectors = store.layer(site, layer)
        try:
            masks = IMAGE_TEXT.select(vectors.labels, text_roles, seed)
        except NotMeasurable:
            continue
        refuse_non_finite(vectors, site, layer)
        frame = _projected(vectors, masks, tokens, perplexity, seed)
        frames.append(frame.assign(site=site, layer=layer)[list(COLUMNS)])
    empty = pd.DataFrame(columns=list(COLUMNS))
    return Projection(pd.concat(frames, ignore_index=True) if frames else empty)


def _projected(
    vectors: Layer, masks: Masks, tokens: int, perplexity: float, seed: int
) -> pd.DataFrame:
    """Labels and coordinates of the tokens drawn from two sides, the first side's first."""
    rng = random_streams.generator(seed, "projected tokens")
    drawn, wanted = [], []
    for mask in masks:
        rows = np.flatnonzero(mask)
        drawn.append(np.sort(rng.choice(rows, min(tokens, len(rows)), replace=False)))
        wanted.append(np.isin(np.arange(len(mask)), drawn[-1]))
    sides = [side.array.reshape(len(side), -1) for side in vectors.where_each(wanted)]
    scaled = np.concatenate(standardise(sides[0], sides[1]))
    components = principal_components(scaled, PCA_DIM, seed)
    coordinates = tsne(components, perplexity, seed)
    labels = vectors.labels.iloc[np.concatenate(drawn)].reset_index(drop=True)
    return labels[list(LABELS)].assign(
        x=coordinates[:, 0], y=coordinates[:, 1], pc_1=components[:, 0], pc_2=components[:, 1]
    )
