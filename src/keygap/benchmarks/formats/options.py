"""Options of multiple-choice questions: parsed from untrusted text, checked, and put into a prompt.

A stringified list goes through a literal parser and must be a list of strings. Anything else is a
bad sample with its reason; nothing is guessed.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence

from keygap.benchmarks.sample import LETTERS, BadSample, Piece, check_letter
from keygap.errors import unknown

LONGEST_LIST = 100_000  # characters; the longest list that is known has about 2,000
LETTER_REQUESTS = {
    "en": "Answer with the option's letter from the given choices directly.",
    "zh": "请直接回答选项字母。",
}


def parse_options(text: object) -> tuple[str, ...]:
    """Parse a stringified Python list of strings, the form of MMMU's options.

    Raises:
        BadSample: the value is not a string, or not the literal of a list of strings.
    """
    if not isinstance(text, str):
        raise BadSample(f"the options are not a stringified list but {type(text).__name__}")
    if len(text) > LONGEST_LIST:
        raise BadSample(f"the options are {len(text):,} characters long")
    try:
        with warnings.catch_warnings():
            # LaTeX in the strings: an unknown escape such as \( keeps its backslash, as it should
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            options = ast.literal_eval(text)
    # The last two occur when deep nesting exhausts the parser's stack. The error's own message is
    # left out: it may contain a memory address, and a reason must be the same in every run.
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise BadSample(f"the options {text[:60]!r} are not a list of literal strings") from error
    return option_texts(options)


def option_texts(options: object) -> tuple[str, ...]:
    """Check that a value is a list of strings.

    Raises:
        BadSample: it is not a list, or one of its items is not a string.
    """
    if not isinstance(options, list):
        raise BadSample(f"the options are not a list but {type(options).__name__}")
    for option in options:
        if not isinstance(option, str):
            raise BadSample(f"an option is not text but {type(option).__name__}")
    return tuple(options)


def lettered(options: Sequence[str]) -> tuple[str, ...]:
    """Return a letter for each option.

    Raises:
        BadSample: there are more options than letters.
    """
    if len(options) > len(LETTERS):
        raise BadSample(f"a multiple-choice question of {len(options)} options")
    return LETTERS[: len(options)]


def required_question(text: object) -> str:
    """Return a question's text.

    Raises:
        BadSample: it is empty, or not text.
    """
    if isinstance(text, (list, dict, bytes)):
        raise BadSample(f"the question is not text but {type(text).__name__}")
    question = text_of(text)
    if not question:
        raise BadSample("no question text")
    return question


def checked_answer(answer: object, letters: Sequence[str]) -> str | None:
    """Return the answer's letter, or None if it is not published.

    Raises:
        BadSample: there are fewer than two options, or the answer is none of them.
    """
    if len(letters) < 2:
        raise BadSample(f"a multiple-choice question of {len(letters)} options")
    text = open_answer(answer)
    check_letter(text, letters)
    return text


def open_answer(answer: object) -> str | None:
    """Return an answer's text, or None if it is not published (empty, or a question mark)."""
    text = text_of(answer)
    return None if text in ("", "?") else text


def text_of(value: object) -> str:
    """Return a cell's text without surrounding blanks; empty for None and NaN.

    pandas and the publishers' converters write NaN, or the word nan, into empty cells.
    """
    if value is None or (isinstance(value, float) and value != value):
        return ""
    text = str(value).strip()
    return "" if text.lower() == "nan" else text


def option_lines(options: Sequence[str], letters: Sequence[str], form: str) -> list[str]:
    """Format each option with its letter on a line, in a form such as ``"({}) {}"``."""
    return [form.format(letter, text) + "\n" for letter, text in zip(letters, options, strict=True)]


def hinted_prompt(
    images: int,
    hint: str,
    question: str,
    options: Sequence[str],
    letters: Sequence[str],
    language: str,
) -> tuple[Piece, ...]:
    """Build a prompt of images, a hint, a question, lettered options, and the request for a letter.

    It is the prompt under which LLaVA reports MMBench, and also that of local questions.

    Args:
        images: how many images come first.
        hint: comes before the question; left out if it is empty.
        question: text of the question.
        options: each on its own line, followed by the request for a letter; may be empty.
        letters: one for each option.
        language: of the request for a letter: "en" or "zh".

    Returns:
        The pieces of the prompt, each option as ``"A. text"``.

    Raises:
        UserError: there is no request for a letter in that language.
    """
    if language not in LETTER_REQUESTS:
        raise unknown("language", language, LETTER_REQUESTS)
    pieces = [Piece("image", image=number) for number in range(images)]
    if hint:
        pieces.append(Piece("text", "hint", hint + "\n"))
    pieces.append(Piece("text", "question", question + "\n" if options else question))
    lines = option_lines(options, letters, "{}. {}")
    pieces += [Piece("text", "option", line) for line in lines]
    if options:
        pieces.append(Piece("text", "template", LETTER_REQUESTS[language]))
    return tuple(pieces)
