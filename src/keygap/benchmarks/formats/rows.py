"""Rows that users write as JSON: parsed strictly, and checked before any image is opened.

A key that keygap does not know was meant to say something, and the row would be read without it.
So it makes the whole file an error. Any other fault concerns one row, which is then a bad sample.
"""

from __future__ import annotations

import json
from typing import Any

from keygap.benchmarks.sample import BadSample
from keygap.errors import UserError, unknown
from keygap.text import one_line

KEYS = (
    *("id", "subject", "image", "images", "question", "options", "answer", "hint"),
    *("caption", "language"),
)
LONGEST_ROW = 1 << 24  # bytes
MOST_DIGITS = 100  # of a number


def row_of(data: bytes, place: str) -> dict[str, Any]:
    """Parse and check one row.

    Args:
        data: the JSON text.
        place: where it is, for messages.

    Raises:
        BadSample: it is not the JSON object of a question, or a value has the wrong type.
        UserError: it has a key that is none of ``KEYS``.
    """
    row = _object(data)
    for key in row:
        if key not in KEYS:
            raise UserError(f"{place}: {unknown('key', key, KEYS)}")
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise BadSample("no question text")
    for key in ("subject", "hint", "caption", "language"):
        _refuse_other_types(row, key, str)
    for key in ("id", "answer"):
        _refuse_other_types(row, key, (str, int, float))
    if row.get("image") is not None and row.get("images") is not None:
        raise BadSample("both 'image' and 'images' are given: leave one out")
    return row


def utf8(data: bytes) -> str:
    """Decode a text.

    Raises:
        BadSample: it is longer than ``LONGEST_ROW``, or not UTF-8.
    """
    if len(data) > LONGEST_ROW:
        raise BadSample(f"more than {LONGEST_ROW:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSample(f"not UTF-8: {error}") from error


def _refuse_other_types(row: dict[str, Any], key: str, types: Any) -> None:
    value = row.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, types)):
        raise BadSample(f"{key!r} is not text but {type(value).__name__}")


def _object(data: bytes) -> dict[str, Any]:
    text = utf8(data)
    try:
        value = json.loads(
            text, object_pairs_hook=_pairs, parse_int=_integer, parse_constant=_constant
        )
    # RecursionError: brackets nested deeper than the stack
    except (ValueError, RecursionError) as error:
        raise BadSample(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadSample(f"a JSON object is wanted, not {type(value).__name__}")
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {one_line(key, 60)!r} is there twice")
        found[key] = value
    return found


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")
