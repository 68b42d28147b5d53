"""Which part of an image each view shows, read off a chart and not inferred.

Processors cut an image into tiles and add coarser views in ways of their own: nearest aspect
ratio, least waste, fixed canvases, with or without padding. So a chart of the image's size, whose
red says the column and whose green says the row, goes through the model's own processor once, and
the colours that arrive say where every view lies. No rule of any processor is copied. A chart
must be as large as the image, as sizes decide the cut, and takes no more memory than the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature

_BLUE = 200  # the same everywhere, and no colour that processors pad with
_NEAR = 0.05  # of the image: well above an 8-bit step and interpolation, well below a tile
_ROUNDED = 1 / 255  # of the image: what 8 bits round away where a view is resized twice
_INSET = 0.7  # of a pixel: how far inside the image the mean of an outermost pixel can lie
_STRIP = 256  # rows of a chart that are painted at once


@dataclass(frozen=True)
class View:
    """One picture that the vision tower sees: its size in pixels, and its part of the image.

    The part is given by shares of the image's height and width, from 0 to 1; padding shows none.
    ``rows`` and ``columns`` are of pixels that show it, all of the view's unless given.
    """

    height: int
    width: int
    top: float
    bottom: float
    left: float
    right: float
    rows: int = 0
    columns: int = 0

    @property
    def whole(self) -> bool:
        """Whether it shows all that any view shows, to less than one of its own pixels."""
        down = _INSET / (self.rows or self.height) + _ROUNDED
        across = _INSET / (self.columns or self.width) + _ROUNDED
        near_start = self.top <= down and self.left <= across
        return near_start and self.bottom >= 1 - down and self.right >= 1 - across


def chart(width: int, height: int) -> Image.Image:
    """A picture whose pixels say where they are."""
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
    """The views of the first of some equal charted images, in the order of the vision tower.

    None where the model inputs do not hold views as pictures, or not in one known order.
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
    """Height and width of the views where each of so many images is one view, None elsewhere."""
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
    moving = np.zeros(red.shape, dtype=bool)  # the chart's columns differ, padding's do not
    moving[:, :, 1:] = np.diff(red, axis=-1) != 0
    if not moving.any():
        return None
    level = float(np.median(blue[moving]))
    spread = float(red[moving].max() - red[moving].min())  # 0 where a crop shows two columns only
    shown = np.abs(blue - level) < max(0.02 * spread, 1e-3)
    seen = shown.any((1, 2))  # a batch is filled up with views that show nothing
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
            )
        )
    return views


def _shares(channel: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Colours as shares of the image: what all views show together runs from 0 to 1."""
    low, high = channel[shown].min(), channel[shown].max()
    return (channel - low) / max(float(high - low), 1e-9)


def tile_grid(tiles: Sequence[View]) -> list[tuple[int, int]] | None:
    """Row and column of each tile, None unless they fill a grid, each once, side by side."""
    rows = _line([(tile.top, tile.bottom) for tile in tiles])
    columns = _line([(tile.left, tile.right) for tile in tiles])
    if rows is None or columns is None:
        return None
    cells = list(zip(rows, columns, strict=True))
    every = {(row, column) for row in set(rows) for column in set(columns)}
    return cells if len(set(cells)) == len(cells) and set(cells) == every else None


def _line(spans: Sequence[tuple[float, float]]) -> list[int] | None:
    """The place of each span along a line of spans that abut from 0 to 1, None if they do not."""
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
