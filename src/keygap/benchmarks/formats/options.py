"""Options of multiple-choice questions: read from hostile text, checked, and spelled out.

Dataset text is data. A stringified list goes through a literal parser and must be a list of
strings; anything else is a bad sample with its reason, never a guess.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence

from keygap.benchmarks.sample import LETTERS, BadSample

LONGEST_LIST = 100_000  # characters; the longest real one has about 2,000


def parse_options(text: object) -> tuple[str, ...]:
    """The strings of a stringified Python list, as MMMU writes its options.

    Raises:
        BadSample: not a string, or not the literal of a list of strings.
    """
    if not isinstance(text, str):
        raise BadSample(f"the options are not a stringified list but {type(text).__name__}")
    if len(text) > LONGEST_LIST:
        raise BadSample(f"the options are {len(text):,} characters long")
    try:
        with warnings.catch_warnings():
            # LaTeX inside the quotes: an unknown escape like \( keeps its backslash, as it should
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            options = ast.literal_eval(text)
    # the last two: deep nesting exhausts the parser's stack
    # (the error's own words are left out: some name an address, and a reason must not change)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise BadSample(f"the options {text[:60]!r} are not a list of literal strings") from error
    return option_texts(options)


def option_texts(options: object) -> tuple[str, ...]:
    """A list of strings as options.

    Raises:
        BadSample: not a list, or something in it is not a string.
    """
    if not isinstance(options, list):
        raise BadSample(f"the options are not a list but {type(options).__name__}")
    for option in options:
        if not isinstance(option, str):
            raise BadSample(f"an option is not text but {type(option).__name__}")
    return tuple(options)


def lettered(options: Sequence[str]) -> tuple[str, ...]:
    """The letters of these options.

    Raises:
        BadSample: more options than letters.
    """
    if len(options) > len(LETTERS):
        raise BadSample(f"a multiple-choice question of {len(options)} options")
    return LETTERS[: len(options)]


def required_question(text: object) -> str:
    """A question's text.

    Raises:
        BadSample: there is none.
    """
    question = text_of(text)
    if not question:
        raise BadSample("no question text")
    return question


def checked_answer(answer: object, letters: Sequence[str]) -> str | None:
    """The answer's letter, or None where the publisher keeps it (empty, or a question mark).

    Raises:
        BadSample: fewer than two options, or an answer that is none of them.
    """
    if len(letters) < 2:
        raise BadSample(f"a multiple-choice question of {len(letters)} options")
    text = open_answer(answer)
    if text is not None and text not in letters:
        raise BadSample(f"the answer {text!r} is not among the options {', '.join(letters)}")
    return text


def open_answer(answer: object) -> str | None:
    """An answer as text, or None where the publisher keeps it (empty, or a question mark)."""
    text = text_of(answer)
    return None if text in ("", "?") else text


def text_of(value: object) -> str:
    """A cell's text without outer blanks; empty for what tables write where nothing is.

    pandas and the publishers' converters write NaN, or its name, into empty cells.
    """
    if value is None or value != value:
        return ""
    text = str(value).strip()
    return "" if text.lower() == "nan" else text


def option_lines(options: Sequence[str], letters: Sequence[str], form: str) -> list[str]:
    """Each option with its letter on its own line, by a form like ``"({}) {}"``."""
    return [form.format(letter, text) + "\n" for letter, text in zip(letters, options, strict=True)]
