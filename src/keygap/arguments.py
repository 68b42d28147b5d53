"""Checks of arguments that the Python API, the command line and experiment files share.

An argument that means nothing (an empty list, a seed that no generator takes, a folder below a
file) is refused before any model is loaded, in one line that names it. Without these checks such
values surface after the work, as an empty table or as an exception of another library.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Hashable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from keygap.errors import UserError
from keygap.text import one_line, unprintable

MOST = 2**31 - 1  # of a count
MOST_RESAMPLINGS = 1_000_000  # permutations or bootstraps: p-values down to one in a million
MOST_SEEDS = 2**32  # what NumPy, PyTorch and scikit-learn all take as a seed
MOST_BYTES = 255  # of one name in a path, the limit of most file systems
LONGEST_NAME = 1000  # characters of the name of a model or a benchmark, which may be a path
# names that Windows gives to devices, whatever the suffix
DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789"),
}
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # one letter is a drive of Windows
Item = TypeVar("Item")


def whole(value: object, what: str, least: int, most: int = MOST) -> int:
    """Check a whole number in a range.

    Args:
        value: an int, or an integer of NumPy; not a bool.
        what: the argument's name.
        least: the least value.
        most: the greatest value.

    Raises:
        UserError: it is no whole number, or outside the range.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise UserError(f"{what} is {_quoted(value)}: a whole number is needed") from None
    if number < least:
        raise UserError(f"{what} is {_number(number)}: at least {least} is needed")
    if number > most:
        raise UserError(f"{what} is {_number(number)}: at most {most:,} is possible")
    return number


def seed_of(value: object) -> int:
    """Check a seed: a whole number of at least 0 and less than 2^32.

    Raises:
        UserError: it is not.
    """
    return whole(value, "seed", 0, MOST_SEEDS - 1)


def real(value: object, what: str, above: float, most: float) -> float:
    """Check a finite number in a range.

    Args:
        value: an int or float, also of NumPy; not a bool.
        what: the argument's name.
        above: the value is greater than this.
        most: the greatest value.

    Raises:
        UserError: it is no number, not finite, or outside the range.
    """
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{what} is {_quoted(value)}: a number is needed") from None
    if not math.isfinite(number) or not above < number <= most:
        raise UserError(
            f"{what} is {number:g}: a number above {above:g}, at most {most:g}, is needed"
        )
    return number


def listed(values: Iterable[Item] | None, what: str, example: str) -> list[Item]:
    """Check a list that is not empty.

    Args:
        values: a list or another iterable; not one text.
        what: the argument's name.
        example: one possible name, which the message shows.

    Raises:
        UserError: it is no list, or it is empty.
    """
    if values is None or isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise UserError(f"{what} is {_quoted(values)}: give a list, such as [{example!r}]")
    found = list(values)
    if not found:
        raise UserError(f"{what} is empty: name at least one, such as {example}")
    return found


def distinct(values: Iterable[Item] | None, what: str, example: str) -> list[Item]:
    """Check a list of names or indices: at least one, and none twice.

    Args:
        values: as in ``listed``.
        what: the argument's name.
        example: one possible name, which the message shows.

    Raises:
        UserError: as ``listed``, or it has an empty or a repeated name.
    """
    found: dict[Item, None] = {}
    for value in listed(values, what, example):
        if isinstance(value, str) and not value.strip():
            raise UserError(f"{what} has an empty name: write one such as {example}")
        if isinstance(value, bool) or not isinstance(value, Hashable):
            raise UserError(f"{what} has {_quoted(value)}: names such as {example} are needed")
        if value in found:
            raise UserError(f"{what} has {_quoted(value)} twice: name each once")
        found[value] = None
    return list(found)


def name_of(value: object, what: str) -> str:
    """Check the name of a model or a benchmark: text on one line that a message can quote.

    Raises:
        UserError: it is not text, is empty, begins or ends with a blank, is longer than
            ``LONGEST_NAME``, or has characters that do not print.
    """
    if not isinstance(value, str):
        raise UserError(f"the {what} is {_quoted(value)}: its name as text is needed")
    if not value.strip():
        raise UserError(f"the {what} is empty: write its name")
    if value != value.strip():
        raise UserError(f"the {what} {value!r} begins or ends with a blank: remove it")
    if bad := unprintable(value):
        raise UserError(f"the {what} {value[:80]!r} has the character {bad}: remove it")
    if len(value) > LONGEST_NAME:
        raise UserError(
            f"the {what} has {len(value):,} characters: at most {LONGEST_NAME} are possible"
        )
    return value


