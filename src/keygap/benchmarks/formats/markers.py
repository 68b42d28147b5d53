"""Replace the ``<image N>`` markers in texts of MMMU and MMMU-Pro by the images themselves.

A repeated marker shows its image again, as in the publisher's own script (one question has 35
markers for 7 images). Each image is opened and stored once.
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
    """Build a prompt of question, options and instruction, with images in place of the markers.

    Images that no marker names are left out, as in the publisher's scripts. If the text has no
    marker at all, the images come first.

    Args:
        row: the table's row, with its images in the columns ``image_1`` to ``image_7``.
        question: text of the question.
        lines: one for each option.
        instruction: the last piece of the prompt.

    Returns:
        The prompt, and the images that it shows.

    Raises:
        BadSample: a marker names an image that the row does not have, an image cannot be opened, or
            the row has no image.
    """
    images = _RowImages(row)
    pieces = _split(question + "\n", "question", images)
    for line in lines:
        pieces += _split(line, "option", images)
    if not images.opened:
        shown = [number for number in NUMBERS if row.get(f"image_{number}") is not None]
        if not shown:
            raise BadSample("missing image: the row has none")
        pieces = [*(images.piece(str(number), "question") for number in shown), *pieces]
    return (*pieces, Piece("text", "template", instruction)), tuple(images.opened)


class _RowImages:
    """The images of a row, each opened when it is first shown."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._indices: dict[str, int] = {}
        self.opened: list[Image.Image] = []

    def piece(self, number: str, role: Role) -> Piece:
        """Return the piece that shows the image of this number."""
        if number not in self._indices:
            cell = self._row.get(f"image_{number}")
            if cell is None:
                raise BadSample(f"missing image: the text shows <image {number[:9]}>")
            self._indices[number] = len(self.opened)
            self.opened.append(image_of(cell))
        return Piece("image", role, image=self._indices[number])


def _split(text: str, role: Role, images: _RowImages) -> list[Piece]:
    """Split a text at its markers into pieces of text and images."""
    pieces = []
    for position, found in enumerate(MARKER.split(text)):
        if position % 2:  # re.split puts the number in each marker between the texts around it
            pieces.append(images.piece(found, role))
        elif found:
            pieces.append(Piece("text", role, found))
    return pieces
