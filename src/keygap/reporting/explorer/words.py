"""Tokens as a reader knows them.

A vocabulary spells a leading space, and byte-level ones every byte, with characters of their own.
"""

from __future__ import annotations

from collections.abc import Iterable

BYTE_LEVEL = "ĠĊ"  # space and line feed, as vocabularies of bytes spell them
SPACE = "▁"  # as sentencepiece spells it


def readable(spelled: Iterable[str]) -> list[str]:
    """The text of each token of one vocabulary.

    A token that is part of a character, as in Chinese text, stays as it is spelled.

    Args:
        spelled: tokens as their tokenizer spells them.
    """
    tokens = list(spelled)
    if any(mark in token for token in tokens for mark in BYTE_LEVEL):
        return [_of_bytes(token) for token in tokens]
    return [token.replace(SPACE, " ") for token in tokens]


def _of_bytes(token: str) -> str:
    try:
        return bytes(_BYTES[character] for character in token).decode()
    except (KeyError, UnicodeDecodeError):  # a special token; part of a character
        return token


def _byte_characters() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for.

    GPT-2's table: bytes that print stand for themselves, and the others, in their order, are the
    characters from U+0100.
    """
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {
        chr(0x100 + number): byte for number, byte in enumerate(others)
    }


_BYTES = _byte_characters()
