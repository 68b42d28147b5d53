"""Charts of the sizes that a run meets, each sent through the processor once, and only if needed.

A chart costs as much as the image that it stands for. A processor that makes the same square view
and as many positions of pictures of very different sizes needs none for an image that comes out as
that same view too: all that a chart could say is that the view shows what is shown.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image
from transformers import BatchFeature

from keygap.benchmarks.sample import BadSample
from keygap.models.patches.views import View, chart, shape_of_one_each, views_of

Cut = tuple[tuple[View, ...] | None, int]  # views of an image in order, and its positions
_UNLIKE = ((96, 64), (64, 16), (16, 64), (64, 64))
_MOST = 4096  # sizes kept: photographs may all differ


class Charts:
    """What one processor makes of images by their size.

    Args:
        read: model inputs of so many equal pictures, and how many positions they take together.
    """

    def __init__(self, read: Callable[[Image.Image, int], tuple[BatchFeature, int]]) -> None:
        self._read = read
        self._cuts: dict[tuple[tuple[int, int], int], Cut] = {}
        self._fixed: list[Cut | None] = []

    def forget(self) -> None:
        """Start anew, for prompts of another form."""
        self._cuts.clear()
        self._fixed.clear()

    def cut(self, size: tuple[int, int], images: int) -> Cut:
        """What each view of an image of this size shows among so many, and its positions.

        A processor may cut fewer tiles of several images.

        Raises:
            BadSample: the processor refuses a chart of this size.
        """
        if (size, images) not in self._cuts:
            if len(self._cuts) >= _MOST:
                self._cuts.clear()
            try:
                inputs, positions = self._read(chart(*size), images)
            # any processor may object to a size in any way
            except Exception as error:
                reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
                width, height = size
                raise BadSample(
                    f"the processor refuses a chart of {width} x {height} pixels: {reason}"
                ) from error
            self._cuts[size, images] = views_of(inputs, images), positions // images
        return self._cuts[size, images]

    def fixed(self, inputs: BatchFeature, images: int, positions: int) -> Cut | None:
        """What is known of every image of these inputs without a chart of its size, if it is."""
        if not self._fixed:
            self._fixed.append(self._same_of_all())
        known = self._fixed[0]
        if known is None or known[0] is None or positions != images * known[1]:
            return None
        view = known[0][0]
        same = shape_of_one_each(inputs, images) == (view.height, view.width)
        return known if same else None

    def _same_of_all(self) -> Cut | None:
        """The one square view and the count that pictures of all shapes come out as."""
        cuts = set()
        for size in _UNLIKE:
            try:
                views, count = self.cut(size, 1)
            except BadSample:
                return None
            if views is None or len(views) != 1 or views[0].height != views[0].width:
                return None
            cuts.add((views[0].height, count))
        if len(cuts) != 1:
            return None
        ((side, count),) = cuts
        return (View(side, side, 0, 1, 0, 1),), count
