"""The error for mistakes that the user can fix.

Its message is one line that says what is wrong, where, and what to do. The command line prints the
message alone and exits with status 2. Every other exception is a bug in keygap and keeps its
traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from keygap.text import one_line

MOST_NAMES = 40  # that a message lists; of more, those nearest to what was asked


class UserError(ValueError):
    """The input has to change, not the program."""

    def __str__(self) -> str:
        """The message on one line, whatever names and foreign messages it quotes."""
        return one_line(super().__str__())


class Damaged(UserError):
    """A file of a run is missing, or it is not as it was written."""


class CannotRead(UserError):
    """A file cannot be read now: nothing says whether it is damaged.

    So it is neither removed nor made again.
    """


class CannotWrite(UserError):
    """Nothing can be written where the user wants it: no step may go on without it."""


class NothingToAsk(UserError):
    """No sample of a benchmark can be asked what a step asks; other steps stand without it."""


def unknown(kind: str, name: object, known: Iterable[object], hint: str = "") -> UserError:
    """Make the error for a name that does not exist; it suggests the nearest known name.

    Args:
        kind: what the name is of, such as ``"site"``.
        name: the name that does not exist.
        known: the names that do.
        hint: where the known names apply, appended in parentheses.
    """
    names = [str(item) for item in known]
    asked = one_line(name, 80)
    near = difflib.get_close_matches(asked, names, n=5, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else ";"
    tail = f" ({hint})" if hint else ""
    listed = ", ".join(names)
    if len(names) > MOST_NAMES:
        listed = ", ".join(near or names[:5]) + f" and {len(names) - len(near or names[:5])} others"
    return UserError(f"unknown {kind} {asked!r}{guess} known: {listed}{tail}")
