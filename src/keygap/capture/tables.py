"""What is kept of a forward pass, as arrow tables with the columns of the store.

Padding is left out, and so are the samples whose vectors are not finite. In a cross-attention layer
the keys are image features, which are not in the prompt: their labels are made here, and their rows
follow those of the prompt's tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int

from keygap.benchmarks import Entry, Sample
from keygap.capture.features import feature_labels, visible_features
from keygap.capture.hooks import Key
from keygap.capture.sites import SITES
from keygap.capture.thumbnails import thumbnail_table
from keygap.models.batch import Batch
from keygap.models.vlm import VLM
from keygap.store.schema import TOKENS_SCHEMA, vectors_schema
from keygap.tokens import TokenLabels

Kept = dict[int, Int[np.ndarray, " n"]]  # row of a batch -> the indices of its vectors


@dataclass(frozen=True)
class CapturedBatch:
    """One forward pass: the samples, their batch, and what ``Capture`` read.

    Attributes:
        vlm: the model.
        samples: the samples of the batch.
        batch: their inputs and labels.
        read: vectors by (site, layer), and attention received by ``("attention", layer)``.
    """

    vlm: VLM
    samples: Sequence[Sample]
    batch: Batch
    read: Mapping[Key, torch.Tensor]

    @cached_property
    def failures(self) -> dict[int, str]:
        """The rows of the batch whose vectors are not finite, and where the first such one is."""
        bad: dict[int, str] = {}
        kind = str(self.vlm.dtype).removeprefix("torch.")
        for (site, layer), tensor in self.read.items():
            finite = tensor.isfinite().flatten(2).all(-1) if tensor.ndim > 2 else tensor.isfinite()
            for row, labels in enumerate(self.batch.labels):
                # image features are counted with their padding: their number is not that of tokens
                size = len(labels) if self._attends(layer) == "self" else finite.shape[1]
                if row not in bad and not bool(finite[row, :size].all()):
                    bad[row] = f"{site} of layer {layer} is not finite in {kind}: try another dtype"
        return bad

    @cached_property
    def good(self) -> list[int]:
        """The other rows."""
        return [row for row in range(len(self.samples)) if row not in self.failures]

    @cached_property
    def features(self) -> dict[int, TokenLabels]:
        """Labels of the image features that are not in the prompt, by good row.

        Empty if no cross-attention layer was read.
        """
        counts = [
            tensor.shape[1]
            for (site, layer), tensor in self.read.items()
            if self._attends(layer) == "cross" and (site == "attention" or SITES[site].of_keys)
        ]
        if not counts:
            return {}
        image = self.vlm.prompter.image_tokens
        return {
            row: feature_labels(self.batch.inputs, row, counts[0], image.ids[0], image.placeholder)
            for row in self.good
        }

    def sample_rows(self) -> dict[str, dict[str, Any]]:
        """The row of every sample of the batch, by its id."""
        rows = {
            self.samples[row].id: sample_row(
                self.samples[row], self.batch.labels[row], self.features.get(row)
            )
            for row in self.good
        }
        bad = {
            self.samples[row].id: failed_row(self.samples[row], why)
            for row, why in self.failures.items()
        }
        return rows | bad

    def token_tables(self) -> Iterator[pa.Table]:
        """The tokens of every good sample, then its image features."""
        for row in self.good:
            name, labels = self.samples[row].id, self.batch.labels[row]
            yield token_table(name, labels)
            if row in self.features:
                yield token_table(name, self.features[row], start=len(labels))

    def thumbnail_tables(self) -> Iterator[pa.Table]:
        """What the prompt of every good sample shows."""
        for row in self.good:
            yield thumbnail_table(self.samples[row], self.batch.labels[row])

    def vector_tables(self) -> Iterator[tuple[Key, pa.Table]]:
        """One table per site and layer, with the good samples' vectors."""
        if not self.good:
            return
        for key in self.read:
            if key[0] != "attention":
                yield key, self._vector_table(key)

    def _vector_table(self, key: Key) -> pa.Table:
        site, layer = key
        tensor = self.read[key]
        across = self._attends(layer) == "cross"
        of_features = across and SITES[site].of_keys
        kept = self._visible(tensor.shape[1]) if of_features else self._unpadded
        labels: Any = self.features if of_features else self.batch.labels
        position = [
            np.arange(len(own)) + (len(self.batch.labels[row]) if of_features else 0)
            for row, own in kept.items()
        ]
        names = np.repeat(
            np.asarray([self.samples[row].id for row in kept], dtype=object),
            [len(own) for own in kept.values()],
        )
        shares = self.read.get(("attention", layer))
        if shares is None or (across and not of_features):  # nothing attends to queries
            received = np.full(len(names), np.nan, np.float32)
        else:
            received = _rows_of(shares, kept)
        heads, head_dim = tensor.shape[-2:]
        schema = vectors_schema(heads, head_dim)
        columns = [
            pa.array(names).cast(schema.field("sample_id").type),
            pa.array(np.concatenate(position).astype(np.int32)),
            pa.array(np.concatenate([labels[row].modality for row in kept])).cast(
                schema.field("modality").type
            ),
            pa.array(received),
            pa.FixedSizeListArray.from_arrays(
                pa.array(_rows_of(tensor, kept).reshape(-1)), heads * head_dim
            ),
        ]
        return pa.table(columns, schema=schema)

    @cached_property
    def _unpadded(self) -> Kept:
        return {row: np.arange(len(self.batch.labels[row])) for row in self.good}

    def _visible(self, count: int) -> Kept:
        visible = visible_features(self.batch.inputs, count).cpu().numpy()
        return {row: np.flatnonzero(visible[row]) for row in self.good}

    def _attends(self, layer: int) -> str:
        return self.vlm.layers[layer].attends


def sample_row(
    sample: Sample, labels: TokenLabels, features: TokenLabels | None = None
) -> dict[str, Any]:
    """The row of a sample that was read.

    Args:
        sample: the sample.
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
        "n_images": len(sample.images),
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


def _rows_of(tensor: torch.Tensor, kept: Kept) -> Float[np.ndarray, "n ..."]:
    rows = [tensor[row, torch.from_numpy(own).to(tensor.device)] for row, own in kept.items()]
    return torch.cat(rows).float().cpu().numpy()
