"""The types that a benchmark hands out: samples, pieces of their prompts, and index entries.

A benchmark lists its items in an index of light entries (id, subject, image key) and opens images
only when one item is asked for. Memory therefore does not grow with the benchmark, and samples are
chosen before any image is opened.
"""

from __future__ import annotations

import string
import struct
import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from PIL import Image, ImageOps

from keygap.errors import UserError, unknown

LETTERS = tuple(string.ascii_uppercase)
# Of the images of one sample together: a photograph of 8,000 x 6,000 pixels is read. Decoding and
# processing take up to 25 bytes a pixel, and the images of a batch are in memory at once.
MOST_PIXELS = 50_000_000
MOST_ASPECT = 200  # longer by shorter side: processors scale the shorter one to hundreds of pixels
Role = Literal["system", "template", "question", "option", "hint", "caption", "answer"]


@dataclass(frozen=True)
class Piece:
    """One piece of a prompt: text with a role, an image, or a video.

    Attributes:
        kind: what the piece is.
        role: role of the text; of an image, the role of the text that shows it.
        text: the text; empty for an image or a video.
        image: for an image, its index in ``Sample.images``; for a video, in ``Sample.videos``.
    """

    kind: Literal["text", "image", "video"]
    role: Role = "question"
    text: str = ""
    image: int = 0


@dataclass(frozen=True)
class Sample:
    """One benchmark item.

    Attributes:
        id: unique within the benchmark.
        images: opened, but possibly not decoded yet, because PIL reads pixels lazily. A broken
            image fails where it is used and is then recorded as the failure of its sample.
        question: text of the question.
        prompt: the user's turn in the benchmark's own template. It may show an image several
            times. Each option has a piece of role option that spells it with its letter.
        answer: a letter where there are options, otherwise text; None if it is not published.
        options: texts of the options; empty for an open question.
        hint: additional text that the benchmark gives before the question.
        language: code of the question's language.
        subject: group within the benchmark; samples are chosen in proportion to these.
        meta: further columns of the publisher.
        videos: each as the frames that are shown.
        option_letters: letters of the options where they are not A, B, C, ...
        caption: text that says what the images show. It is not part of ``prompt``; see
            ``SampleSet.with_captions``.
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
    videos: tuple[tuple[Image.Image, ...], ...] = ()
    option_letters: tuple[str, ...] = ()
    caption: str | None = None

    def __post_init__(self) -> None:
        """Refuse what neither files nor models accept, before any image is decoded.

        Raises:
            BadSample: a text has an unpaired surrogate, the answer is not the letter of an option,
                or the images are too large or too narrow (``check_sizes``).
            UserError: the prompt has an unknown role, or something else is given as an image.
        """
        self._refuse_mistakes()
        check_sizes([image.size for image in self.images])
        for frames in self.videos:
            check_sizes([frame.size for frame in frames])
        texts = (
            self.question,
            self.answer or "",
            self.caption or "",
            *(piece.text for piece in self.prompt),
        )
        try:
            "".join(texts).encode()
        except UnicodeEncodeError as error:
            raise BadSample(f"the text is not Unicode: {error}") from error

        if self.options:
            check_letter(self.answer, self.letters)

    def _refuse_mistakes(self) -> None:
        """Refuse what no file makes, but the code of a benchmark may."""
        for piece in self.prompt:
            if piece.role not in get_args(Role):
                raise unknown("role", piece.role, get_args(Role), f"in the prompt of {self.id}")
        for image in (*self.images, *(frame for frames in self.videos for frame in frames)):
            if not isinstance(image, Image.Image):
                raise UserError(
                    f"sample {self.id}: an image is a {type(image).__name__}, and PIL.Image.Image "
                    "is needed"
                )

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters of the options, in their order."""
        return self.option_letters or LETTERS[: len(self.options)]


@dataclass(frozen=True, slots=True)
class Entry:
    """What the index of a benchmark says about one item.

    Attributes:
        id: unique within the benchmark.
        subject: as in ``Sample``.
        image_key: shared by all items that show the same image; empty where none do.
        question_key: shared by the rows of one question in circular evaluation; empty where each
            question has one row.
    """

    id: str
    subject: str = ""
    image_key: str = ""
    question_key: str = ""


