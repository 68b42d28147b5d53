"""Marks in a prompt's text that survive the chat template and the processor.

The role of every token must be exact for every template, so roles are not searched for in the
rendered prompt. Each text piece and each image placeholder is enclosed in marks, which are
characters of the private-use area. The processor expands a placeholder between its marks.
``MarkedTokenizer`` replaces the processor's tokenizer: it removes the marks before it tokenizes,
and reads the role and the image of every token from the positions that the marks had. The model
gets the ids that it would get without marks.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from keygap.benchmarks.sample import BadSample
from keygap.errors import UserError
from keygap.tokens import ROLES

_FIRST_MARK = 0xF8E0  # private use: in no tokenizer's vocabulary and in no template
_OPEN = {chr(_FIRST_MARK + number): role for number, role in enumerate(ROLES)}
_MARK = {role: mark for mark, role in _OPEN.items()}
CLOSE = chr(_FIRST_MARK + len(ROLES))
IMAGE_OPEN = chr(_FIRST_MARK + len(ROLES) + 1)
IMAGE_CLOSE = chr(_FIRST_MARK + len(ROLES) + 2)
MARKS = {*_OPEN, CLOSE, IMAGE_OPEN, IMAGE_CLOSE}
_DELETE = {ord(mark): None for mark in MARKS}

# A fast tokenizer keeps its padding and truncation settings in shared state during a call.
_TOKENIZING = threading.Lock()


def marked(text: str, role: str, around_space: bool = True) -> str:
    """A text enclosed in the marks of its role.

    Args:
        text: the text of one piece.
        role: its role.
        around_space: whether leading and trailing white space is enclosed too.

    Raises:
        BadSample: the text contains a mark character.
    """
    if not MARKS.isdisjoint(text):
        raise BadSample("the text has private-use characters that keygap marks roles with")
    if around_space or not text.strip():
        return f"{_MARK[role]}{text}{CLOSE}"
    start, stop = len(text) - len(text.lstrip()), len(text.rstrip())
    return f"{text[:start]}{_MARK[role]}{text[start:stop]}{CLOSE}{text[stop:]}"


def with_image_marks(text: str, placeholders: Sequence[str]) -> str:
    """A text with every placeholder of an image or a video enclosed in image marks."""
    for placeholder in filter(None, placeholders):
        text = text.replace(placeholder, f"{IMAGE_OPEN}{placeholder}{IMAGE_CLOSE}")
    return text


def without_marks(text: str) -> str:
    """A text with all marks removed."""
    return text.translate(_DELETE)


def marked_pieces(text: str) -> int:
    """The number of marked pieces in a text."""
    return text.count(CLOSE)


def _read_marks(text: str) -> tuple[str, list[str], list[int]]:
    """The text without marks, and the role and the image (-1: none) of each character."""
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
    """One tokenized text, without padding: its ids, and each id's role and image (-1: none)."""

    ids: np.ndarray
    roles: np.ndarray
    images: np.ndarray


_RECORD: ContextVar[list[Marked] | None] = ContextVar("keygap_marked_texts", default=None)


@contextmanager
def recorded() -> Iterator[list[Marked]]:
    """Collect what every ``MarkedTokenizer`` tokenizes in this context, in order of the calls.

    The list belongs to the current thread (or asyncio task), so calls in other threads are not in
    it.

    Yields:
        A list that grows with every tokenized text.
    """
    texts: list[Marked] = []
    token = _RECORD.set(texts)
    try:
        yield texts
    finally:
        _RECORD.reset(token)


