"""What a benchmark hands on: samples, one at a time, and an index that costs no images.

A benchmark knows its items by a light index (id, subject, image key) and decodes images only when
an item is asked for, so that memory does not grow with the benchmark and the choice of samples is
made before any image is opened.
"""

from __future__ import annotations

import string
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from PIL import Image

LETTERS = tuple(string.ascii_uppercase)
Role = Literal["system", "template", "question", "option", "hint", "answer"]


@dataclass(frozen=True)
class Piece:
    """One piece of a prompt as the model reads it: text of a role, an image, or a video.

    ``image`` is the index into ``Sample.images``, or ``Sample.videos``; ``text`` is empty then.
    """

    kind: Literal["text", "image", "video"]
    role: Role = "question"
    text: str = ""
    image: int = 0


@dataclass(frozen=True)
class Sample:
    """One benchmark item.

    ``images`` are opened but may still be undecoded (PIL reads lazily): a broken one fails where it
    is used, and is recorded as that sample's failure. ``prompt`` is the user's turn by the
    benchmark's own template; it may show one image several times. Where there are ``options``, a
    part of role option spells each with its letter, and ``answer`` is a letter (``letters``); it is
    None where the publisher keeps it.
    """

    id: str
    images: tuple[Image.Image, ...]
    question: str
    prompt: tuple[Piece, ...]
    answer: str | None = None
    options: tuple[str, ...] = ()
    hint: str | None = None
    language: str = "en"
    subject: str = ""
    meta: dict[str, str] = field(default_factory=dict)
    videos: tuple[tuple[Image.Image, ...], ...] = ()  # each as the frames that are shown

    def __post_init__(self) -> None:
        """Refuse text that no file and no tokenizer takes: half of a surrogate pair.

        Raises:
            BadSample: there is one.
        """
        texts = (self.question, self.answer or "", *(part.text for part in self.prompt))
        try:
            "".join(texts).encode()
        except UnicodeEncodeError as error:
            raise BadSample(f"the text is not Unicode: {error}") from error

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters of the options; not always A, B, C: a publisher may leave one out."""
        return tuple(self.meta.get("letters", LETTERS[: len(self.options)]))


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of an item unopened; ``image_key`` is shared by the items of one image."""

    id: str
    subject: str = ""
    image_key: str = ""


class BadSample(ValueError):
    """One item that cannot be used. It is recorded with its reason, and the run goes on."""


def as_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode, decoded whole, in RGB; what is transparent becomes white.

    Raises:
        BadSample: the image is truncated, broken, or of a mode that has no RGB form.
    """
    try:
        image.load()
        if image.mode.startswith("I;16"):  # 16 bits of grey: convert() would clip, not scale
            image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
        if not image.has_transparency_data:
            return image.convert("RGB")
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(page, layer).convert("RGB")
    # what Pillow's decoders raise on broken bytes
    except (OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
        raise BadSample(f"the image cannot be decoded: {error}") from error


def image_then_question(question: str, images: int = 1) -> tuple[Piece, ...]:
    """The plain prompt: the images, then the question."""
    return (
        *(Piece("image", image=number) for number in range(images)),
        Piece("text", text=question),
    )


def unique_ids(fallback: str, ids: Iterable[object]) -> list[str]:
    """The publisher's ids as text, each once: stores and choices tell items apart by them.

    A row without an id is named by its place; a second row of one id gets its place added.
    """
    names: dict[str, None] = {}
    for number, value in enumerate(ids):
        name = str(value) if value not in (None, "") else f"{fallback}-{number}"
        while name in names:
            name = f"{name}#{number}"
        names[name] = None
    return list(names)
