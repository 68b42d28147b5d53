"""A batch: the model inputs of several samples, and the label of every token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from transformers import BatchFeature

from keygap.tokens import TokenLabels

# How a prompt shows its images and videos: with their pixels; not at all; or with their positions
# in the prompt but without pixels, so that the model embeds the placeholder tokens as words.
Pictures = Literal["shown", "absent", "marker"]


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
