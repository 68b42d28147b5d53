"""What is kept of forward passes, as arrow tables with the columns of the store.

Padding is left out, and so are the samples whose vectors are not finite. In a cross-attention layer
the keys are image features, which are not in the prompt: their rows follow those of the prompt's
tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from keygap.benchmarks import Entry, Sample
from keygap.capture.hooks import Capture, Key
from keygap.capture.keeping import ALL, Draw, Keeper, KeptVectors
from keygap.models.batch import Batch
from keygap.store.schema import TOKENS_SCHEMA, vectors_schema
from keygap.tokens import MODALITIES, TokenLabels


@dataclass(frozen=True)
class CapturedBatch:
    """What is kept of one forward pass. The pictures of its samples are not.

    Attributes:
        samples: the samples of the batch, without images and videos.
        n_images: how many images each of them had.
        labels: of the tokens of their prompts.
        features: labels of the image features that are not in the prompts, by row; empty if no
            cross-attention layer was read.
        vectors: of the samples that did not fail, by (site, layer).
        failures: the rows of the batch whose vectors are not finite, and where the first such one
            is.
        thumbnails: the table of each sample, by its id; empty if none are kept.
    """

    samples: Sequence[Sample]
    n_images: Sequence[int]
    labels: Sequence[TokenLabels]
    features: Mapping[int, TokenLabels]
    vectors: Mapping[Key, KeptVectors]
    failures: Mapping[int, str]
    thumbnails: Mapping[str, pa.Table] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        capture: Capture,
        samples: Sequence[Sample],
        batch: Batch,
        draw: Draw = ALL,
        thumbnails: Mapping[str, pa.Table] | None = None,
    ) -> CapturedBatch:
        """Run a batch.

        Args:
            capture: what is read, inside its ``with`` block.
            samples: the samples of the batch.
            batch: their inputs and labels.
            draw: how many image tokens of each sample are kept.
            thumbnails: the table of each sample, by its id; None if none are kept.
        """
        keeper = Keeper(capture.vlm, samples, batch, draw)
        capture(batch, keeper)
        return cls(
            # decoded photographs of a part would take gigabytes until it is written
            [replace(sample, images=(), videos=()) for sample in samples],
            [len(sample.images) for sample in samples],
            batch.labels,
            keeper.features,
            keeper.vectors(),
            keeper.failures,
            thumbnails or {},
        )

    @cached_property
    def good(self) -> list[int]:
        """The rows that did not fail."""
        return [row for row in range(len(self.samples)) if row not in self.failures]

    @cached_property
    def modalities(self) -> list[Int[np.ndarray, " n"]]:
        """The modality of every token of each prompt, as an index of ``MODALITIES``."""
        number = {name: index for index, name in enumerate(MODALITIES)}
        return [
            np.array([number[name] for name in labels.modality], np.int32) for labels in self.labels
        ]

    def sample_rows(self) -> dict[str, dict[str, Any]]:
        """The row of every sample of the batch, by its id."""
        rows = {
            self.samples[row].id: sample_row(
                self.samples[row], self.n_images[row], self.labels[row], self.features.get(row)
            )
            for row in self.good
        }
        bad = {
            self.samples[row].id: failed_row(self.samples[row], why)
            for row, why in self.failures.items()
        }
        return rows | bad

    def token_tables(self) -> dict[str, pa.Table]:
        """The tokens of every good sample, then its image features, by the sample's id."""
        found = {}
        for row in self.good:
            name, labels = self.samples[row].id, self.labels[row]
            tables = [token_table(name, labels)]
            if row in self.features:
                tables.append(token_table(name, self.features[row], start=len(labels)))
            found[name] = pa.concat_tables(tables)
        return found

    def thumbnail_tables(self) -> dict[str, pa.Table]:
        """What the prompt of every good sample shows, by the sample's id, if that is kept."""
        names = [self.samples[row].id for row in self.good]
        return {name: self.thumbnails[name] for name in names if name in self.thumbnails}


def vector_tables(
    batches: Sequence[CapturedBatch], order: Sequence[str] | None = None
) -> Iterator[tuple[Key, pa.Table]]:
    """One table per site and layer, with the vectors of the good samples of some batches.

    Args:
        batches: the batches.
        order: ids of their samples, in the order of the rows; by default that of the batches.
    """
    names = [sample.id for batch in batches for sample in batch.samples]
    rank = {name: number for number, name in enumerate(names if order is None else order)}
    for key in dict.fromkeys(key for batch in batches for key in batch.vectors):
        found = [
            piece
            for batch in batches
            if key in batch.vectors
            for piece in _pieces(batch, batch.vectors[key], rank)
        ]
        if found:
            yield key, _vector_table(sorted(found, key=lambda piece: piece.rank), list(rank))


