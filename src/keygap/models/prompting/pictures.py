"""Prompts whose images are not shown.

Two conditions are kept apart, because a model may read a placeholder that it has no image for. A
prompt without its images is what a user writes who gives none. A prompt with its placeholders and
without pixels has the same tokens at the same positions as the prompt with its images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import BatchFeature

from keygap.benchmarks.sample import BadSample, Piece
from keygap.models.batch import Batch, Pictures
from keygap.models.prompting.image_inputs import is_pixels


def without_pictures(prompt: Sequence[Piece]) -> tuple[Piece, ...]:
    """The pieces of a prompt without its images and videos."""
    return tuple(piece for piece in prompt if piece.kind == "text")


def without_pixels(batch: Batch, pictures: Pictures) -> Batch:
    """The same prompts without pixels.

    What else a processor tells about images (grids, sizes) stays, because a model may compute
    positions from it.

    Args:
        batch: prompts with or without images.
        pictures: how the prompts now show their images.

    Raises:
        BadSample: images are absent, and the processor has made positions for them nevertheless.
    """
    if pictures == "absent" and any((labels.modality != "text").any() for labels in batch.labels):
        raise BadSample("the processor makes image positions of a prompt without an image")
    kept = {name: value for name, value in batch.inputs.items() if not is_pixels(name)}
    return replace(batch, inputs=BatchFeature(kept), pictures=pictures)
