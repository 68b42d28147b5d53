"""What a position of a prompt is.

An image's positions are those that vision features replace. The text that a processor writes around
and between them (start and end of an image, tile names, row breaks) is text of role ``separator``,
and so is a learned row end (``image_newline``), which is of modality image but of no patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from keygap.arguments import distinct
from keygap.errors import UserError, unknown

# How a prompt shows its images and videos: with their pixels; not at all; or with their positions
# in the prompt but without pixels, so that the model embeds the placeholder tokens as words.
Pictures = Literal["shown", "absent", "marker"]

MODALITIES = ("text", "image", "video", "audio")
ROLES: tuple[str, ...] = (
    "",
    "system",
    "template",
    "question",
    "option",
    "hint",
    "caption",
    "answer",
    "separator",
    "thumbnail",
    "padding",
)


TEXT_ROLES = tuple(role for role in ROLES if role not in ("", "thumbnail", "padding"))


def known_roles(roles: Sequence[str], known: Sequence[str] = TEXT_ROLES) -> list[str]:
    """Check that roles are known, and return them. A misspelt one would silently select no tokens.

    Raises:
        UserError: there is none, or one that no token can have; names the nearest.
    """
    roles = distinct(roles, "text_roles", "question") if roles else roles
    for role in roles:
        if role not in known:
            raise unknown("role", role, filter(None, known))
    if not roles:
        raise UserError(f"no role: choose among {', '.join(filter(None, known))}")
    return list(roles)


@dataclass(frozen=True)
class PatchGrid:
    """The grid that the rows and columns of an image's patches count through.

    Its edges are given as fractions of the image's height and width. They are those of the image,
    0 and 1, unless a processor puts padding around it, which moves them outwards, or the model
    leaves out part of the image, which moves them inwards.

    Attributes:
        rows: rows of patches.
        columns: columns of patches.
        top: upper edge.
        bottom: lower edge.
        left: left edge.
        right: right edge.
    """

    rows: int
    columns: int
    top: float = 0.0
    bottom: float = 1.0
    left: float = 0.0
    right: float = 1.0


@dataclass(frozen=True)
class TokenLabels:
    """The label of every token of one sample's prompt, padding left out.

    All arrays have the length of the prompt. ``role`` of an image position is empty for a patch,
    ``thumbnail`` for a patch of a second, coarser view of the image, ``separator`` for a row end,
    ``padding`` for a patch of what a processor puts around the image, which shows none of it.
    ``image``, ``patch_row`` and ``patch_column`` are -1 where they do not apply: also where a
    connector mixes patches (Q-Former, resampler), so that no position is a patch. ``frame`` counts
    the pictures of a video in time, as the model sees them (it may join two). Rows and columns
    of tiles count through the whole image.

    ``grids`` has the grid of each image and video by the role of its patches, empty or
    ``thumbnail``. A role without a known grid is left out.
    """

    token_id: np.ndarray  # int64
    token: np.ndarray  # str, as the tokenizer spells it
    modality: np.ndarray  # str, one of MODALITIES
    role: np.ndarray  # str, one of ROLES
    image: np.ndarray  # int32, images and videos in the order of the prompt
    frame: np.ndarray  # int32, -1 outside videos
    patch_row: np.ndarray  # int32
    patch_column: np.ndarray  # int32
    grids: tuple[Mapping[str, PatchGrid], ...] = ()  # by the number in ``image``

    def __len__(self) -> int:
        return len(self.token_id)
