"""A tokenizer that reads marks: it reports the role and the image of every token.

It replaces the tokenizer inside a copy of the processor. It removes the marks before it tokenizes,
so the model gets the ids that it would get without marks, and reads each token's role and image
from the characters that the token covers.
"""

from __future__ import annotations

import copy
import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizerBase

from keygap.errors import UserError
from keygap.models.prompting.marks import Read, read_marks
from keygap.models.prompting.special import Specials, as_text

# A fast tokenizer keeps its padding and truncation settings in shared state during a call.
TOKENIZING = threading.Lock()


@dataclass(frozen=True)
class _Restored(Read):
    """A text with its spellings of special tokens restored.

    Attributes:
        spelled: start and stop of each of them.
        starts: the start in it of each character of the text before, and its length.
    """

    spelled: tuple[tuple[int, int], ...] = ()
    starts: Sequence[int] = ()

    def place(self, given: int) -> int:
        """Where a character of the text as it was given, with marks, is in this text."""
        return self.starts[given - bisect_left(self.marks, given)]


def _restored(read: Read, specials: Specials) -> _Restored:
    text, starts, spelled = specials.restored(read.text)
    return _Restored(
        text,
        tuple((starts[start], starts[stop], role) for start, stop, role in read.pieces),
        tuple((starts[start], starts[stop]) for start, stop in read.images),
        read.marks,
        tuple(spelled),
        starts,
    )


class _Encoded(BatchEncoding):
    """What a tokenizer returns for texts that had marks or spellings of special tokens."""

    def __init__(
        self, data: dict[str, Any], read: Sequence[_Restored], offsets: Sequence[Any]
    ) -> None:
        super().__init__(data)
        self._read, self._offsets = read, offsets

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int:
        """The token that covers a character of a text as it was given."""
        text, given = (
            (0, batch_or_char_index) if char_index is None else (batch_or_char_index, char_index)
        )
        place = self._read[text].place(given)
        spans: list[tuple[int, int]] = self._offsets[text]
        covering = (n for n, (start, stop) in enumerate(spans) if start <= place < stop)
        found: Any = next(covering, None)
        return found


