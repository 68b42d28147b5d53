"""A batch: the model inputs of several samples, and the label of every token."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import BatchFeature

from keygap.tokens import TokenLabels


@dataclass(frozen=True)
class Batch:
    """Model inputs of several samples, padded on the right, and each sample's labels.

    Attributes:
        inputs: what the processor made, on the CPU; ``VLM.inputs_of`` moves it to the model.
        labels: of each sample, without padding.
    """

    inputs: BatchFeature
    labels: tuple[TokenLabels, ...]
