"""A lock on a folder, held by one process at a time.

The lock is an advisory ``flock`` on a file in the folder. The kernel releases it when its holder
ends in whatever way, so a killed run blocks nobody. The file says who holds the lock.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from keygap.errors import UserError
from keygap.store.files import explained
from keygap.store.run import LOCK

logger = logging.getLogger("keygap")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is created if it does not exist.

    On leaving, the lock file is removed, and so are the folders that were created and are empty.

    Raises:
        UserError: another process, or another part of this one, holds the lock; or the folder
            cannot be written.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    file = _acquire(folder)
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink(missing_ok=True)
        file.close()
        for path in created:
            with suppress(OSError):  # not empty
                path.rmdir()


def _acquire(folder: Path) -> IO[str]:
    path = folder / LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        except OSError as error:
            raise explained(error, path) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read() or "another process"
            file.close()
            raise UserError(
                f"{folder} is being written by {holder}: wait for it to end, or name another folder"
            ) from None
        except OSError as error:
            logger.warning(
                "%s cannot be locked (%s): let no other process write to it", folder, error.strerror
            )
        if _is_at(file, path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            return file
        file.close()  # its last holder removed it after it was opened here


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