def folder_name_of(value: str, what: str) -> str:
    """Check a name that becomes one folder, on any system.

    Raises:
        UserError: it would leave its parent folder, or a file system does not take it.
    """
    name_of(value, what)
    if value in (".", "..") or any(c in value for c in '/\\:*?"<>|') or value.startswith("~"):
        raise UserError(
            f"the {what} {one_line(value, 80)!r} is not the name of a folder: use letters, digits, "
            "'-', '_' and '.', and say where results go with --out"
        )
    if value.endswith(".") or value.split(".")[0].lower() in DEVICES:
        raise UserError(
            f"the {what} {value!r} is not the name of a folder on Windows: choose another"
        )
    if (size := len(value.encode())) > MOST_BYTES:
        raise UserError(f"the {what} has {size} bytes: at most {MOST_BYTES} are possible")
    return value


def folder_of(value: object, what: str) -> Path:
    """Check a path that a folder has or can be given.

    Args:
        value: a path; an empty text is not one, although ``Path`` takes it for the current folder.
        what: what names it, such as ``"--out"``.

    Raises:
        UserError: it is empty, begins with ``~``, has characters that do not print, is an address
            such as ``s3://bucket/run``, is a file or is below one, is a cycle of links, or has a
            name that is too long.
    """
    if not isinstance(value, (str, Path)):
        raise UserError(f"{what} is {_quoted(value)}: the path of a folder is needed")
    text = str(value)
    if not text.strip():
        raise UserError(f"{what} is empty: name a folder")
    if bad := unprintable(text):
        raise UserError(f"{what} {text[:80]!r} has the character {bad}: name a folder without it")
    if text.startswith("~"):
        raise UserError(f"{what} {text[:80]!r}: keygap does not expand '~', write the whole path")
    if ADDRESS.match(text):  # Path would make folders of it
        raise UserError(
            f"{what} {one_line(text, 200)} is the address of an object store or a site: name a "
            "folder; keygap extract --mirror keeps a copy of one at an address"
        )
    path = Path(text)
    try:
        followed(path)
        nearest = next(place for place in (path, *path.parents, Path()) if place.exists())
    except (OSError, RuntimeError) as error:  # a name that is too long, a cycle of links
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{what} {one_line(text, 200)} cannot be a folder: {reason}") from error
    if path.is_symlink() and not path.exists():
        raise UserError(f"{what} {text} is a link to nothing: name a folder")
    if not nearest.is_dir():
        where = "is a file" if nearest == path else f"is below the file {nearest}"
        raise UserError(f"{what} {text} {where}: name a folder")
    for name in path.parts:
        if (size := len(name.encode())) > MOST_BYTES:
            raise UserError(f"{what} has a name of {size} bytes: at most {MOST_BYTES} are possible")
    return path


def address_of(value: object, what: str) -> str:
    """Check an address such as ``s3://bucket/run``.

    Raises:
        UserError: it is not an address, or has characters that do not print.
    """
    if not isinstance(value, str) or not ADDRESS.match(value):
        raise UserError(f"{what} is {_quoted(value)}: an address such as s3://bucket/run is needed")
    if bad := unprintable(value):
        raise UserError(f"{what} {value[:80]!r} has the character {bad}: name one without it")
    return value


def followed(path: Path) -> Path:
    """Follow the symbolic links of a path, whose end need not exist.

    ``Path.resolve`` says nothing of a cycle of links from Python 3.13 on, unless the path must
    exist.

    Raises:
        OSError: a name is too long, a folder may not be read, or links form a cycle.
        RuntimeError: links form a cycle, before Python 3.13.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        return path.resolve(strict=True)
    return path.resolve()


def _quoted(value: object) -> str:
    return one_line(repr(value), 80)


def _number(value: int) -> str:
    """A whole number; of a very long one, only how long it is, as Python refuses to spell it."""
    return f"{value}" if abs(value) < 10**30 else f"a number of {value.bit_length():,} bits"
