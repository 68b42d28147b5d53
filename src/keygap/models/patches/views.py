"""Which part of an image each view shows, measured with a chart.

Every processor has its own rules to cut an image into tiles and to add coarser views: nearest
aspect ratio, least waste, fixed canvases, with or without padding. None of these rules is copied
here. Instead, a chart of the image's size goes through the model's own processor once. Its red
channel encodes the column and its green channel the row, so the colours in the model inputs give
the part of the image that each view shows. The cut depends on the size, so the chart must be as
large as the image. It takes no more memory than the image. What the processor makes of a colour is
read from two pictures of one colour each, because the colours at the edges of a chart may be cut
off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        top: the first row of the part, as a fraction of the image's height.
        bottom: its last row.
        left: the first column of the part, as a fraction of the image's width.
        right: its last column.
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

    @property
    def part(self) -> tuple[float, float, float, float]:
        """The edges of the part: top, bottom, left and right."""
        if self.whole:
            return 0.0, 1.0, 0.0, 1.0
        down = _edges(self.top, self.bottom, self.rows or self.height)
        return *down, *_edges(self.left, self.right, self.columns or self.width)


def _edges(first: float, last: float, pixels: int) -> tuple[float, float]:
    """The edges of a part along one axis: half a pixel beyond the middle of the outermost pixels.

    A part of one colour is as wide as a step of 8 bits.
    """
    half = max((last - first) / max(pixels - 1, 1), _ROUNDED) / 2
    return max(first - half, 0.0), min(last + half, 1.0)


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


@dataclass(frozen=True)
class Scale:
    """What a processor makes of the colours of a chart.

    Attributes:
        low: red and green of a chart's first column and row.
        high: red and green of its last column and row.
        blue: its blue.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    blue: float


def plain(value: int) -> Image.Image:
    """A picture of the colour of a chart's first row and column (0), or of its last (255)."""
    return Image.new("RGB", (64, 64), (value, value, _BLUE))


def scales_of(dark: BatchFeature, light: BatchFeature) -> dict[str, Scale]:
    """The scale of each model input that holds pictures.

    Args:
        dark: model inputs of ``plain(0)``.
        light: model inputs of ``plain(255)``.
    """
    scales = {}
    for name in _picture_names(dark):
        low, high = (one[name].flatten(0, -4).float().numpy() for one in (dark, light))
        shown = low[:, 0] != high[:, 0]  # padding is alike in both
        if shown.any():
            first, last = (np.median(one.swapaxes(0, 1)[:, shown], 1) for one in (low, high))
            scales[name] = Scale(
                (float(first[0]), float(first[1])),
                (float(last[0]), float(last[1])),
                float(first[2]),
            )
    return scales


def views_of(
    inputs: BatchFeature, images: int = 1, scales: Mapping[str, Scale] | None = None
) -> tuple[View, ...] | None:
    """The views of the first of several equal charts, in the order of the vision tower.

    Args:
        inputs: model inputs of the charts.
        images: the number of charts.
        scales: of the model inputs. Without a scale, the views of an input are taken to show the
            whole image together.

    Returns:
        The views, or None where the model inputs have no views as pictures or their order is not
        known.
    """
    known = scales or {}
    found = [_of_tensor(inputs[name], images, known.get(name)) for name in _picture_names(inputs)]
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


def _picture_names(inputs: BatchFeature) -> list[str]:
    """The model inputs that hold pictures of images."""
    return [
        name
        for name, value in inputs.items()
        if "pixel" in name
        and "video" not in name
        and torch.is_tensor(value)
        and _are_pictures(value)
    ]


def _are_pictures(value: Any) -> bool:
    return value.is_floating_point() and value.ndim >= 4 and value.shape[-3] == 3


def _of_tensor(value: torch.Tensor, images: int, scale: Scale | None) -> list[View] | None:
    pictures = value.flatten(0, -4).float().numpy()
    red, green, blue = pictures[:, 0], pictures[:, 1], pictures[:, 2]
    if scale is None:
        moving = np.zeros(red.shape, dtype=bool)  # columns of a chart differ, padding's do not
        moving[:, :, 1:] = np.diff(red, axis=-1) != 0
        if not moving.any():
            return None
        level = float(np.median(blue[moving]))
        spread = float(red[moving].max() - red[moving].min())  # 0 where a crop shows two columns
    else:
        level, spread = scale.blue, abs(scale.high[0] - scale.low[0])
    shown = np.abs(blue - level) < max(0.02 * spread, 1e-3)
    if not shown.any():
        return None
    seen = shown.any((1, 2))  # a batch may be filled up with empty views
    one_each = int(seen.sum()) <= images
    columns, rows = (
        _shares(
            channel,
            shown,
            (scale.low[number], scale.high[number]) if scale else None,
            _near_end(shown, axis, one_each),
        )
        for number, (channel, axis) in enumerate(((red, 1), (green, 2)))
    )
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


def _near_end(shown: np.ndarray, axis: int, one_each: bool) -> float:
    """How far from an end of the image the outermost colour is where nothing is cut off.

    Args:
        shown: where views show the image.
        axis: the axis that is not looked along.
        one_each: whether each image has one view.
    """
    pixels = int(shown.any(axis).sum(-1).max())
    if (
        pixels < shown.shape[3 - axis]
    ):  # it was fitted there, and padding may be mixed into its edge
        return 1.0
    return _INSET / pixels + _ROUNDED if one_each else _NEAR


def _shares(
    channel: np.ndarray, shown: np.ndarray, ends: tuple[float, float] | None, near: float
) -> np.ndarray:
    """Colours as fractions of the image: from 0 to 1 over all views together, if none is cropped.

    Args:
        channel: the colours.
        shown: where they show the image.
        ends: the colours of the first and the last row or column, None if not known.
        near: how far from an end the outermost colour is where nothing is cut off.
    """
    low, high = (float(end) for end in (channel[shown].min(), channel[shown].max()))
    if ends is not None:
        first, last = ends
        near *= last - first
        low = low if low - first <= near else first
        high = high if last - high <= near else last
    return (channel - low) / max(high - low, 1e-9)


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
