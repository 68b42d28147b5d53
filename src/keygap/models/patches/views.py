"""Which part of an image each view shows, measured with a chart.

Every processor has its own rules to cut an image into tiles and to add coarser views: nearest
aspect ratio, least waste, fixed canvases, with or without padding. None of these rules is copied
here. Instead, a chart of the image's size goes through the model's own processor once. Its red
channel encodes the column and its green channel the row, so the colours in the model inputs give
the part of the image that each view shows. The cut depends on the size, so the chart must be as
large as the image. It takes no more memory than the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature

_BLUE = 200  # the same everywhere; processors do not pad with it
# Fractions of the image: well above an 8-bit step and interpolation, and well below a tile;
_NEAR = 0.05
# and the rounding error of 8 bits where a view is resized twice.
_ROUNDED = 1 / 255
_INSET = 0.7  # of a pixel: largest distance of an outermost pixel's mean from the image's edge
_STRIP = 256  # rows of a chart that are painted at once


@dataclass(frozen=True)
class View:
    """One picture that the vision tower gets, and the part of the image that it shows.

    Attributes:
        height: height of the view in pixels.
        width: width of the view in pixels.
        top: upper edge of the part, as a fraction of the image's height.
        bottom: lower edge of the part.
        left: left edge of the part, as a fraction of the image's width.
        right: right edge of the part.
        rows: rows of pixels that show the image and not padding; 0: all.
        columns: columns of pixels that show the image and not padding; 0: all.
        first_row: the first row of pixels that shows the image.
        first_column: the first column of pixels that shows the image.
    """

    height: int
    width: int
    top: float
    bottom: float
    left: float
    right: float
    rows: int = 0
    columns: int = 0
    first_row: int = 0
    first_column: int = 0

    @property
    def padded(self) -> bool:
        """Whether some of its pixels show no part of the image."""
        return 0 < self.rows < self.height or 0 < self.columns < self.width

    @property
    def whole(self) -> bool:
        """Whether it shows the whole image, to less than one of its own pixels."""
        down = _INSET / (self.rows or self.height) + _ROUNDED
        across = _INSET / (self.columns or self.width) + _ROUNDED
        near_start = self.top <= down and self.left <= across
        return near_start and self.bottom >= 1 - down and self.right >= 1 - across


def chart(width: int, height: int) -> Image.Image:
    """A picture whose red channel encodes the column and whose green channel encodes the row."""
    picture = Image.new("RGB", (width, height))
    down = np.linspace(0, 255, height).round().astype(np.uint8)
    strip = np.empty((min(_STRIP, height), width, 3), dtype=np.uint8)
    strip[..., 0] = np.linspace(0, 255, width).round()
    strip[..., 2] = _BLUE
    for top in range(0, height, _STRIP):
        rows = down[top : top + _STRIP]
        strip[: len(rows), :, 1] = rows[:, None]
        picture.paste(Image.fromarray(strip[: len(rows)]), (0, top))
    return picture


def views_of(inputs: BatchFeature, images: int = 1) -> tuple[View, ...] | None:
    """The views of the first of several equal charts, in the order of the vision tower.

    Args:
        inputs: model inputs of the charts.
        images: the number of charts.

    Returns:
        The views, or None where the model inputs have no views as pictures or their order is not
        known.
    """
    found = [
        _of_tensor(value)
        for name, value in inputs.items()
        if "pixel" in name
        and "video" not in name
        and torch.is_tensor(value)
        and _are_pictures(value)
    ]
    if not found or any(views is None for views in found):
        return None
    every = [view for views in found if views is not None for view in views[: len(views) // images]]
    if any(views is not None and len(views) % images for views in found):
        return None
    if len(found) == 1 or all(view.whole for view in every):
        return tuple(every)
    return None  # several inputs, and nothing says in which order the model joins them


def shape_of_one_each(inputs: BatchFeature, images: int) -> tuple[int, int] | None:
    """Height and width of the views if each of ``images`` images has one view, None otherwise."""
    pixels = [value for name, value in inputs.items() if "pixel" in name and torch.is_tensor(value)]
    pictures = [value for value in pixels if _are_pictures(value)]
    if len(pictures) != 1 or pictures[0].flatten(0, -4).shape[0] != images:
        return None
    height, width = pictures[0].shape[-2:]
    return height, width


def _are_pictures(value: Any) -> bool:
    return value.is_floating_point() and value.ndim >= 4 and value.shape[-3] == 3


def _of_tensor(value: torch.Tensor) -> list[View] | None:
    pictures = value.flatten(0, -4).float().numpy()
    red, green, blue = pictures[:, 0], pictures[:, 1], pictures[:, 2]
    moving = np.zeros(red.shape, dtype=bool)  # columns of a chart differ, those of padding do not
    moving[:, :, 1:] = np.diff(red, axis=-1) != 0
    if not moving.any():
        return None
    level = float(np.median(blue[moving]))
    spread = float(red[moving].max() - red[moving].min())  # 0 where a crop shows only two columns
    shown = np.abs(blue - level) < max(0.02 * spread, 1e-3)
    seen = shown.any((1, 2))  # a batch may be filled up with empty views
    columns, rows = (_shares(channel, shown) for channel in (red, green))
    height, width = value.shape[-2:]
    views = []
    for number in np.flatnonzero(seen):
        own = shown[number]
        row, column = rows[number][own], columns[number][own]
        views.append(
            View(
                height,
                width,
                float(row.min()),
                float(row.max()),
                float(column.min()),
                float(column.max()),
                int(own.any(1).sum()),
                int(own.any(0).sum()),
                int(own.any(1).argmax()),
                int(own.any(0).argmax()),
            )
        )
    return views


def _shares(channel: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Colours as fractions of the image, from 0 to 1 over all views together."""
    low, high = channel[shown].min(), channel[shown].max()
    return (channel - low) / max(float(high - low), 1e-9)


def tile_grid(tiles: Sequence[View]) -> list[tuple[int, int]] | None:
    """Row and column of each tile, None unless the tiles fill a grid without gap or overlap."""
    rows = _line([(tile.top, tile.bottom) for tile in tiles])
    columns = _line([(tile.left, tile.right) for tile in tiles])
    if rows is None or columns is None:
        return None
    cells = list(zip(rows, columns, strict=True))
    every = {(row, column) for row in set(rows) for column in set(columns)}
    return cells if len(set(cells)) == len(cells) and set(cells) == every else None


def _line(spans: Sequence[tuple[float, float]]) -> list[int] | None:
    """The number of each span on a line, None unless the spans fill it from 0 to 1 without gaps."""
    order: list[tuple[float, float]] = []
    for start, stop in sorted(spans):
        if order and abs(start - order[-1][0]) < _NEAR and abs(stop - order[-1][1]) < _NEAR:
            continue
        if order and abs(start - order[-1][1]) > _NEAR:
            return None
        order.append((start, stop))
    if not order or order[0][0] > _NEAR or max(stop for _, stop in order) < 1 - _NEAR:
        return None
    starts = np.asarray([start for start, _ in order])
    return [int(np.abs(starts - start).argmin()) for start, _ in spans]
