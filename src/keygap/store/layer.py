"""The vectors of one site and layer on disk, of which only what is asked for is in memory.

A layer of many samples does not fit into memory, and a comparison uses a bounded number of its
tokens. So labels are read once, and vectors part by part: of each part the wanted rows are kept,
and the rest is forgotten before the next part is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float

from keygap.errors import UserError
from keygap.store.checksums import REPAIR
from keygap.store.labelled import LabelledVectors
from keygap.store.schema import as_float32, numbers_in
from keygap.text import first_line


@dataclass(frozen=True)
class LayerOnDisk:
    """The labels of a layer, and its vectors on disk.

    Attributes:
        labels: one row per token, as in ``LabelledVectors``.
        shape: heads and dimensions of a head.
        tables: reads the parts again, one after another.
        folder: where they are, for messages.
    """

    labels: pd.DataFrame
    shape: tuple[int, int]
    tables: Callable[[], Iterator[pa.Table]]
    folder: Path

    def where(self, mask: Bool[np.ndarray, " n"]) -> LabelledVectors:
        """Read the rows where a mask is true.

        Raises:
            UserError: a part is damaged.
        """
        return self.where_each([mask])[0]

    def where_each(self, masks: Sequence[Bool[np.ndarray, " n"]]) -> list[LabelledVectors]:
        """Read the rows where each of several masks is true, and every part once.

        Raises:
            UserError: a part is damaged.
        """
        arrays = [np.empty((int(mask.sum()), *self.shape), np.float32) for mask in masks]
        filled = [0] * len(masks)
        for rows, part in self._parts():
            for which, (array, mask) in enumerate(zip(arrays, masks, strict=True)):
                wanted = part[mask[rows]]
                array[filled[which] : filled[which] + len(wanted)] = wanted
                filled[which] += len(wanted)
        return [
            LabelledVectors(array, self._labels_where(mask))
            for array, mask in zip(arrays, masks, strict=True)
        ]

    def _labels_where(self, mask: Bool[np.ndarray, " n"]) -> pd.DataFrame:
        return self.labels if mask.all() else self.labels[mask].reset_index(drop=True)

    def not_finite(self) -> Bool[np.ndarray, " n"]:
        """Find the vectors with a NaN or an infinite value."""
        found = [~np.isfinite(part).all(axis=(1, 2)) for _, part in self._parts()]
        return np.concatenate([np.zeros(0, bool), *found])

    def _parts(self) -> Iterator[tuple[slice, Float[np.ndarray, "n heads head_dim"]]]:
        """The vectors of each part in float32, and which rows of the layer they are."""
        start = 0
        for table in self.tables():
            rows = slice(start, start + table.num_rows)
            yield rows, _vectors_of(table, self.folder)
            start = rows.stop


def shape_of(table: pa.Table, folder: Path) -> tuple[int, int]:
    """Heads and dimensions of a head in a part.

    Raises:
        UserError: the part holds no vectors.
    """
    try:
        metadata = table.schema.metadata or {}
        return int(metadata[b"heads"]), int(metadata[b"head_dim"])
    except (KeyError, ValueError) as error:  # without checksums only
        raise UserError(f"{folder} holds no vectors ({first_line(error)}): {REPAIR}") from error


def labels_of(tokens: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame | None:
    """The labels of a layer's rows: of all tokens, or of those that the layer has.

    Not every image token is kept. In a model with cross-attention, keys are image features in some
    layers and tokens of the prompt in the others.

    Args:
        tokens: the labels of all tokens of the run.
        rows: sample and position of each row.

    Returns:
        The labels; None if there are rows that are no tokens of the run.
    """
    labels = tokens
    if len(rows) < len(labels):
        wanted, known = _index_of(rows), _index_of(labels)
        labels = with_grids(labels)[known.isin(wanted)].reset_index(drop=True)
    same = np.array_equal(rows["position"].to_numpy(), labels["position"].to_numpy())
    return labels if same else None


def with_grids(labels: pd.DataFrame) -> pd.DataFrame:
    """Labels with the first and the last row and column of the grid that each patch belongs to.

    A thumbnail is a grid of its own, coarser than that of its image. An image that was padded to a
    square may begin at a later row or column than 0.

    Args:
        labels: of all tokens of each image.

    Returns:
        The labels with ``patch_row_first``, ``patch_row_last``, ``patch_column_first`` and
        ``patch_column_last``; -1 for tokens that are no patches.
    """
    found = {}
    grid = [labels[name] for name in ("sample_id", "image", "role")]
    for name in ("patch_row", "patch_column"):
        placed = labels[name].where(labels[name] >= 0)
        of_grid = placed.groupby(grid, observed=True, sort=False)
        ends = {"first": of_grid.transform("min"), "last": of_grid.transform("max")}
        for end, values in ends.items():
            found[f"{name}_{end}"] = values.fillna(-1).astype(np.int64)
    return labels.assign(**found)


def _index_of(rows: pd.DataFrame) -> pd.MultiIndex:
    """Sample and position of each row."""
    return pd.MultiIndex.from_frame(rows[["sample_id", "position"]].astype({"sample_id": str}))


def _vectors_of(table: pa.Table, folder: Path) -> Float[np.ndarray, "n heads head_dim"]:
    dtype = (table.schema.metadata or {}).get(b"dtype", b"float32").decode()
    try:
        flat = numbers_in(table["vector"].combine_chunks())
        return as_float32(flat, dtype).reshape(-1, *shape_of(table, folder))
    except (ValueError, TypeError, AttributeError) as error:  # without checksums only
        raise UserError(f"{folder} holds no vectors ({first_line(error)}): {REPAIR}") from error
