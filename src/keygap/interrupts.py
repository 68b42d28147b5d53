"""Ctrl-C and SIGTERM end a command with one line and the exit status that shells expect.

The line says what is kept and which command continues. In a command, the first signal raises
``Interrupted`` in the main thread, so that locks, temporary files and the progress bar are cleaned
up. Before the command has begun, or on a second signal, the process ends at once: what is on disk
is whole at every moment. This module imports little, because it must be ready before all others.

``Interrupted`` is no ``KeyboardInterrupt``, because libraries catch that one.
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
NOTHING = "nothing was written"
REPEATED = 1.0  # seconds in which a second signal is the same one, sent on by a parent process


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
        raising: whether a command runs that cleans up after an exception.
        deferring: how many blocks must finish before the exception.
    """

    def __init__(self) -> None:
        self.kept = NOTHING
        self.number: int | None = None
        self.since = 0.0
        self.raising = False
        self.deferring = 0


_state = _State()


def keep(what: str) -> None:
    """Set what the line says about files, if the command is interrupted from here on."""
    _state.kept = what


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
    if _state.number is not None and _state.raising and not _state.deferring:
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
    _state.raising = True
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as error:
        _state.raising = False
        number = error.number if isinstance(error, Interrupted) else int(signal.SIGINT)
        print(_line(number), file=sys.stderr, flush=True)
        sys.exit(128 + number)
    finally:
        _state = outer
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _handle(number: int, _frame: object) -> None:
    now = time.monotonic()
    if _state.number is None:
        _state.number, _state.since = number, now
        if _state.deferring and _state.raising:
            return
        if _state.raising:
            raise Interrupted(number)
        _end(number)
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
