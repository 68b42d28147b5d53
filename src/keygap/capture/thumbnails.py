"""Small pictures of what prompts show, with the grids that the labels of their patches refer to.

A picture is kept as the model's processor gets it: decoded to RGB, upright, transparency on white.
It is small enough for a page that shows hundreds, and large enough to see what a patch covers.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from keygap.benchmarks import Sample
from keygap.models.prompting.facts import Shown, shown_by
from keygap.store.schema import THUMBNAILS_SCHEMA
from keygap.tokens import PatchGrid, TokenLabels

SIDE = 96  # pixels of the longer side, at most
QUALITY = 80
GRIDS = {"grid": "", "coarse": "thumbnail"}  # the role of the patches, by the prefix of a column
_EDGES = ("top", "bottom", "left", "right")


def thumbnail_table(sample: Sample, labels: TokenLabels) -> pa.Table:
    """One row per image of a prompt, and per frame of a video as the labels count frames.

    Args:
        sample: the sample.
        labels: of the tokens of its prompt, or of its image features.
    """
    return pa.Table.from_pylist(list(_rows(sample, labels)), schema=THUMBNAILS_SCHEMA)


def thumbnail(picture: Image.Image) -> tuple[bytes, tuple[int, int]]:
    """A picture as WebP of at most ``SIDE`` pixels on a side, and its width and height.

    A smaller picture keeps its size.
    """
    scale = min(1.0, SIDE / max(picture.size))
    width, height = (max(1, round(scale * length)) for length in picture.size)
    small = picture
    if (width, height) != picture.size:
        small = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue(), (width, height)


def _rows(sample: Sample, labels: TokenLabels) -> Iterator[dict[str, Any]]:
    pieces = [piece for piece in sample.prompt if piece.kind != "text"]
    for number, piece in enumerate(pieces):
        of_image = labels.image == number
        grids = labels.grids[number] if number < len(labels.grids) else {}
        for frame, picture in _pictures(shown_by(sample, piece), labels.frame[of_image]):
            data, (width, height) = thumbnail(picture)
            yield {
                "sample_id": sample.id,
                "image": number,
                "frame": frame,
                "picture": data,
                "width": width,
                "height": height,
                "image_width": picture.width,
                "image_height": picture.height,
                **_grids(grids),
            }


def _pictures(shown: Shown, frames: np.ndarray) -> Iterator[tuple[int, Image.Image]]:
    """The image, or the first picture of every frame, each with the number of its frame.

    A model may join several pictures of a video to one frame. A video whose frames are not known is
    represented by its first picture.
    """
    if isinstance(shown, Image.Image):
        yield -1, shown
        return
    count = int(frames.max(initial=-1)) + 1
    if not count:
        yield -1, Image.fromarray(shown[0])
    for frame in range(count):
        yield frame, Image.fromarray(shown[frame * len(shown) // count])


def _grids(grids: Mapping[str, PatchGrid]) -> dict[str, Any]:
    """The columns of both grids; null for one that there is not, or that is not known."""
    columns: dict[str, Any] = {}
    for prefix, role in GRIDS.items():
        grid = grids.get(role)
        for name in ("rows", "columns", *_EDGES):
            columns[f"{prefix}_{name}"] = None if grid is None else getattr(grid, name)
    return columns
