"""Marks in a prompt's text that survive the chat template and the processor.

The role of every token must be exact for every template, so roles are not searched for in the
rendered prompt. Each text piece and each image placeholder gets marks, which are characters of the
private-use area. The processor expands a placeholder between its marks. The marks of a text piece
are inside it, after its first and before its last character, so that a template or a processor
that looks at neighbouring characters finds the same ones as without marks. ``tokenizer``
reads the marks where the processor tokenizes its text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from keygap.benchmarks.sample import BadSample
from keygap.tokens import ROLES

_FIRST_MARK = 0xF8E0  # private use: in no tokenizer's vocabulary and in no template
_OPEN = {chr(_FIRST_MARK + number): role for number, role in enumerate(ROLES)}
_MARK = {role: mark for mark, role in _OPEN.items()}
_LAST, _END, IMAGE_OPEN, IMAGE_CLOSE = (chr(_FIRST_MARK + len(ROLES) + n) for n in range(4))
MARKS = {*_OPEN, _LAST, _END, IMAGE_OPEN, IMAGE_CLOSE}
_DELETE = {ord(mark): None for mark in MARKS}
_ANY_MARK = re.compile(f"[{''.join(MARKS)}]")


def marked(text: str, role: str, around_space: bool = True) -> str:
    """A text with the marks of its role; an empty text has none.

    Args:
        text: the text of one piece.
        role: its role.
        around_space: whether the role includes leading and trailing white space.

    Raises:
        BadSample: the text contains a mark character.
    """
    if not MARKS.isdisjoint(text):
        raise BadSample("the text has private-use characters that keygap marks roles with")
    start, stop = 0, len(text)
    if not around_space:
        start, stop = len(text) - len(text.lstrip()), len(text.rstrip())
    if start >= stop:
        return text
    inner = text[start:stop]
    if len(inner) == 1:
        inner = f"{inner}{_MARK[role]}{_END}"
    else:
        inner = f"{inner[0]}{_MARK[role]}{inner[1:-1]}{_LAST}{inner[-1]}"
    return f"{text[:start]}{inner}{text[stop:]}"


def with_image_marks(text: str, placeholders: Sequence[str]) -> str:
    """A text with every placeholder of an image or a video enclosed in image marks."""
    for placeholder in filter(None, placeholders):
        text = text.replace(placeholder, f"{IMAGE_OPEN}{placeholder}{IMAGE_CLOSE}")
    return text


def without_marks(text: str) -> str:
    """A text with all marks removed."""
    return text.translate(_DELETE)


@dataclass(frozen=True)
class Read:
    """A text without its marks, and the spans that they gave.

    Attributes:
        text: the text.
        pieces: start, stop and role of each piece.
        images: start and stop of each expanded placeholder.
        marks: positions of the marks in the text as it was given.
    """

    text: str
    pieces: tuple[tuple[int, int, str], ...] = ()
    images: tuple[tuple[int, int], ...] = ()
    marks: tuple[int, ...] = ()

    def roles(self) -> list[str]:
        """The role of every character."""
        values = ["template"] * len(self.text)
        for start, stop, role in self.pieces:
            values[start:stop] = [role] * (stop - start)
        return values

    def image_numbers(self) -> list[int]:
        """The image of every character, -1: none."""
        values = [-1] * len(self.text)
        for number, (start, stop) in enumerate(self.images):
            values[start:stop] = [number] * (stop - start)
        return values


def read_marks(text: str) -> Read:
    """A text without its marks, and what they say."""
    clean: list[str] = []
    pieces: list[tuple[int, int, str]] = []
    images: list[tuple[int, int]] = []
    size, last, start, role, opened = 0, 0, 0, "", 0
    for found in _ANY_MARK.finditer(text):
        clean.append(text[last : found.start()])
        size, last, mark = size + found.start() - last, found.end(), found.group()
        if mark in _OPEN:
            role, start = _OPEN[mark], size - 1
        elif mark == IMAGE_OPEN:
            opened = size
        elif mark == IMAGE_CLOSE:
            images.append((opened, size))
        elif start < size:
            pieces.append((start, size + (mark == _LAST), role))
    clean.append(text[last:])
    marks = tuple(found.start() for found in _ANY_MARK.finditer(text))
    return Read("".join(clean), tuple(pieces), tuple(images), marks)
