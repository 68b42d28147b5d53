"""A lock on a folder, held by one process at a time.

A command that works for long before it writes holds the lock from its beginning (``at_work``), so
that a second one does not do the same work in vain.

The lock is an advisory ``flock`` on a file in the folder. The kernel releases it when its holder
ends in whatever way, so a killed run blocks nobody. The file says who holds the lock since when.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from keygap import interrupts
from keygap.errors import CannotWrite
from keygap.store.files import explained, remove, temporary_files
from keygap.store.run import CAUSES_POINTS, FIGURES, LOCK, REMEDY_POINTS

logger = logging.getLogger("keygap")
SHORT = 3.0  # seconds; a table is saved in less
_at_work: set[tuple[int, Path]] = set()  # threads of this process, and the folders they work on


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder while a command works that writes there more than once or late.

    What the thread calls meanwhile may lock the folder again. Half files that a killed process has
    left in the folder are removed first.

    Args:
        folder: the folder, which is created if it does not exist.

    Raises:
        UserError: as ``locked``.
    """
    with locked(folder, SHORT):
        key = _key(folder)
        if key in _at_work:
            yield
            return
        _at_work.add(key)
        try:
            remedies = folder / REMEDY_POINTS
            written = (FIGURES, CAUSES_POINTS)
            for place in (folder, *(folder / n for n in written), remedies, *remedies.glob("*/")):
                for left in temporary_files(place):
                    remove(left)
            yield
        finally:
            _at_work.discard(key)


@contextmanager
def locked(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of a folder, which is created if it does not exist.

    On leaving, the lock file is removed, and so are the folders that were created and are empty.

    Args:
        folder: the folder.
        wait: how many seconds to wait for another holder.

    Raises:
        UserError: another process, or another part of this one, holds the lock; or the folder
            cannot be written.
    """
    if _key(folder) in _at_work:
        yield
        return
    try:
        created = [path for path in (folder, *folder.parents) if not path.exists()]
    except OSError as error:  # a name that is too long, for instance
        raise explained(error, folder / LOCK) from error
    with interrupts.tidied():
        file = _acquire(folder, time.monotonic() + wait)
        try:
            yield
        finally:
            with suppress(OSError):
                (folder / LOCK).unlink(missing_ok=True)
            file.close()
            for path in created:
                with suppress(OSError):  # not empty
                    path.rmdir()


def _key(folder: Path) -> tuple[int, Path]:
    return threading.get_ident(), Path(os.path.abspath(folder))


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder that cannot be written, or that another process writes in.

    For a command that works for long before it writes.

    Raises:
        UserError: it is one.
    """
    if folder.is_dir():
        with at_work(folder):
            pass


def refuse_locked(folder: Path) -> None:
    """Refuse a folder whose lock another process holds. Nothing is written for this.

    Raises:
        UserError: it is one.
    """
    try:
        file = (folder / LOCK).open(encoding="utf-8", errors="replace")
    except OSError:  # nobody wrote one
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(folder, file) from None
        except OSError:  # a file system without locks
            return


def _acquire(folder: Path, deadline: float) -> IO[str]:
    path = folder / LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8", errors="replace")
        except OSError as error:
            raise explained(error, path) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise _held(folder, file) from None
            file.close()
            time.sleep(0.05)
            continue
        except OSError as error:
            logger.warning(
                "%s cannot be locked (%s): let no other process write to it", folder, error.strerror
            )
        if _is_at(file, path):
            _sign(file, path)
            return file
        file.close()  # its last holder removed it after it was opened here


def _sign(file: IO[str], path: Path) -> None:
    """Write into a lock file who holds it."""
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}")
        file.flush()
    except OSError as error:  # a full disk
        with suppress(OSError):
            file.close()
        path.unlink(missing_ok=True)
        raise explained(error, path) from error


def _held(folder: Path, file: IO[str]) -> CannotWrite:
    holder = ""
    for _ in range(20):  # its holder may be about to write who it is
        file.seek(0)
        if holder := " ".join(file.read(200).split()):
            break
        time.sleep(0.02)
    file.close()
    return CannotWrite(
        f"{folder} is being written by {holder or 'another process'}: wait for it to end, or name "
        "another folder"
    )


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
