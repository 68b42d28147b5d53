"""Image features that have no position in the prompt: the keys of cross-attention layers.

Where text attends across to an image, the store holds the image features after the prompt's own
tokens, so that every vector has a label. A processor pads images and tiles to the largest of the
batch; its cross-attention mask says which of them are real.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from keygap.errors import UserError
from keygap.models.patches.layout import square_side
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
    tiles have no row and column, because the arrangement of the tiles is not known here.

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
    side = square_side(per_view) or square_side(per_view - 1)
    for number in np.unique(image):
        of_image = np.flatnonzero(image == number)
        if side and len(of_image) == per_view:
            order = np.arange(side * side)
            patches = of_image[per_view - side * side :]
            patch_row[patches], patch_column[patches] = order // side, order % side
    size = len(image)
    return TokenLabels(
        token_id=np.full(size, token_id, np.int64),
        token=np.full(size, token),
        modality=np.full(size, "image"),
        role=np.full(size, ""),
        image=image.astype(np.int32),
        frame=np.full(size, -1, np.int32),
        patch_row=patch_row,
        patch_column=patch_column,
    )


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