@dataclass(frozen=True)
class Marked:
    """One tokenized text, without padding.

    Attributes:
        ids: (t,) token ids.
        roles: (t,) the role of each token.
        images: (t,) the image of each token, -1: none.
        special: (t,) tokens that are special and cover text of a piece.
    """

    ids: np.ndarray
    roles: np.ndarray
    images: np.ndarray
    special: np.ndarray


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

    It pads on the right, so that a token has the same position alone and in a batch. Spellings of
    special tokens in a sample's text are encoded as text. The tokenizer that it wraps is not
    changed. Reports go to the enclosing ``recorded()`` block; without one they are dropped.

    Args:
        tokenizer: the tokenizer to wrap.
        specials: spellings of special tokens, and the characters that replace them.
        reports: whether its tokens are reported; those of a Q-Former's tokenizer are not.

    Raises:
        UserError: the tokenizer does not report which characters a token covers.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        specials: Specials | None = None,
        reports: bool = True,
    ) -> None:
        if not tokenizer.is_fast:
            raise UserError(
                f"{type(tokenizer).__name__} cannot tell which characters a token covers (it is "
                "not a fast tokenizer), so text cannot be labelled"
            )
        self._given = tokenizer
        # Encoding sets the padding of a fast tokenizer, which no other thread may read meanwhile.
        self._tokenizer = copy.deepcopy(tokenizer)
        self._tokenizer.padding_side = "right"
        self._specials = specials or Specials()
        self._reports = reports
        known = tokenizer.get_vocab()
        spelled = {known[text] for text in self._specials.spellings if text in known}
        self._special_ids = frozenset(spelled)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_given":  # not set yet while it is copied
            raise AttributeError(name)
        return getattr(self._given, name)

    def __len__(self) -> int:
        return len(self._given)

    def __call__(self, text: str | list[str], *args: Any, **kwargs: Any) -> Any:
        """Tokenize as the wrapped tokenizer does, without the marks."""
        single = isinstance(text, str)
        texts = [text] if isinstance(text, str) else list(text)
        read = [_restored(read_marks(item), self._specials) for item in texts]
        kwargs["padding_side"] = "right"  # the processor may ask for the left
        with TOKENIZING:
            if any(item.spelled for item in read):
                encoded, offsets = self._with_spelled(read, *args, **kwargs)
            else:
                encoded = self._tokenizer([item.text for item in read], *args, **kwargs)
                # the option return_offsets_mapping would make a tensor of them, which is slow
                offsets = [encoding.offsets for encoding in encoded.encodings]
        if any(item.spelled or item.marks for item in read):
            encoded = _Encoded(dict(encoded), read, offsets)
        record = _RECORD.get()
        if record is not None and self._reports:
            mask = encoded.get("attention_mask")
            record += [
                self._labelled(*row, None if mask is None else mask[number])
                for number, row in enumerate(zip(read, encoded["input_ids"], offsets, strict=True))
            ]
        if single and kwargs.get("return_tensors") is None:
            return BatchEncoding({name: values[0] for name, values in encoded.items()})
        return encoded

    def encode(self, text: str, *args: Any, **kwargs: Any) -> Any:
        """The ids of one text, without the marks."""
        return list(self(text, *args, **kwargs)["input_ids"])

    def _with_spelled(
        self, read: Sequence[_Restored], *args: Any, **kwargs: Any
    ) -> tuple[BatchEncoding, list[list[tuple[int, int]]]]:
        """Tokenize texts in which spellings of special tokens are to be encoded as text.

        Returns:
            What the tokenizer returns, and the span of every token.
        """
        padding = {
            name: kwargs.pop(name)
            for name in ("padding", "max_length", "pad_to_multiple_of", "padding_side")
            if name in kwargs
        }
        tensors = kwargs.pop("return_tensors", None)
        kept = kwargs.pop("return_offsets_mapping", False)
        texts = [item.text for item in read]
        encoded = self._tokenizer(texts, *args, return_offsets_mapping=True, **kwargs)
        rows = [
            as_text(
                self._tokenizer,
                item.text,
                {name: values[number] for name, values in encoded.items()},
                item.spelled,
                self._special_ids,
            )
            for number, item in enumerate(read)
        ]
        offsets = [row.pop("offset_mapping") for row in rows]
        padded = self._tokenizer.pad(
            {name: [row[name] for row in rows] for name in rows[0]},
            return_tensors=tensors,
            **{"padding": False, **padding},
        )
        offsets = [
            row + [(0, 0)] * (len(ids) - len(row))
            for row, ids in zip(offsets, padded["input_ids"], strict=True)
        ]
        return BatchEncoding({**padded, **({"offset_mapping": offsets} if kept else {})}), offsets

    def _labelled(self, read: Read, ids: Any, offsets: Any, mask: Any) -> Marked:
        """Roles and images of the tokens of one text, padding left out."""
        row = np.asarray(ids, dtype=np.int64)
        kept = np.ones(len(row), bool) if mask is None else np.asarray(mask).astype(bool)
        spans = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)[kept]
        roles, images = np.asarray(read.roles()), np.asarray(read.image_numbers())
        in_pieces = np.concatenate([[0], np.cumsum(roles != "template")])
        covers = in_pieces[spans[:, 1]] > in_pieces[spans[:, 0]]
        return Marked(
            row[kept],
            _per_token(roles, spans, "template"),
            _per_token(images, spans, -1),
            np.isin(row[kept], list(self._special_ids)) & covers,
        )


def _per_token(values: np.ndarray, spans: np.ndarray, default: Any) -> np.ndarray:
    """The value of each token, from the values of the characters that it covers.

    Args:
        values: (c,) a value for every character.
        spans: (t, 2) start and stop of each token; equal if it covers no character.
        default: the value of tokens that cover none.
    """
    found = np.full(len(spans), default, dtype=object)
    covering = spans[:, 1] > spans[:, 0]
    if covering.any():
        found[covering] = values[spans[covering, 0]]
        changes = np.concatenate([[0], np.cumsum(values[1:] != values[:-1])])
        last = np.maximum(spans[:, 1] - 1, 0)
        first = np.minimum(spans[:, 0], len(values) - 1)
        for token in np.flatnonzero(covering & (changes[first] != changes[last])):
            found[token] = _majority(values[slice(*spans[token])].tolist(), default)
    return found


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
