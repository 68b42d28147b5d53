"""Text from outside, made safe to show on one line.

Names of models and data, ids, and what other libraries say about them appear in messages, tables
and figures. A line break, an escape code of a terminal or a mark that reverses the direction of
writing would change how such a line reads, and a text of a million characters would bury it.
"""

from __future__ import annotations

import unicodedata

LONGEST = 1000  # characters of one line of a message
# Control characters, invisible ones such as marks of direction, unpaired surrogates, private-use
# and unassigned characters, and line and paragraph separators.
_UNSAFE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_JOINERS = "\u200c\u200d"  # part of the spelling of Persian, of Indic scripts and of emoji


def printable(text: object) -> str:
    r"""The text with line breaks as spaces and other characters that do not print as ``\x1b``."""
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(map(_shown, shown))


def one_line(text: object, longest: int = LONGEST) -> str:
    """The printable text; the middle of one that is longer than ``longest`` is left out."""
    shown = printable(text).strip()
    if len(shown) <= longest:
        return shown
    return f"{shown[: longest * 3 // 4]} [...] {shown[-(longest // 4) :]}"


def first_line(error: BaseException, longest: int = 200) -> str:
    """The first line of what an error says, or its type; shortened as by ``one_line``."""
    return one_line((str(error).strip().splitlines() or [type(error).__name__])[0], longest)


def unprintable(text: str) -> str | None:
    """The first character that cannot be in a name, escaped; None if there is none."""
    return next((ascii(c)[1:-1] for c in text if not _is_safe(c)), None)


def _is_safe(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in _UNSAFE


def _shown(character: str) -> str:
    if character in "\n\r\t" or unicodedata.category(character) == "Zs":
        return " "
    return character if _is_safe(character) else ascii(character)[1:-1]
