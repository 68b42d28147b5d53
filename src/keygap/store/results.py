"""The files that are computed from a run: written together, and read only as they were written.

Their checksums are recorded in ``checksums.sha256`` of the run folder. A file that was changed by
hand, copied from another run, or left by a save that was killed is therefore refused. A folder
without checksums is no extraction, or one of keygap 0.1: its files are written and read without.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from keygap import interrupts
from keygap.errors import UserError
from keygap.store.checksums import checksums_of, read_checksums, write_checksums
from keygap.store.files import Content, Staged, remove, staged, temporary_files
from keygap.store.lock import SHORT, locked
from keygap.store.reading import verify


def save_results(folder: str | Path, files: Mapping[str, Content]) -> None:
    """Write files that belong together into a run folder, under its lock.

    Args:
        folder: the run folder, or any other.
        files: contents by file name. Until the last is written, none of them can be read.

    Raises:
        UserError: another process writes in the folder, the disk is full, or the folder cannot be
            written. If the disk is full, the files before are still there.
    """
    folder = Path(folder)
    with locked(folder, SHORT):
        record_results(folder, files)


def record_results(folder: Path, files: Mapping[str, Content], begin: bool = False) -> None:
    """As ``save_results``, for a caller that holds the lock of the folder.

    Args:
        folder: the folder.
        files: contents by file name.
        begin: whether a folder without checksums, or with damaged ones, gets some.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    recorded = _recorded_or_none(folder) or {} if begin else read_checksums(folder)
    for name in files:
        for left in temporary_files(folder, name):
            remove(left)
    with ExitStack() as stack:
        ready = [stack.enter_context(staged(folder / name, files[name])) for name in files]
        with interrupts.deferred():
            if recorded is None:
                _replace(ready)
            else:
                others = {name: sums for name, sums in recorded.items() if name not in files}
                written = {file.path.name: (file.sha256,) for file in ready}
                write_checksums(folder, others)
                _replace(ready)
                write_checksums(folder, others | written)
            interrupts.keep(f"the results in {folder} are kept")


def result_checksums(root: Path, name: str, remedy: str) -> tuple[str, ...] | None:
    """Each checksum that a computed file may have; None if its folder has no checksums.

    Args:
        root: the run folder.
        name: of the file.
        remedy: what the user can do if the file is there and was not written by this run.

    Raises:
        UserError: the file is there, and was not written by this run.
    """
    return checksums_of(root, name, read_checksums(root), remedy)


def is_recorded(root: Path, name: str) -> bool:
    """Whether a computed file is there, or should be.

    Raises:
        UserError: the checksums of the folder are damaged.
    """
    return (root / name).exists() or name in (read_checksums(root) or {})


def _recorded_or_none(folder: Path) -> dict[str, tuple[str, ...]] | None:
    try:
        return read_checksums(folder)
    except UserError:
        return None


def _replace(ready: list[Staged]) -> None:
    """Put files in place; without checksums, the absence of the last one shows a broken save."""
    if len(ready) > 1:
        remove(ready[-1].path)
    for file in ready:
        file.commit()


def is_whole(root: Path, name: str) -> bool:
    """Whether a computed file is there as it was written."""
    try:
        recorded = read_checksums(root)
        if recorded is None:
            return (root / name).is_file()
        verify(root / name, "", recorded.get(name, ()))
    except UserError:
        return False
    return True
