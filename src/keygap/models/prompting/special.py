"""Text of a sample that spells a special token is encoded as text.

A question may contain ``<|im_end|>`` or ``<image>``. A tokenizer would make the special token of
it, and a processor would take it for an image. So every such spelling in a sample's text is
replaced by one private-use character before the prompt is rendered. The tokenizer restores the
spelling (see ``marks``) and encodes it without matching special tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from transformers import PreTrainedTokenizerBase, ProcessorMixin

from keygap.benchmarks.sample import BadSample

_FIRST = 0xF0000  # the supplementary private-use area: 65,534 characters
_MOST = 0xFFFD


@dataclass(frozen=True)
class Specials:
    """Spellings of special tokens, and the characters that replace them in a sample's text.

    Attributes:
        spellings: no spelling is empty or white space.
    """

    spellings: tuple[str, ...] = ()

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.spellings, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @cached_property
    def _character(self) -> dict[str, str]:
        return {text: chr(_FIRST + number) for number, text in enumerate(self.spellings)}

    @cached_property
    def _spelled(self) -> dict[str, str]:
        return {character: text for text, character in self._character.items()}

    @cached_property
    def _any(self) -> re.Pattern[str]:
        last = chr(_FIRST + max(len(self.spellings) - 1, 0))
        return re.compile(f"[{chr(_FIRST)}-{last}]")

    def replaced(self, text: str) -> str:
        """A sample's text with one character in place of each spelling.

        Raises:
            BadSample: the text has such a character itself.
        """
        if self._any.search(text):
            raise BadSample("the text has private-use characters that keygap uses itself")
        return self._pattern.sub(lambda found: self._character[found.group()], text)

    def are_in(self, text: str) -> bool:
        """Whether a text has characters that replace spellings."""
        return bool(self._any.search(text))

    def restored(self, text: str) -> tuple[str, Sequence[int], list[tuple[int, int]]]:
        """A text with its spellings restored.

        Returns:
            The text; where each character of the given text starts in it, and its length as the
            last value; and the spans of the restored spellings.
        """
        if not self._any.search(text):
            return text, range(len(text) + 1), []
        pieces = [self._spelled.get(character, character) for character in text]
        starts = [0, *accumulate(map(len, pieces))]
        spans = [
            (starts[number], starts[number + 1])
            for number, character in enumerate(text)
            if character in self._spelled
        ]
        return "".join(pieces), starts, spans


def specials_of(processor: ProcessorMixin, template: str, further: Iterable[str]) -> Specials:
    """The spellings that a processor and its tokenizers do not read as text.

    These are the special tokens, further added tokens that the chat template writes, and the
    placeholders of the processor.

    Args:
        processor: the model's processor.
        template: the source of the chat template, empty without one.
        further: further placeholders.
    """
    found = list(further)
    for name, value in vars(processor).items():
        if isinstance(value, PreTrainedTokenizerBase):
            found += value.all_special_tokens
            found += [
                token.content
                for token in value.added_tokens_decoder.values()
                if token.special or token.content in template
            ]
        elif name.endswith("_token"):
            found.append(str(value or ""))
    kept = [text for text in dict.fromkeys(found) if text.strip()]
    return Specials(tuple(kept[:_MOST]))


def as_text(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    row: dict[str, list],
    spans: Sequence[tuple[int, int]],
    special: frozenset[int],
) -> dict[str, list]:
    """One tokenized text, with special tokens inside some spans encoded as text.

    Args:
        tokenizer: the tokenizer that made the tokens.
        text: the tokenized text.
        row: values per token, ``input_ids`` and ``offset_mapping`` among them, without padding.
        spans: where the text is a sample's own spelling of a special token.
        special: ids of special tokens.

    Returns:
        The same keys as ``row``; a token that is replaced by several gives each of them its
        values.
    """
    ids: list[int] = []
    repeats: list[int] = []
    for token, (start, stop) in zip(row["input_ids"], row["offset_mapping"], strict=True):
        inside = any(start < end and begin < stop for begin, end in spans)
        own = [token]
        if inside and token in special:
            own = tokenizer(text[start:stop], add_special_tokens=False, split_special_tokens=True)[
                "input_ids"
            ]
        ids += own
        repeats.append(len(own))
    return {
        name: ids
        if name == "input_ids"
        else [value for value, times in zip(values, repeats, strict=True) for _ in range(times)]
        for name, values in row.items()
    }
