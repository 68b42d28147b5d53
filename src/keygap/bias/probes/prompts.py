"""Changes of a sample that several probes make: text added to its prompt, other images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from PIL import Image

from keygap.arguments import distinct
from keygap.benchmarks import Piece, Sample
from keygap.benchmarks.sample import Role, as_rgb
from keygap.bias.condition import Unfit
from keygap.errors import UserError, unknown

Position = Literal["before", "after"]
POSITIONS = ("before", "after")
SEPARATORS = {"space": " ", "newline": "\n"}
HINTS = (
    "Hint: the answer is {answer}.",
    "The correct answer is {answer}.",
    "I think that the answer is {answer}.",
    "According to a reliable source, the answer is {answer}.",
)
TWO_HINTS = HINTS[:2]  # where every intervention is asked


def with_text(
    sample: Sample, text: str, position: Position, separator: str, role: Role = "hint"
) -> Sample:
    """The sample with a text before its question or at the end of its prompt.

    Args:
        sample: the sample.
        text: what to add.
        position: ``before`` the first piece of the question, or ``after`` the whole prompt.
        separator: what to write between the text and the prompt.
        role: the role of the added tokens.
    """
    pieces = list(sample.prompt)
    place = len(pieces)
    if position == "before":
        texts = [number for number, piece in enumerate(pieces) if piece.kind == "text"]
        questions = [number for number in texts if pieces[number].role == "question"]
        place = (questions or texts)[0]
    before = position == "before"
    added = Piece("text", role, text + separator if before else separator + text)
    return replace(sample, prompt=(*pieces[:place], added, *pieces[place:]))


def with_images(sample: Sample, images: Sequence[Image.Image]) -> Sample:
    """The sample with other images in place of its own."""
    return replace(sample, images=tuple(images))


def decoded_images(sample: Sample) -> list[Image.Image]:
    """The images of a sample in RGB.

    Raises:
        Unfit: the sample shows a video, whose frames no condition replaces.
        BadSample: an image cannot be decoded.
    """
    if sample.videos:
        raise Unfit("no condition replaces a video")
    return [as_rgb(image) for image in sample.images]


def checked_phrasings(phrasings: Sequence[str]) -> list[str]:
    """Check texts that name an answer.

    Raises:
        UserError: there is none, one is no text, one occurs twice, or one does not contain
            ``{answer}`` once.
    """
    found = distinct(phrasings, "phrasings", HINTS[0])
    for text in found:
        if not isinstance(text, str):
            raise UserError(f"the phrasing {text!r} must be text")
        if text.count("{answer}") != 1:
            raise UserError(f"the phrasing {text!r} must contain {{answer}} once")
    return found


def checked_names(given: Sequence[str], known: Sequence[str], what: str) -> list[str]:
    """Check a list of names.

    Args:
        given: the names.
        known: those that exist.
        what: what they name, in the plural.

    Raises:
        UserError: there is none, one is unknown, or one occurs twice.
    """
    found = distinct(given, what, known[0])
    for name in found:
        if name not in known:
            raise unknown(what.removesuffix("s"), name, known)
    return found
