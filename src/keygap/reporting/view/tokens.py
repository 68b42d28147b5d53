"""The labels of all tokens of a store as columns of small numbers: about 30 bytes a token.

``Store.tokens`` has the same as a table with text, which takes several hundred bytes a token. Here
samples and words are numbers, in the order in which the store first has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int

from keygap.errors import UserError
from keygap.reporting.explorer.words import readable
from keygap.store import Store
from keygap.store.checksums import REPAIR
from keygap.store.reading import read_blocks
from keygap.store.run import TOKENS
from keygap.tokens import MODALITIES, ROLES

BLOCK = 65_536  # rows
NUMBERS: dict[str, type[np.signedinteger]] = {
    "position": np.int32,
    **dict.fromkeys(("image", "frame", "patch_row", "patch_column"), np.int16),
}
LATER = ("image", "frame", "patch_row", "patch_column")  # keygap 0.1 did not have all of them
CODES = {"modality": MODALITIES, "role": ROLES}
NAMES = ("sample_id", "token", *CODES, *NUMBERS)


@dataclass(frozen=True)
class Tokens:
    """Every token of a store, in its order. A token's number is its row.

    Attributes:
        columns: ``sample`` and ``word`` (rows of ``samples`` and ``words``), ``modality`` and
            ``role`` (rows of the lists of ``keygap.tokens``), ``position``, ``image``, ``frame``,
            ``patch_row`` and ``patch_column``, each with one number a token.
        samples: ids of the samples that have tokens.
        words: every spelling of a token, once.
        parts: the first token of each part of the store, by the part's number.
    """

    columns: dict[str, np.ndarray]
    samples: list[str]
    words: list[str]
    parts: dict[int, int]

    def __len__(self) -> int:
        return len(self.columns["sample"])

    @cached_property
    def readable(self) -> list[str]:
        """Each word as people write it."""
        return readable(self.words)

    @cached_property
    def lowered(self) -> list[str]:
        """Each readable word in lower case, for searches."""
        return [word.lower() for word in self.readable]

    @cached_property
    def number_of(self) -> dict[str, int]:
        """The number of each sample."""
        return {name: number for number, name in enumerate(self.samples)}

    @cached_property
    def starts(self) -> Int[np.ndarray, " samples_and_1"]:
        """The first token of each sample, and one past the last of all."""
        return np.searchsorted(self.columns["sample"], np.arange(len(self.samples) + 1))

    def of_sample(self, sample: int) -> range:
        """The tokens of a sample."""
        return range(int(self.starts[sample]), int(self.starts[sample + 1]))

    def part_of(self, token: int) -> int:
        """The number of the part of the store that has a token."""
        numbers, first = list(self.parts), list(self.parts.values())
        return numbers[int(np.searchsorted(first, token, "right")) - 1]

    def in_part(self, number: int) -> range:
        """The tokens of a part of the store."""
        later = [first for first in self.parts.values() if first > self.parts[number]]
        return range(self.parts[number], min(later, default=len(self)))

    def having(self, text: str) -> Bool[np.ndarray, " words"]:
        """Which words contain a text, in upper or lower case."""
        wanted = text.lower()
        return np.fromiter((wanted in word for word in self.lowered), bool, len(self.lowered))

    def sampled(self, text: str) -> Bool[np.ndarray, " samples"]:
        """The ids of which samples contain a text, in upper or lower case."""
        wanted = text.lower()
        found = (wanted in name.lower() for name in self.samples)
        return np.fromiter(found, bool, len(self.samples))


def tokens_of(store: Store) -> Tokens:
    """Read the labels of all tokens, block by block.

    Raises:
        UserError: a file of the store is missing or damaged, or the store has no token.
    """
    samples: dict[str, int] = {}
    words: dict[str, int] = {}
    blocks: dict[str, list[np.ndarray]] = {}
    parts: dict[int, int] = {}
    count = 0
    for number in store.parts(TOKENS):
        parts[number] = count
        for block in read_blocks(store.part(TOKENS, number), REPAIR, NAMES, BLOCK, optional=LATER):
            count += block.num_rows
            numbered = {
                "sample": _numbered(block["sample_id"], samples),
                "word": _numbered(block["token"], words),
                **{name: _coded(block[name], known) for name, known in CODES.items()},
                **{name: _small(block, name) for name in NUMBERS},
            }
            for name, values in numbered.items():
                blocks.setdefault(name, []).append(values)
    if not count:
        raise UserError(f"{store.root} has no tokens: every sample failed")
    columns = {name: np.concatenate(blocks.pop(name)) for name in list(blocks)}
    return Tokens(columns, list(samples), list(words), parts)


def numbers_of(column: pa.Array, known: Mapping[str, int], other: int = -1) -> np.ndarray:
    """The number of each text of a column.

    Args:
        column: of texts.
        known: the numbers of texts.
        other: that of any other text.
    """
    codes, texts = _dictionary(column)
    return np.asarray([known.get(text, other) for text in texts], np.int32)[codes]


def _numbered(column: pa.Array, known: dict[str, int]) -> Int[np.ndarray, " n"]:
    """The numbers of texts in a growing list of all of them."""
    codes, texts = _dictionary(column)
    numbers = [known.setdefault(text, len(known)) for text in texts]
    return np.asarray(numbers, np.int32)[codes]


def _coded(column: pa.Array, known: Sequence[str]) -> Int[np.ndarray, " n"]:
    """Places of texts in a list; the first for those that it does not have."""
    return numbers_of(column, {name: n for n, name in enumerate(known)}, 0).astype(np.uint8)


def _dictionary(column: pa.Array) -> tuple[np.ndarray, list[str]]:
    """Numbers of the texts of a column, and these texts in the order of their appearance."""
    if not isinstance(column, pa.DictionaryArray):
        column = column.dictionary_encode()
    codes = column.indices.fill_null(0).to_numpy(zero_copy_only=False)
    texts = [str(text) for text in column.dictionary.to_pylist()]
    used, first = np.unique(codes, return_index=True)
    order = used[np.argsort(first)]  # a shared dictionary may have texts of other blocks
    place = np.zeros(len(texts), np.int64)
    place[order] = np.arange(len(order))
    return place[codes], [texts[code] for code in order]


def _small(block: pa.RecordBatch, name: str) -> np.ndarray:
    """A column of numbers; those beyond its type become its last one."""
    kind, limits = NUMBERS[name], np.iinfo(NUMBERS[name])
    if name not in block.schema.names:
        return np.full(block.num_rows, -1, kind)
    values = block[name].fill_null(-1).to_numpy(zero_copy_only=False)
    return np.clip(values, limits.min, limits.max).astype(kind)
