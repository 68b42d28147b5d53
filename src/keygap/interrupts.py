"""Ctrl-C and SIGTERM end a command with one line and the exit status that shells expect.

The line says what is kept and which command continues. A signal ends the process at once, because
what is on disk is whole at every moment. Only where there is something to tidy, such as a lock, a
temporary file or a progress bar, it raises ``Interrupted`` in the main thread first.

Libraries may catch that exception, for instance during an import, and go on. Whatever exception
follows is therefore taken for the interrupt, and ``PATIENCE`` seconds later the process ends.

This module imports little, because it must be ready before all others.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOTHING = "everything on disk is as it was"
REPEATED = 1.0  # seconds in which a second signal is the same one, sent on by a parent process
PATIENCE = 20.0  # seconds for tidying up


class Interrupted(BaseException):
    """The user or a scheduler asked the command to end.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _State:
    """What the handler knows.

    Attributes:
        kept: what the line says about files.
        number: of the first signal; None if none arrived.
        since: when it arrived.
        tidying: how many blocks have something to tidy after an exception.
        deferring: how many blocks must finish before the exception.
    """

    def __init__(self) -> None:
        self.kept = NOTHING
        self.number: int | None = None
        self.since = 0.0
        self.tidying = 0
        self.deferring = 0


_state = _State()
_counting = threading.Lock()  # files are written in threads, too


def keep(what: str) -> None:
    """Set what the line says about files, if the command is interrupted from here on."""
    _state.kept = what


@contextmanager
def tidied() -> Iterator[None]:
    """In this block, a signal raises ``Interrupted`` and does not end the process, to tidy up."""
    with _counting:
        _state.tidying += 1
    try:
        yield
    finally:
        with _counting:
            _state.tidying -= 1


@contextmanager
def deferred() -> Iterator[None]:
    """Let a block finish before an interrupt is raised. For short blocks that write files.

    Raises:
        Interrupted: a signal arrived in the block, which has finished.
    """
    _state.deferring += 1
    try:
        yield
    finally:
        _state.deferring -= 1
    if _state.number is not None and not _state.deferring:
        raise Interrupted(_state.number)


def install() -> None:
    """Handle the signals from here on. One that is ignored stays ignored, as for ``nohup``."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _handle)


@contextmanager
def handled() -> Iterator[None]:
    """Handle the signals in a block that runs one command.

    Raises:
        SystemExit: it was interrupted. The line is printed and the status is 128 plus the number.
    """
    global _state
    outer, _state = _state, _State()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    install()
    try:
        yield
    except BaseException as error:
        number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else _state.number
        if number is None:
            raise
        print(_line(number), file=sys.stderr, flush=True)
        sys.exit(128 + number)
    finally:
        _state = outer
        if threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)


def _handle(number: int, _frame: object) -> None:
    now = time.monotonic()
    if _state.number is None:
        _state.number, _state.since = number, now
        if not _state.tidying:
            _end(number)
        signal.signal(signal.SIGALRM, lambda *_: _end(number))
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        if not _state.deferring:
            raise Interrupted(number)
    elif now - _state.since > REPEATED:
        _end(_state.number)


def _end(number: int) -> NoReturn:
    with suppress(OSError):
        os.write(2, f"{_line(number)}\n".encode(errors="replace"))
    os._exit(128 + number)


def _line(number: int) -> str:
    command = shlex.join(["keygap", *sys.argv[1:]])
    name = signal.Signals(number).name
    return f"keygap: interrupted by {name}, {_state.kept}; continue with: {command}"
