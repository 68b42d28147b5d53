"""Temporary folders; those that killed processes leave are removed by the next one.

A process that is killed cannot remove its folder. So a folder has a lock that the kernel releases,
and whoever makes the next one removes those that are not in use.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from keygap.errors import UserError

PREFIX, IN_USE = "keygap-", "in-use.lock"


@contextmanager
def temporary_folder(place: str | None = None) -> Iterator[Path]:
    """Have a temporary folder in a block; those of killed processes are removed first.

    Args:
        place: the folder that it is made in; by default that of the system, which TMPDIR names.

    Raises:
        UserError: none can be made.
    """
    try:
        parent = Path(place or tempfile.gettempdir())
        _remove_unused(parent)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise UserError(f"no temporary folder can be made ({reason}): set TMPDIR") from error
    try:
        with (folder / "new.lock").open("w") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            (folder / "new.lock").rename(folder / IN_USE)  # held before anyone looks for it
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unused(parent: Path) -> None:
    for lock in parent.glob(f"{PREFIX}*/{IN_USE}"):
        with suppress(OSError), lock.open() as file:  # of another user, or in use
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
