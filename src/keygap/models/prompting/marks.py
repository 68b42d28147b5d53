"""Marks in a prompt's text that survive the chat template and the processor, and no tokenizer.

Roles must be exact for every template, so they are not searched for: each text part stands between
characters of the private-use area, and so does each image placeholder, which the processor then
expands between its marks. A stand-in for the tokenizer takes the marks out of the text that the
processor hands to it and remembers where they stood; character offsets then tell each token's role
and image. The model sees the ids that it would see without marks.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from keygap.benchmarks.sample import BadSample
from keygap.errors import UserError
from keygap.tokens import ROLES

_FIRST_MARK = 0xF8E0  # private use: no tokenizer vocabulary and no template knows these
_OPEN = {chr(_FIRST_MARK + number): role for number, role in enumerate(ROLES)}
_MARK = {role: mark for mark, role in _OPEN.items()}
CLOSE = chr(_FIRST_MARK + len(ROLES))
IMAGE_OPEN = chr(_FIRST_MARK + len(ROLES) + 1)
IMAGE_CLOSE = chr(_FIRST_MARK + len(ROLES) + 2)
MARKS = {*_OPEN, CLOSE, IMAGE_OPEN, IMAGE_CLOSE}
_DELETE = {ord(mark): None for mark in MARKS}


def marked(text: str, role: str, around_space: bool = True) -> str:
    """Text between the marks of its role; ``around_space`` False leaves outer space outside.

    Raises:
        BadSample: the text has a mark itself.
    """
    if not MARKS.isdisjoint(text):
        raise BadSample("the text has private-use characters that keygap marks roles with")
    if around_space or not text.strip():
        return f"{_MARK[role]}{text}{CLOSE}"
    start, stop = len(text) - len(text.lstrip()), len(text.rstrip())
    return f"{text[:start]}{_MARK[role]}{text[start:stop]}{CLOSE}{text[stop:]}"


def with_image_marks(text: str, placeholders: Sequence[str]) -> str:
    """Every placeholder of an image or a video between image marks."""
    for placeholder in filter(None, placeholders):
        text = text.replace(placeholder, f"{IMAGE_OPEN}{placeholder}{IMAGE_CLOSE}")
    return text


def without_marks(text: str) -> str:
    return text.translate(_DELETE)


def text_parts(text: str) -> int:
    """How many marked text parts a text has."""
    return text.count(CLOSE)


def _read_marks(text: str) -> tuple[str, list[str], list[int]]:
    """The text without marks, and the role and image (or -1) of each of its characters."""
    if MARKS.isdisjoint(text):
        return text, ["template"] * len(text), [-1] * len(text)
    clean: list[str] = []
    roles: list[str] = []
    images: list[int] = []
    role, image, seen = "template", -1, -1
    for character in text:
        if character in _OPEN:
            role = _OPEN[character]
        elif character == CLOSE:
            role = "template"
        elif character == IMAGE_OPEN:
            seen += 1
            image = seen
        elif character == IMAGE_CLOSE:
            image = -1
        else:
            clean.append(character)
            roles.append(role)
            images.append(image)
    return "".join(clean), roles, images


@dataclass(frozen=True)
class Marked:
    """One tokenized text: its ids, and each id's role and image (-1: none)."""

    ids: np.ndarray
    roles: np.ndarray
    images: np.ndarray


class MarkedTokenizer:
    """A tokenizer that takes marks out of its text and keeps what they said, per token.

    Padding belongs on the right: then a position means the same alone and in a batch. The caller's
    own tokenizer stays as it was.

    Raises:
        UserError: a tokenizer that cannot say which characters a token covers.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise UserError(
                f"{type(tokenizer).__name__} cannot tell which characters a token covers (it is "
                "not a fast tokenizer), so text cannot be labelled"
            )
        self._tokenizer = copy.copy(tokenizer)
        self._tokenizer.padding_side = "right"
        self.calls: list[Marked] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_tokenizer":  # while being copied
            raise AttributeError(name)
        return getattr(self._tokenizer, name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, text: str | list[str], *args: Any, **kwargs: Any) -> Any:
        texts = [text] if isinstance(text, str) else list(text)
        read = [_read_marks(item) for item in texts]
        clean = [item[0] for item in read]
        wanted = kwargs.pop("return_offsets_mapping", False)
        argument = clean[0] if isinstance(text, str) else clean
        kwargs["padding_side"] = "right"  # whatever side the processor is used to
        encoded = self._tokenizer(argument, *args, return_offsets_mapping=True, **kwargs)
        offsets = encoded["offset_mapping"] if wanted else encoded.pop("offset_mapping")
        rows, ids = offsets, encoded["input_ids"]
        masks = encoded.get("attention_mask", None)
        if isinstance(text, str) and not _is_nested(offsets):
            rows, ids, masks = [rows], [ids], None if masks is None else [masks]
        for number, (_, roles, images) in enumerate(read):
            kept = np.ones(len(ids[number]), bool) if masks is None else np.asarray(masks[number])
            row_ids = np.asarray(ids[number], dtype=np.int64)[kept.astype(bool)]
            spans = [
                (int(start), int(stop))
                for (start, stop), keep in zip(rows[number], kept, strict=True)
                if keep
            ]
            self.calls.append(
                Marked(
                    row_ids,
                    np.asarray([_majority(span, roles, "template") for span in spans]),
                    np.asarray([_majority(span, images, -1) for span in spans]),
                )
            )
        return encoded

    def encode(self, text: str, *args: Any, **kwargs: Any) -> Any:
        return list(self(text, *args, **kwargs)["input_ids"])


def _is_nested(offsets: Any) -> bool:
    return getattr(offsets, "ndim", 0) == 3 or (
        len(offsets) > 0 and len(offsets[0]) > 0 and hasattr(offsets[0][0], "__len__")
    )


def _majority(span: tuple[int, int], values: list[Any], default: Any) -> Any:
    """What most of a token's characters are; the earlier one where they are level."""
    covered = values[span[0] : span[1]]
    return max(covered, key=covered.count) if covered else default


def aligned(
    ids: np.ndarray, calls: Sequence[Marked], ignore: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Roles and images of a prompt's ids out of what the tokenizer was asked for.

    A processor may tokenize a prompt in pieces and put ids of its own between them: the longest
    pieces are placed first, and what no piece covers is template. What it writes at image positions
    need not be what it asked for: ``ignore`` says where those are.

    Returns:
        roles and images, each of the length of ``ids``.
    """
    roles = np.full(len(ids), "template", dtype=object)
    images = np.full(len(ids), -1)
    free = np.ones(len(ids), dtype=bool)
    for call in sorted(calls, key=lambda call: -len(call.ids)):
        size = len(call.ids)
        places = [slice(at, at + size) for at in range(len(ids) - size + 1 if size else 0)]
        places = [here for here in places if free[here].all()]
        fitting = [here for here in places if np.array_equal(ids[here], call.ids)] or [
            here
            for here in places
            if ((ids[here] == call.ids) | ignore[here]).all() and not ignore[here].all()
        ]
        if fitting:
            here = fitting[0]
            roles[here], images[here], free[here] = call.roles, call.images, False
    return roles, images
