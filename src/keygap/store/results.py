"""The files that are computed from a run: written together, and read only as they were written.

Their checksums are recorded in ``checksums.sha256`` of the run folder. A file that was changed by
hand, copied from another run, or left by a save that was killed is therefore refused. A folder
without checksums is no extraction, or one of keygap 0.1: its files are written and read without.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from keygap import interrupts
from keygap.errors import Damaged, UserError
from keygap.store.checksums import checksums_of, read_checksums, write_checksums
from keygap.store.files import Content, Staged, remove, staged, temporary_files
from keygap.store.lock import SHORT, locked
from keygap.store.reading import verify
from keygap.store.run import extraction_file


def save_results(folder: str | Path, files: Mapping[str, Content]) -> None:
    """Write files that belong together into a run folder, under its lock.

    Args:
        folder: the run folder, or any other.
        files: contents by file name. Until the last is written, none of them can be read.

    Raises:
        UserError: another process writes in the folder, the disk is full, the folder cannot be
            written, or as ``record_results``. The files before are then still there.
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
        UserError: the disk is full, the folder cannot be written, or one that is no run and has no
            checksums has a file of such a name that is none of keygap's.
    """
    recorded = _recorded_or_none(folder) or {} if begin else read_checksums(folder)
    if recorded is None and not extraction_file(folder).is_file():
        _refuse_foreign(folder, files)
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


def _refuse_foreign(folder: Path, files: Mapping[str, Content]) -> None:
    """Refuse to replace files of the user's own in a folder where nothing is recorded.

    A table that begins like the new one is a former result. Other files, such as notes, are former
    results if such a table is beside them.

    Raises:
        UserError: there is such a file.
    """
    there = [name for name in files if (folder / name).is_file()]
    known = [name for name in there if _begins_alike(folder / name, files[name])]
    tables = (".csv", ".parquet", ".yaml")
    for name in there:
        if name not in known and (name.endswith(tables) or not known):
            raise UserError(
                f"{folder / name} is there and keygap did not record it: name another folder with "
                "--out"
            )


def _begins_alike(path: Path, content: Content) -> bool:
    """Whether a file has the columns of a table, or the first key of a YAML file."""
    try:
        if isinstance(content, pa.Table):
            return pq.read_schema(path).names == content.column_names
        with path.open(encoding="utf-8", errors="replace") as file:
            first = file.readline()
    except (pa.ArrowException, OSError):
        return False
    if isinstance(content, bytes) or path.suffix not in (".csv", ".yaml"):
        return False
    end = ":" if path.suffix == ".yaml" else "\n"
    return first.partition(end)[0] == content.partition(end)[0]


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
    except Damaged:
        return None


def _replace(ready: list[Staged]) -> None:
    """Put files in place; without checksums, the absence of the last one shows a broken save."""
    if len(ready) > 1:
        remove(ready[-1].path)
    for file in ready:
        file.commit()


def is_whole(root: Path, name: str) -> bool:
    """Whether a computed file is there as it was written.

    Raises:
        CannotRead: it cannot be read now.
    """
    try:
        recorded = read_checksums(root)
        if recorded is None:
            return (root / name).is_file()
        verify(root / name, "", recorded.get(name, ()))
    except Damaged:
        return False
    return True