# What Pillow's decoders raise on broken bytes.
BROKEN = (
    *(OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error),
    *(LookupError, TypeError, AttributeError, ArithmeticError, MemoryError),
)


class BadSample(ValueError):
    """An item that cannot be used. It is recorded with the reason, and the run goes on."""


def check_letter(answer: str | None, letters: Sequence[str]) -> None:
    """Check that an answer, if it is published, is the letter of an option.

    Raises:
        BadSample: it is not.
    """
    if answer is not None and answer not in letters:
        raise BadSample(f"the answer {answer!r} is not among the options {', '.join(letters)}")


def check_sizes(sizes: Sequence[tuple[int, int]]) -> None:
    """Check the sizes of the images of one sample.

    Args:
        sizes: width and height of each.

    Raises:
        BadSample: an image has no pixels or is more than ``MOST_ASPECT`` times longer than it is
            wide, or all together have more than ``MOST_PIXELS``.
    """
    pixels = 0
    for width, height in sizes:
        if not min(width, height):
            raise BadSample(f"the image has no pixels: {width} x {height}")
        if max(width, height) > MOST_ASPECT * min(width, height):
            raise BadSample(
                f"the image is too narrow: {width:,} x {height:,} pixels, and one side may be at "
                f"most {MOST_ASPECT} times the other"
            )
        pixels += width * height
        if pixels > MOST_PIXELS:
            more = "the image is" if len(sizes) == 1 else "the images together are"
            raise BadSample(
                f"{more} too large: {pixels:,} pixels, and a sample may have {MOST_PIXELS:,}; "
                "scale them down"
            )


def as_rgb(image: Image.Image) -> Image.Image:
    """Decode an image of any mode to RGB, upright, with transparency rendered on white.

    A camera stores how it was held in EXIF, and viewers turn the picture accordingly.

    Args:
        image: of any mode; it is decoded in place.

    Returns:
        The image in mode RGB.

    Raises:
        BadSample: the image is truncated or broken, or its mode cannot be converted, such as that
            of grey values of 32 bits, which have no known range.
    """
    try:
        with warnings.catch_warnings():  # of broken EXIF data, which are ignored
            warnings.simplefilter("ignore")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)  # a large image is not copied
        # Grey of 16 bits, which convert() would clip, not scale. Pillow scales that of a PGM file
        # to 16 bits and stores it in 32.
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
            image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
        if image.mode in ("I", "F"):
            raise BadSample(
                f"the image has grey values of 32 bits (mode {image.mode}), which have no known "
                "range: save it with 8 bits"
            )
        if not image.has_transparency_data:
            return image if image.mode == "RGB" else image.convert("RGB")
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(page, layer).convert("RGB")
    except BadSample:
        raise
    except BROKEN as error:
        raise BadSample(f"the image cannot be decoded: {error}") from error


def image_then_question(question: str, images: int = 1) -> tuple[Piece, ...]:
    """The plain prompt: all images, then the question.

    Args:
        question: text of the question.
        images: number of images of the sample.

    Returns:
        The pieces of the prompt.
    """
    shown = (Piece("image", image=number) for number in range(images))
    return (*shown, Piece("text", text=question))


def with_caption(sample: Sample) -> Sample:
    """Return the sample with its caption in the prompt, on a line after the last image.

    The caption is a piece of role ``caption``, and the line break one of role ``template``.

    Raises:
        BadSample: the sample has no caption.
    """
    if not sample.caption:
        raise BadSample("no caption")
    shown = [place for place, piece in enumerate(sample.prompt, 1) if piece.kind != "text"]
    after = max(shown, default=0)
    words = (Piece("text", "caption", sample.caption), Piece("text", "template", "\n"))
    return replace(sample, prompt=(*sample.prompt[:after], *words, *sample.prompt[after:]))


def unique_ids(prefix: str, ids: Iterable[object]) -> list[str]:
    """Turn the publisher's ids into unique strings.

    Args:
        prefix: used with the row number for a row that has no id.
        ids: one for each row; a repeated id gets its row number appended.
    """
    names: dict[str, None] = {}
    for number, value in enumerate(ids):
        name = str(value) if value not in (None, "") else f"{prefix}-{number}"
        while name in names:
            name = f"{name}#{number}"
        names[name] = None
    return list(names)
