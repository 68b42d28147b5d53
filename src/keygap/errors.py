"""The one error that a user can mend: what was wrong, where, and what to do, in one line.

The command line prints its message alone and exits with 2. Everything else is a fault of ours and
keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Raised where the input, and not the program, has to change."""


def unknown(kind: str, name: object, known: Iterable[object], hint: str = "") -> UserError:
    """A UserError for a name that is not among the known ones, naming the nearest."""
    names = [str(item) for item in known]
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    tail = f" ({hint})" if hint else ""
    return UserError(f"unknown {kind} {str(name)!r}{guess} known: {', '.join(names)}{tail}")
