"""What a model reads at once: the inputs of several samples, and the label of every token."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import BatchFeature

from keygap.tokens import TokenLabels


@dataclass(frozen=True)
class Batch:
    """Model inputs of several samples, padded on the right, and each sample's labels."""

    inputs: BatchFeature
    labels: tuple[TokenLabels, ...]
