"""Charts of the image sizes in a run: each size goes through the processor once, if necessary.

A chart costs as much as an image of its size. None is needed where the processor turns images of
very different sizes into the same square view with the same number of positions, and the image at
hand has that view too: the view then shows the whole image. A processor that cuts off what is
outside a square in the middle shows another part of every shape.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache

from PIL import Image
from transformers import BatchFeature

from keygap.benchmarks.sample import BadSample
from keygap.models.patches.views import (
    Scale,
    View,
    chart,
    plain,
    scales_of,
    shape_of_one_each,
    views_of,
)

Cut = tuple[tuple[View, ...] | None, int]  # the views of an image in order, and its positions
_UNLIKE = ((96, 64), (64, 16), (16, 64), (64, 64))
_MOST = 4096  # sizes that are remembered: in a set of photographs all may differ


class Charts:
    """How one processor cuts images, by their size.

    Results are remembered; they depend on the arguments alone, so that threads can share an object.

    Args:
        read: gives the model inputs of one prompt with so many equal images, and the number of
            their positions together.
    """

    def __init__(self, read: Callable[[Image.Image, int], tuple[BatchFeature, int]]) -> None:
        self._read = read
        self._remembered = lru_cache(_MOST)(self._cut)

    def cut(self, size: tuple[int, int], images: int) -> Cut:
        """The views of an image, and the number of its positions.

        Args:
            size: width and height of the image.
            images: the number of images in the prompt. A processor may cut fewer tiles of several.

        Raises:
            BadSample: the processor refuses a chart of this size.
        """
        return self._remembered(size, images)

    def _cut(self, size: tuple[int, int], images: int) -> Cut:
        try:
            inputs, positions = self._read(chart(*size), images)
            scales = self._scales
        # a processor may raise anything for a size that it does not expect
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
            width, height = size
            raise BadSample(
                f"the processor refuses a chart of {width} x {height} pixels: {reason}"
            ) from error
        # a single row or column of a chart has the colour of the first, whatever shows it
        views = None if 1 in size else views_of(inputs, images, scales)
        return views, positions // images

    def fixed(self, inputs: BatchFeature, images: int, positions: int) -> Cut | None:
        """What holds for every image of some model inputs without a chart, None if unknown.

        Args:
            inputs: model inputs.
            images: the number of images in them.
            positions: the number of their positions together.
        """
        known = self._same_of_all
        if known is None or known[0] is None or positions != images * known[1]:
            return None
        view = known[0][0]
        same = shape_of_one_each(inputs, images) == (view.height, view.width)
        return known if same else None

    @cached_property
    def _scales(self) -> dict[str, Scale]:
        """What the processor makes of the colours of a chart."""
        dark, light = (self._read(plain(value), 1)[0] for value in (0, 255))
        return scales_of(dark, light)

    @cached_property
    def _same_of_all(self) -> Cut | None:
        """The square view and the number of positions that images of all shapes share."""
        cuts = set()
        for size in _UNLIKE:
            try:
                views, count = self.cut(size, 1)
            except BadSample:
                return None
            if views is None or len(views) != 1 or views[0].height != views[0].width:
                return None
            # where the padding is, or what is cut off, depends on the shape
            if views[0].padded or not views[0].whole:
                return None
            cuts.add((views[0].height, count))
        if len(cuts) != 1:
            return None
        ((side, count),) = cuts
        return (View(side, side, 0, 1, 0, 1),), count
