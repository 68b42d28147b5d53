"""What a processor says of the images in its model inputs: positions, grids and sizes.

Families call the same things by few names; these are names of roles, not of models.
"""

from __future__ import annotations

import numpy as np
from transformers import BatchFeature

from keygap.benchmarks.sample import BadSample

# How model inputs that give a grid of patches are called, and one that says where images stand.
_GRIDS = ("grid_thw", "grid_hw", "spatial_shapes", "target_sizes", "image_position_ids")
POSITION_MASK = "image_embeds_position_mask"


def image_positions(inputs: BatchFeature, ids: np.ndarray, tokens: tuple[int, ...]) -> np.ndarray:
    """Which positions vision features replace: those of the token, or as the inputs say."""
    for name, value in inputs.items():
        if name.endswith(POSITION_MASK):
            return np.asarray(value) == 1
    return np.isin(ids, tokens)


def image_of(is_image: np.ndarray, span: np.ndarray, images: int, alike: bool) -> np.ndarray:
    """The image of every position, -1 outside: by marks, by runs, else by equal shares if alike.

    Raises:
        BadSample: an image without positions, positions without an image, or no equal shares.
    """
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
    """Frames, rows and columns of vision patches of each image, or of each of so many videos.

    None where the processor does not give them.
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
    """Pixel height and width of each image as the vision tower sees it, where they are given."""
    array = np.asarray(inputs.get("image_sizes", ()))
    if array.shape == (images, 2):
        return [(int(height), int(width)) for height, width in array]
    return [None] * images
