"""Contrasts: two selections of labelled tokens, and what else could explain their difference.

The ladder's contrasts are in ``ladder``, the user's own in ``own``, confounds in ``confounds``.
``sides`` turns a contrast and labelled vectors into two arrays. Nothing here computes a statistic.
"""

from __future__ import annotations

from keygap.contrasts.contrast import Contrast
from keygap.registry import Registry

# The order is that of the ladder and of the rows of gap.csv.
CONTRASTS: Registry[Contrast] = Registry(
    "contrast",
    "keygap.contrasts",
    {
        "image_text": "keygap.contrasts.ladder:IMAGE_TEXT",
        "image_caption": "keygap.contrasts.ladder:IMAGE_CAPTION",
        "image_image": "keygap.contrasts.ladder:IMAGE_IMAGE",
        "text_text": "keygap.contrasts.ladder:TEXT_TEXT",
        "text_vocabulary": "keygap.contrasts.ladder:TEXT_VOCABULARY",
        "image_region": "keygap.contrasts.ladder:IMAGE_REGION",
        "image_sink": "keygap.contrasts.ladder:IMAGE_SINK",
        "text_sink": "keygap.contrasts.ladder:TEXT_SINK",
        "text_token": "keygap.contrasts.ladder:TEXT_TOKEN",
    },
)


def contrast_of(contrast: str | Contrast) -> Contrast:
    """Look up a contrast by its name; a ``Contrast`` is returned as it is.

    Raises:
        UserError: no contrast has this name.
    """
    return contrast if isinstance(contrast, Contrast) else CONTRASTS[contrast]
