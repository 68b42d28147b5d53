"""How a command prints: a table or JSON on stdout, and everything else on stderr.

Every command has the options of ``Output``. What a command found goes through one call, so that
``--json`` is one object on stdout whatever the command is, and the last line always says what to do
next.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keygap import progress
from keygap.errors import UserError
from keygap.terminal import print_table
from keygap.text import printable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Output:
    """The options that every command has, and what prints its result."""

    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON; all else goes to stderr.")
    ] = False
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print the result, warnings and errors, nothing else."),
    ] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print also what libraries report.")
    ] = False

    def begin(self) -> None:
        """Set how much is logged and whether progress is shown.

        Raises:
            UserError: quiet and verbose at once.
        """
        if self.quiet and self.verbose:
            raise UserError("--quiet and --verbose contradict each other: leave one out")
        progress.silence(self.quiet)
        own = logging.WARNING if self.quiet else logging.DEBUG if self.verbose else logging.INFO
        logging.getLogger("keygap").setLevel(own)
        logging.getLogger().setLevel(logging.INFO if self.verbose else logging.WARNING)

    def result(
        self,
        *lines: object,
        table: pd.DataFrame | None = None,
        notes: Iterable[object] = (),
        rows: pd.DataFrame | Sequence[Mapping[Any, object]] | None = None,
        then: str | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        """Print what a command found.

        Args:
            lines: sentences or paths, printed one a line.
            table: printed before them.
            notes: printed after the table, before the lines.
            rows: the table for machines, with numbers where ``table`` has words; by default the
                same.
            then: the command to call next.
            facts: further values for machines.
        """
        said = [printable(line) for line in lines]
        noted = [printable(note) for note in notes]
        if self.as_json:
            found = table if rows is None else rows
            value = {
                **({} if found is None else {"rows": _records(found)}),
                **({"notes": noted} if noted else {}),
                **({"lines": said} if said else {}),
                **(facts or {}),
                **({} if then is None else {"next": printable(then)}),
            }
            typer.echo(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False))
            return
        if table is not None:
            print_table(table, noted)
        for line in said:
            typer.echo(line)
        if then is not None:
            self.remark(f"next: {then}")

    def line(self, text: object) -> None:
        """Print a line of the result before the rest of it; with ``--json`` it is a fact."""
        if not self.as_json:
            typer.echo(printable(text))

    def remark(self, text: object) -> None:
        """Say something that is no result, on stderr; nothing with ``--quiet``."""
        if not self.quiet:
            typer.echo(printable(text), err=True)


def plain(value: Any) -> Any:
    """A value as JSON knows it: NaN is null, and infinity the text "Infinity"."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "item") and not isinstance(value, float):  # a number of numpy
        return plain(value.item())
    if isinstance(value, float):
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        return None if math.isnan(value) else float(value)
    return None if type(value).__name__ == "NAType" else str(value)


def with_output(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ``Output`` in place of its parameter ``say``."""

    def run(**given: Any) -> None:
        say = Output(**{name: given.pop(name) for name in shared})
        say.begin()
        command(say=say, **given)

    own = inspect.signature(command, eval_str=True).parameters
    shared = inspect.signature(Output, eval_str=True).parameters
    assert list(shared) == [field.name for field in fields(Output)]
    kept = [parameter for name, parameter in own.items() if name != "say"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=keyword) for parameter in (*kept, *shared.values())]
    )
    return run


def quoted(*words: str | Path) -> str:
    """A command line of keygap as one would type it."""
    return shlex.join(["keygap", *map(str, words)])


def options(**given: object) -> list[str]:
    """Options as one would type them, without those that are None."""
    named = [(f"--{name}", str(value)) for name, value in given.items() if value is not None]
    return [word for pair in named for word in pair]


def _records(found: pd.DataFrame | Sequence[Mapping[Any, object]]) -> list[Mapping[Any, object]]:
    if isinstance(found, Sequence):
        return list(found)
    return [dict(row) for row in found.to_dict("records")]
