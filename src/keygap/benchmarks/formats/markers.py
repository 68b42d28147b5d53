"""``<image N>`` markers in the texts of MMMU and MMMU-Pro, replaced by the images themselves.

A marker that stands twice shows its image twice, as the publisher's own script does (one question
has 35 markers for 7 images); the image is opened and kept once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from PIL import Image

from keygap.benchmarks.formats.images import image_of
from keygap.benchmarks.formats.tables import Row
from keygap.benchmarks.sample import BadSample, Piece, Role

MARKER = re.compile(r"<image\s+(\d+)>")
NUMBERS = range(1, 8)


def interleaved(
    row: Row, question: str, lines: Sequence[str], instruction: str
) -> tuple[tuple[Piece, ...], tuple[Image.Image, ...]]:
    """Question, options and instruction with the row's images at their markers.

    Images that no marker names are left out, as the publisher's scripts do; where the text has no
    marker at all, the images stand first.

    Returns:
        The prompt, and the images it shows.

    Raises:
        BadSample: a marker without its image, an image that cannot be opened, or no image at all.
    """
    fill = _Filler(row)
    parts = [*fill.text(question + "\n", "question")]
    for line in lines:
        parts += fill.text(line, "option")
    if not fill.images:
        shown = [number for number in NUMBERS if row.get(f"image_{number}") is not None]
        if not shown:
            raise BadSample("missing image: the row has none")
        parts = [*(fill.image(str(number), "question") for number in shown), *parts]
    return (*parts, Piece("text", "template", instruction)), tuple(fill.images)


class _Filler:
    """Opens each image of a row when it is first shown, and remembers its place."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._places: dict[str, int] = {}
        self.images: list[Image.Image] = []

    def text(self, text: str, role: Role) -> list[Piece]:
        parts = []
        for place, piece in enumerate(MARKER.split(text)):
            if place % 2:  # the groups of a split stand at odd places
                parts.append(self.image(piece, role))
            elif piece:
                parts.append(Piece("text", role, piece))
        return parts

    def image(self, number: str, role: Role) -> Piece:
        if number not in self._places:
            cell = self._row.get(f"image_{number}")
            if cell is None:
                raise BadSample(f"missing image: the text shows <image {number[:9]}>")
            self._places[number] = len(self.images)
            self.images.append(image_of(cell))
        return Piece("image", role, image=self._places[number])