class MarkedTokenizer:
    """A tokenizer that removes marks from its texts and reports each token's role and image.

    It pads on the right, so that a token has the same position alone and in a batch. The tokenizer
    that it wraps is not changed. Reports go to the enclosing ``recorded()`` block; without one
    they are dropped.

    Raises:
        UserError: the tokenizer does not report which characters a token covers.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise UserError(
                f"{type(tokenizer).__name__} cannot tell which characters a token covers (it is "
                "not a fast tokenizer), so text cannot be labelled"
            )
        self._tokenizer = copy.copy(tokenizer)
        self._tokenizer.padding_side = "right"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_tokenizer":  # not set yet while it is copied
            raise AttributeError(name)
        return getattr(self._tokenizer, name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, text: str | list[str], *args: Any, **kwargs: Any) -> Any:
        """Tokenize as the wrapped tokenizer does, without the marks."""
        single = isinstance(text, str)
        read = [_read_marks(item) for item in ([text] if isinstance(text, str) else text)]
        clean = [item[0] for item in read]
        keep_offsets = kwargs.pop("return_offsets_mapping", False)
        kwargs["padding_side"] = "right"  # the processor may ask for the left
        with _TOKENIZING:
            encoded = self._tokenizer(
                clean[0] if single else clean, *args, return_offsets_mapping=True, **kwargs
            )
        offsets = encoded["offset_mapping"] if keep_offsets else encoded.pop("offset_mapping")
        record = _RECORD.get()
        if record is not None:
            unbatched = single and not _is_nested(offsets)
            rows = [offsets, encoded["input_ids"], encoded.get("attention_mask", None)]
            record += _labelled(read, *([row] if unbatched else row for row in rows))
        return encoded

    def encode(self, text: str, *args: Any, **kwargs: Any) -> Any:
        """The ids of one text, without the marks."""
        return list(self(text, *args, **kwargs)["input_ids"])


def with_marked_tokenizers(processor: ProcessorMixin) -> ProcessorMixin:
    """A copy of a processor whose tokenizers (a Q-Former may have its own) read marks."""
    wrapped = copy.copy(processor)
    for name, part in vars(processor).items():
        if isinstance(part, PreTrainedTokenizerBase):
            setattr(wrapped, name, MarkedTokenizer(part))
    return wrapped


def _labelled(
    read: Sequence[tuple[str, list[str], list[int]]], offsets: Any, ids: Any, masks: Any
) -> list[Marked]:
    """Roles and images of the tokens of each text, padding left out."""
    found = []
    for number, (_, roles, images) in enumerate(read):
        row = np.asarray(ids[number], dtype=np.int64)
        mask = None if masks is None else masks[number]
        kept = np.ones(len(row), bool) if mask is None else np.asarray(mask).astype(bool)
        spans = np.asarray(offsets[number], dtype=np.int64).reshape(-1, 2)[kept]
        found.append(
            Marked(
                row[kept],
                np.asarray([_majority(roles[start:stop], "template") for start, stop in spans]),
                np.asarray([_majority(images[start:stop], -1) for start, stop in spans]),
            )
        )
    return found


def _is_nested(offsets: Any) -> bool:
    """Whether offsets are those of a batch of texts."""
    return getattr(offsets, "ndim", 0) == 3 or (
        len(offsets) > 0 and len(offsets[0]) > 0 and hasattr(offsets[0][0], "__len__")
    )


def _majority(covered: list[Any], default: Any) -> Any:
    """The most frequent value of a token's characters, the earliest of equally frequent ones."""
    return max(covered, key=covered.count) if covered else default


def aligned(
    ids: np.ndarray, texts: Sequence[Marked], ignore: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Roles and images of a prompt's ids, from the texts that were tokenized for it.

    A processor may tokenize a prompt in several texts and put further ids between them: the longest
    text is placed first, and ids that no text covers get the role template. At image positions the
    processor may write ids that differ from the tokenized ones.

    Args:
        ids: (t,) ids of the prompt.
        texts: the tokenized texts.
        ignore: (t,) image positions, whose ids need not agree.

    Returns:
        Roles and images, each of shape (t,).
    """
    roles = np.full(len(ids), "template", dtype=object)
    images = np.full(len(ids), -1)
    free = np.ones(len(ids), dtype=bool)
    for text in sorted(texts, key=lambda text: -len(text.ids)):
        here = _place_of(text.ids, ids, ignore, free)
        if here is not None:
            roles[here], images[here], free[here] = text.roles, text.images, False
    return roles, images


def _place_of(
    text: np.ndarray, ids: np.ndarray, ignore: np.ndarray, free: np.ndarray
) -> slice | None:
    """The first free place in a prompt's ids where a text's ids fit, exactly if possible."""
    size = len(text)
    places = [slice(at, at + size) for at in range(len(ids) - size + 1 if size else 0)]
    places = [here for here in places if free[here].all()]
    for here in places:
        if np.array_equal(ids[here], text):
            return here
    for here in places:
        if ((ids[here] == text) | ignore[here]).all() and not ignore[here].all():
            return here
    return None