class _Piece(NamedTuple):
    """The vectors of one sample at one site and layer, with their columns."""

    rank: int  # of the sample in the table
    position: Int[np.ndarray, " n"]
    modality: Int[np.ndarray, " n"]  # indices of MODALITIES
    drawn: Bool[np.ndarray, " n"]
    attention: Float[np.ndarray, " n"]
    vectors: Float[Tensor, "n heads head_dim"]


def _pieces(batch: CapturedBatch, kept: KeptVectors, rank: Mapping[str, int]) -> Iterator[_Piece]:
    """The vectors of a batch, sample by sample."""
    rows = np.arange(len(batch.samples) + 1)
    for row, (start, end) in enumerate(pairwise(np.searchsorted(kept.row, rows))):
        if start == end:
            continue
        own = slice(start, end)
        place = kept.place[own]
        before = len(batch.labels[row]) if kept.of_features else 0
        modality = (
            np.full(len(place), MODALITIES.index("image"), np.int32)
            if kept.of_features
            else batch.modalities[row][place]
        )
        yield _Piece(
            rank[batch.samples[row].id],
            (place + before).astype(np.int32),
            modality,
            kept.drawn[own],
            kept.attention[own],
            kept.vectors[own],
        )


def _vector_table(pieces: Sequence[_Piece], names: list[str]) -> pa.Table:
    """The vectors of some samples at one site and layer."""
    ranks, positions, modalities, drawn, attention, tensors = zip(*pieces, strict=True)
    sample = np.repeat(np.array(ranks, np.int32), [len(one) for one in positions])
    vectors = torch.cat(tensors)
    heads, head_dim = vectors.shape[1:]
    schema = vectors_schema(heads, head_dim, str(vectors.dtype).removeprefix("torch."))
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(sample), pa.array(names, pa.string())),
        pa.array(np.concatenate(positions)),
        pa.DictionaryArray.from_arrays(
            pa.array(np.concatenate(modalities)), pa.array(MODALITIES, pa.string())
        ),
        pa.array(np.concatenate(drawn)),
        pa.array(np.concatenate(attention)),
        _as_stored(vectors, schema.field("vector").type),
    ]
    return pa.table(columns, schema=schema)


def _as_stored(vectors: Float[Tensor, "n heads head_dim"], kind: pa.DataType) -> pa.Array:
    """Vectors as a column, without a copy; in bfloat16, which numpy does not have, as bytes."""
    whole = vectors.contiguous()
    if whole.dtype == torch.bfloat16:
        data = pa.py_buffer(whole.view(torch.int16).numpy())
        return pa.FixedSizeBinaryArray.from_buffers(kind, len(whole), [None, data])
    return pa.FixedSizeListArray.from_arrays(pa.array(whole.numpy().reshape(-1)), type=kind)


def sample_row(
    sample: Sample, n_images: int, labels: TokenLabels, features: TokenLabels | None = None
) -> dict[str, Any]:
    """The row of a sample that was read.

    Args:
        sample: the sample, of which no picture is needed.
        n_images: how many images it had.
        labels: of the tokens of its prompt.
        features: labels of its image features that are not in the prompt.
    """
    image = sum(int((own.modality != "text").sum()) for own in (labels, features) if own)
    return {
        "sample_id": sample.id,
        "subject": sample.subject,
        "language": sample.language,
        "question": sample.question,
        "answer": sample.answer,
        "n_images": n_images,
        "n_tokens": len(labels),
        "n_image_tokens": image,
        "failure": None,
    }


def failed_row(entry: Entry | Sample, reason: str) -> dict[str, Any]:
    """The row of a sample that could not be read."""
    return {"sample_id": entry.id, "subject": entry.subject, "failure": reason}


def token_table(sample_id: str, labels: TokenLabels, start: int = 0) -> pa.Table:
    """One row per token of a sample.

    Args:
        sample_id: the sample.
        labels: of its tokens.
        start: the position of the first.
    """
    columns = {
        "sample_id": [sample_id] * len(labels),
        "position": np.arange(start, start + len(labels), dtype=np.int32),
        **{name: getattr(labels, name) for name in TOKENS_SCHEMA.names[2:]},
    }
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in TOKENS_SCHEMA]
    return pa.table(arrays, schema=TOKENS_SCHEMA)
