"""Image features that have no position in the prompt: the keys of cross-attention layers.

Where text attends across to an image, the store holds the image features after the prompt's own
tokens, so that every vector has a label. A processor pads images and tiles to the largest of the
batch; its cross-attention mask says which of them are real. It also fills up the tiles to the right
of an image and below it, which the mask does not say.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from keygap.errors import UserError
from keygap.models.patches.layout import PADDING, PATCH, square_side
from keygap.tokens import TokenLabels

MASKS = ("cross_attention_mask", "image_attention_mask")  # as processors spell it


def visible_features(inputs: Mapping[str, Tensor], count: int) -> Bool[Tensor, "b s"]:
    """Which keys of a cross-attention layer are image features, and not padding.

    Args:
        inputs: model inputs with the processor's mask, of shape (batch, tokens, images) or (batch,
            tokens, images, tiles).
        count: keys of each prompt at the layer.

    Raises:
        UserError: the processor gives no such mask, or one that does not divide the keys.
    """
    return views_of(inputs, count) >= 0


def views_of(inputs: Mapping[str, Tensor], count: int) -> Int[Tensor, "b s"]:
    """The view (image, or tile of an image) that each key belongs to, -1 for padding.

    Args:
        inputs: as for ``visible_features``.
        count: keys of each prompt at the layer.

    Raises:
        UserError: as for ``visible_features``.
    """
    mask = image_mask(inputs)
    views = mask.flatten(2).any(1)  # seen by any token
    if count % views.shape[1]:
        raise UserError(
            f"a cross-attention layer has {count} keys, which {views.shape[1]} views of images "
            "cannot share"
        )
    number = torch.arange(views.shape[1], device=mask.device).expand_as(views)
    return torch.where(views, number, -1).repeat_interleave(count // views.shape[1], dim=1)


def feature_labels(
    inputs: Mapping[str, Tensor], row: int, count: int, token_id: int, token: str
) -> TokenLabels:
    """Labels of the image features of one prompt, in the order of the keys, without padding.

    A view is a grid of patches if it is the only view of its image and its number of features is a
    square, or one more than a square (a class token comes first). Features of an image with several
    tiles have no row and column, because the arrangement of the tiles is not known here. A class
    token shows the whole tile, and is labelled as a patch without row and column.

    Args:
        inputs: model inputs of the batch.
        row: which prompt of the batch.
        count: keys of each prompt at a cross-attention layer.
        token_id: the id of the token that marks an image in the prompt.
        token: how the tokenizer spells it.

    Raises:
        UserError: as for ``visible_features``.
    """
    mask = image_mask(inputs)
    tiles = mask.shape[3] if mask.ndim == 4 else 1
    views = views_of(inputs, count)[row].cpu().numpy()
    per_view = count // (mask.shape[2] * tiles)
    image = views[views >= 0] // tiles
    patch_row = np.full(len(image), -1, np.int32)
    patch_column = patch_row.copy()
    role = np.full(len(image), PATCH, dtype=object)
    side = square_side(per_view) or square_side(per_view - 1)
    for number in np.unique(image):
        of_image = np.flatnonzero(image == number)
        if side and len(of_image) == per_view:
            order = np.arange(side * side)
            patches = of_image[per_view - side * side :]
            patch_row[patches], patch_column[patches] = order // side, order % side
        shown = _shown_patches(inputs, row, int(number), side) if side else None
        if shown is not None and len(of_image) == len(shown) * per_view:
            patches = of_image.reshape(-1, per_view)[:, per_view - side * side :]
            role[patches[~shown]] = PADDING
    patch_row[role == PADDING] = patch_column[role == PADDING] = -1
    size = len(image)
    return TokenLabels(
        token_id=np.full(size, token_id, np.int64),
        token=np.full(size, token),
        modality=np.full(size, "image"),
        role=role.astype(str),
        image=image.astype(np.int32),
        frame=np.full(size, -1, np.int32),
        patch_row=patch_row,
        patch_column=patch_column,
    )


def _shown_patches(
    inputs: Mapping[str, Tensor], row: int, image: int, side: int
) -> Bool[np.ndarray, "tiles patches"] | None:
    """Which patches of an image's tiles show a part of it, None where that is not known.

    The rows at the bottom of the canvas, and the columns at its right, that have only the colour of
    its corner are padding, if no colour of the image is darker: processors fill up with black. So
    a black border of an image is taken for padding there. An image of one colour has none.

    Args:
        inputs: as for ``visible_features``.
        row: which prompt of the batch.
        image: which of its images.
        side: rows and columns of patches in a tile.
    """
    if not {"pixel_values", "aspect_ratio_ids"} <= set(inputs):
        return None
    pixels = inputs["pixel_values"][row, image]
    down, across = _tiles_of(int(inputs["aspect_ratio_ids"][row, image]), len(pixels))
    *_, height, width = pixels.shape
    tiles = pixels[: down * across].unflatten(0, (down, across))
    canvas = tiles.permute(2, 0, 3, 1, 4).reshape(-1, down * height, across * width)
    corner = canvas[:, -1:, -1:]
    unlike = (canvas != corner).any(0)
    if (canvas < corner).any() or (corner > 0).any() or not unlike.any():
        return np.ones((down * across, side * side), dtype=bool)
    rows, columns = (int(unlike.any(axis).nonzero().max()) + 1 for axis in (1, 0))
    tile, patch = np.divmod(np.arange(down * across * side * side), side * side)
    top = (tile // across + patch // side / side) * height
    left = (tile % across + patch % side / side) * width
    return ((top < rows) & (left < columns)).reshape(down * across, side * side)


def _tiles_of(aspect_ratio_id: int, most: int) -> tuple[int, int]:
    """Rows and columns of an image's tiles, by the number that Mllama's processor gives them.

    Args:
        aspect_ratio_id: the number, from 1.
        most: the largest number of tiles.
    """
    sizes = [(a, b) for a in range(1, most + 1) for b in range(1, most + 1) if a * b <= most]
    return sizes[aspect_ratio_id - 1]


def image_mask(inputs: Mapping[str, Tensor]) -> Tensor:
    """Which views of images each token sees: (batch, tokens, images), with tiles if it has them.

    Args:
        inputs: model inputs.

    Raises:
        UserError: the processor gives no such mask.
    """
    found = [inputs[name] for name in MASKS if name in inputs]
    if not found:
        raise UserError(
            f"the processor gives no {' or '.join(MASKS)}, so which image features are padding "
            "is not known"
        )
    return found[0].bool()
