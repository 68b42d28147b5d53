"""What the command line prints: one line for a mistake, log lines, and tables.

Names and reasons come from files and other libraries. Here nothing in them is taken for markup, an
escape code or a line break.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from keygap.display import shown
from keygap.errors import UserError
from keygap.text import one_line, printable

if TYPE_CHECKING:
    import pandas as pd

# Errors of files that the user can fix: a full disk, a quota, a read-only place, permissions.
REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
WIDTH_OF_A_FILE = 180  # columns of a table that goes to a file or a pipe
LEAST_WIDTH, LONGEST_WORD = 20, 32
# The base class of all mistakes on a command line, which typer itself does not export.
MISTAKE: Any = next(each for each in typer.BadParameter.mro() if each.__name__ == "ClickException")


class Commands(TyperGroup):
    """Commands whose mistakes of usage are a ``UserError``, and so one line like all others."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command; exits with its status.

        Raises:
            UserError: the command line is not valid.
        """
        options |= {"standalone_mode": False, "prog_name": "keygap"}
        try:
            status = super().main(*args, **options)
        except MISTAKE as error:
            context: Any = getattr(error, "ctx", None)
            if type(error).__name__ == "NoArgsIsHelpError":
                typer.echo(context.get_help(), err=True)
                sys.exit(2)
            command = context.command_path if context else "keygap"
            said = one_line(error.format_message(), 600).rstrip(".")
            raise UserError(f"{said}; see {command} --help") from error
        sys.exit(status if isinstance(status, int) else 0)

    def format_commands(self, context: Any, formatter: Any) -> None:
        """List the commands with their whole first line, wrapped and not cut."""
        rows = []
        for name in self.list_commands(context):
            command = self.get_command(context, name)
            if command is not None and not command.hidden:
                rows.append((name, (command.help or "").partition("\n")[0]))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@contextmanager
def refused_files() -> Iterator[None]:
    """Turn errors of files that the user can fix into one line, and flush standard output.

    Raises:
        UserError: a disk is full, or a file cannot be read or written for lack of permission.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the interpreter flushes it at its end
        place = error.filename or "standard output"
        raise UserError(f"{place} cannot be read or written: {error.strerror}") from error


class StderrHandler(logging.StreamHandler):
    """Writes records to what stderr is now: a progress bar puts itself in its place for a while."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)  # that of StreamHandler keeps the stderr of this moment

    @property
    def stream(self) -> Any:
        """Standard error, or what has taken its place."""
        return sys.stderr


def adopt_library_logs() -> None:
    """Let the log of transformers go where keygap's goes, in place of stderr beside the bars."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_default_handler()
    transformers_logging.enable_propagation()
    if logging.getLogger().isEnabledFor(logging.INFO):
        transformers_logging.set_verbosity_info()


@contextmanager
def library_warnings() -> Iterator[None]:
    """Log warnings of libraries, each on one line, in place of two lines beside the bars."""

    def log(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object
    ) -> None:
        place = f"{Path(filename).name}, line {lineno}"
        logging.getLogger("py.warnings").warning("%s: %s (%s)", category.__name__, message, place)

    with warnings.catch_warnings():
        warnings.showwarning = log  # type: ignore[assignment]
        yield


class LineFormatter(logging.Formatter):
    """Formats the message of a record on one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message, printable."""
        return printable(super().formatMessage(record))


def print_table(frame: pd.DataFrame, notes: Iterable[object] = ()) -> None:
    """Print a table and its notes; of a table that is too wide, some columns below the others.

    Nothing is cut off. Text wraps between its words, and columns that do not fit beside the first
    ones follow in a table of their own, whose rows have the same numbers.
    """
    console = Console(width=width() or WIDTH_OF_A_FILE)
    columns = [_Column.of(frame, place) for place in range(frame.shape[1])]
    blocks = _blocks(columns, console.width)
    for block in blocks:
        shown_too = [_Column.numbers(len(frame))] if len(blocks) > 1 else []
        console.print(_table([*shown_too, *block], console.width))
    for note in notes:
        typer.echo(printable(note))


def print_list(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and what they mean, in two columns; in a file or a pipe, one line for each."""
    found = [(printable(name), printable(what)) for name, what in rows]
    first = max((cell_len(name) for name, _ in found), default=0) + 2
    room = max((width() or sys.maxsize) - first, LEAST_WIDTH)
    for name, what in found:
        lines = textwrap.wrap(what, room, break_on_hyphens=False) or [""]
        typer.echo(name + " " * (first - cell_len(name)) + f"\n{' ' * first}".join(lines))


def width() -> int | None:
    """Columns of a line: of $COLUMNS or the terminal; None in a file or a pipe."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) >= LEAST_WIDTH:
        return int(given)
    return Console().width if sys.stdout.isatty() else None


@dataclass(frozen=True)
class _Column:
    """A column of a printed table.

    Attributes:
        cells: its name, and what it shows in each row.
        is_number: whether it is aligned on the right and never wrapped.
    """

    cells: tuple[str, ...]
    is_number: bool

    @classmethod
    def of(cls, frame: pd.DataFrame, place: int) -> _Column:
        values = frame.iloc[:, place]
        cells = (printable(frame.columns[place]), *(shown(value) for value in values))
        return cls(cells, values.dtype.kind in "iufb")

    @classmethod
    def numbers(cls, count: int) -> _Column:
        """The numbers of the rows."""
        return cls(("row", *(str(row) for row in range(1, count + 1))), True)

    @property
    def widest(self) -> int:
        """Its width if nothing is wrapped."""
        return max(cell_len(cell) for cell in self.cells)

    @property
    def least(self) -> int:
        """Its width if text is wrapped between all words, and within very long ones."""
        if self.is_number:
            return self.widest
        words = [word for cell in self.cells for word in cell.split()]
        return min(max(map(cell_len, words), default=1), LONGEST_WORD)


_SIDES = 3  # characters of a column beside its text


def _blocks(columns: Sequence[_Column], most: int) -> list[list[_Column]]:
    """Columns that fit beside each other when they are as narrow as can be, block by block."""
    if sum(column.least + _SIDES for column in columns) + 1 <= most:
        return [list(columns)]
    numbers = len("row") + _SIDES + 1
    blocks: list[list[_Column]] = [[]]
    used = numbers
    for column in columns:
        if blocks[-1] and used + column.least + _SIDES > most:
            blocks.append([])
            used = numbers
        blocks[-1].append(column)
        used += column.least + _SIDES
    return blocks


def _table(columns: Sequence[_Column], most: int) -> Table:
    """Columns as wide as their text, or as narrow as can be where there is no room."""
    table = Table()
    room = most - 1 - sum(column.least + _SIDES for column in columns)
    for column in columns:
        more = max(0, min(column.widest - column.least, room))
        room -= more
        table.add_column(
            Text(column.cells[0]),
            justify="right" if column.is_number else "left",
            width=column.least + more,
            overflow="fold",
        )
    for row in zip(*(column.cells[1:] for column in columns), strict=True):
        table.add_row(*map(Text, row))
    return table
