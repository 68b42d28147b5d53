"""A batch: the model inputs of several samples, and the label of every token."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import BatchFeature

from keygap.tokens import Pictures, TokenLabels


@dataclass(frozen=True)
class Batch:
    """Model inputs of several samples, padded on the right, and each sample's labels.

    Attributes:
        inputs: what the processor made, on the CPU. ``VLM.inputs_of`` moves copies of them.
        labels: of each sample, without padding.
        pictures: how the prompts show their images.
        answered: whether answers follow the prompts.
    """

    inputs: BatchFeature
    labels: tuple[TokenLabels, ...]
    pictures: Pictures = "shown"
    answered: bool = False
