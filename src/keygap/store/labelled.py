"""Vectors of one site and layer, with the labels of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from keygap.display import as_html


@dataclass(frozen=True)
class LabelledVectors:
    """The vectors of some tokens at one site and layer, with the labels of these tokens.

    Attributes:
        array: the vectors, float32.
        labels: one row per token: the columns of ``tokens``; the ``attention`` that the position
            receives, divided by its even share; and ``drawn``, which is false for an image token
            that is there because it is an attention sink (see ``keygap.store.schema``).
    """

    array: Float[np.ndarray, "n heads head_dim"]
    labels: pd.DataFrame

    @property
    def sample_ids(self) -> np.ndarray:
        """The sample that each token belongs to."""
        return self.labels["sample_id"].to_numpy()

    @property
    def positions(self) -> np.ndarray:
        """The position of each token in its prompt."""
        return self.labels["position"].to_numpy()

    @property
    def tokens(self) -> np.ndarray:
        """Each token as the tokenizer spells it."""
        return self.labels["token"].to_numpy()

    @property
    def shape(self) -> tuple[int, int]:
        """Heads and dimensions of a head."""
        heads, head_dim = self.array.shape[1:]
        return heads, head_dim

    def not_finite(self) -> Bool[np.ndarray, " n"]:
        """Find the vectors with a NaN or an infinite value."""
        return ~np.isfinite(self.array).all(axis=(1, 2))

    def __len__(self) -> int:
        return len(self.array)

    def __repr__(self) -> str:
        n, heads, size = self.array.shape
        return f"LabelledVectors({n:,} vectors of {heads} heads of {size} dimensions)"

    def _repr_html_(self) -> str:
        found = self.labels.groupby(["modality", "role"], sort=False, observed=True)
        rows = found.agg(vectors=("token", "size"), samples=("sample_id", "nunique"))
        caption = f"{self!r}, by the modality and role of their tokens, and of how many samples."
        return as_html(caption, rows.reset_index())

    def where(self, mask: Bool[np.ndarray, " n"]) -> LabelledVectors:
        """The rows where a mask is true."""
        return LabelledVectors(self.array[mask], self.labels[mask].reset_index(drop=True))

    def where_each(self, masks: Sequence[Bool[np.ndarray, " n"]]) -> list[LabelledVectors]:
        """The rows where each of several masks is true."""
        return [self.where(mask) for mask in masks]
