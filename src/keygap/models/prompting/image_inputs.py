"""What the model and its processor report about images: tokens, positions, grids and sizes.

Model families use a few names for the same model input. This module knows the names of inputs, and
no names of models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from transformers import BatchFeature

from keygap.benchmarks.sample import BadSample

# Parts of the names of model inputs that give grids of patches, and of the one that says which
# positions are images.
_GRIDS = ("grid_thw", "grid_hw", "spatial_shapes", "target_sizes", "image_position_ids")
POSITION_MASK = "image_embeds_position_mask"
_PIXELS = ("pixel", "patches")


def is_pixels(name: str) -> bool:
    """Whether a model input of this name holds pixels of an image or a video, or a mask of them."""
    return any(part in name for part in _PIXELS)


@dataclass(frozen=True)
class ImageTokens:
    """What the model and its processor report about image positions.

    Attributes:
        ids: token ids that vision features replace; empty where a model input marks positions.
        placeholder: the text that represents an image in a prompt.
        video_ids: token ids of videos; empty where the processor takes none.
        video_placeholder: the text that represents a video in a prompt.
        in_prompt: whether features replace positions of the prompt. If not, the prompt has a
            mark for the image, and its text attends to the features by cross-attention.
        types: whether the model reads each position's modality from its inputs.
        limit: the largest number of positions, if the configuration gives one.
        row_ends: see ``ImageFacts``.
        begin: see ``ImageFacts``.
        end: see ``ImageFacts``.
        side: see ``ImageFacts``.
        mixed: see ``ImageFacts``.
    """

    ids: tuple[int, ...]
    placeholder: str
    video_ids: tuple[int, ...] = ()
    video_placeholder: str = ""
    in_prompt: bool = True
    types: bool = False
    limit: int | None = None
    row_ends: bool = False
    begin: int = 0
    end: int = 0
    side: int | None = None
    mixed: bool = False


def image_positions(inputs: BatchFeature, ids: np.ndarray, tokens: tuple[int, ...]) -> np.ndarray:
    """Which positions vision features replace.

    Args:
        inputs: model inputs; a mask of positions among them is used if there is one.
        ids: token ids of any shape.
        tokens: ids of image tokens, used without such a mask.

    Returns:
        A boolean array of the shape of ``ids``.
    """
    for name, value in inputs.items():
        if name.endswith(POSITION_MASK):
            return np.asarray(value) == 1
    return np.isin(ids, tokens)


def image_of(is_image: np.ndarray, span: np.ndarray, images: int, alike: bool) -> np.ndarray:
    """The image of every position.

    Image marks decide where there are any. Without marks, the runs of image positions are the
    images if there are as many; otherwise images of equal size get equal shares of the positions.

    Args:
        is_image: (t,) image positions.
        span: (t,) image by marks, -1: none.
        images: the number of images.
        alike: whether all images are of one size.

    Returns:
        (t,) number of the image, -1 outside images.

    Raises:
        BadSample: an image without positions, positions without an image, or no equal shares.
    """
    if not images and not is_image.any():
        return np.full(len(is_image), -1)
    if (span[is_image] >= 0).all() and is_image.any():
        counts = [int((is_image & (span == number)).sum()) for number in range(images)]
        if int(span.max()) >= images or not all(counts):
            raise BadSample(
                f"{images} images, but the prompt has positions for {int(span.max()) + 1}"
            )
        return np.where(span >= 0, span, -1)
    places = np.flatnonzero(is_image)
    starts = np.diff(places, prepend=-2) > 1
    image = np.full(len(is_image), -1)
    if images and int(starts.sum()) == images:
        image[places] = np.cumsum(starts) - 1
    elif images and len(places) and len(places) % images == 0 and alike:
        image[places] = np.arange(len(places)) // (len(places) // images)
    else:
        raise BadSample(f"{len(places)} image positions cannot be shared by {images} images")
    return image


def grids_of(
    inputs: BatchFeature, images: int, kind: str = "image"
) -> list[tuple[int, int, int] | None]:
    """Frames, rows and columns of the vision patches of each image or video.

    Args:
        inputs: model inputs.
        images: the number of images (or videos).
        kind: ``image`` or ``video``.

    Returns:
        One grid for each image, None where the processor gives none.
    """
    for name, value in inputs.items():
        if ("video" in name) != (kind == "video") or not any(word in name for word in _GRIDS):
            continue
        array = np.asarray(value)
        if array.ndim == 3 and array.shape[::2] == (images, 2):  # column and row of every patch
            return [(1, int(own[:, 1].max()) + 1, int(own[:, 0].max()) + 1) for own in array]
        if array.shape == (images, 3):
            return [(int(t), int(h), int(w)) for t, h, w in array]
        if array.shape == (images, 2):
            return [(1, int(h), int(w)) for h, w in array]
    return [None] * images


def sizes_of(inputs: BatchFeature, images: int) -> list[tuple[int, int] | None]:
    """Height and width in pixels of each image as the vision tower gets it, None if not given."""
    array = np.asarray(inputs.get("image_sizes", ()))
    if array.shape == (images, 2):
        return [(int(height), int(width)) for height, width in array]
    return [None] * images
