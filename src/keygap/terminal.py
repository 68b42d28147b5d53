"""What the command line prints: one line for a mistake, log lines, and tables.

Names and reasons come from files and other libraries. Here nothing in them is taken for markup, an
escape code or a line break.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
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


class StderrHandler(logging.Handler):
    """Writes records to what stderr is now: a progress bar puts itself in its place for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


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


def print_table(frame: pd.DataFrame, notes: Iterable[str]) -> None:
    """Print a table and its notes."""
    table = Table()
    for column in frame.columns:
        justify: Any = "right" if frame[column].dtype.kind in "iufb" else "left"
        table.add_column(Text(printable(column)), justify=justify)
    for row in frame.itertuples(index=False):
        table.add_row(*(Text(shown(value)) for value in row))
    Console(width=None if sys.stdout.isatty() else 180).print(table)
    for note in notes:
        typer.echo(printable(note))
