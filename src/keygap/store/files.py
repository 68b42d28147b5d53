"""Writes a file whole or not at all, and explains what prevented it.

A file is written under a temporary name in its own folder, flushed to the disk, and renamed. A
reader, or a run that continues after a kill, therefore never meets half a file. Every table and
every text of a run is written here.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from keygap.errors import UserError

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.tmp")
_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all. Missing folders are created.

    Raises:
        UserError: the disk is full, or the file cannot be written.
    """
    _write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a parquet file, whole or not at all. Missing folders are created.

    Raises:
        UserError: the disk is full, or the file cannot be written.
    """
    _write(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def temporary_files(folder: Path, pattern: str = "*") -> list[Path]:
    """The temporary files in a folder, such as a killed process leaves.

    A caller may remove them if it is the only writer of the files that they were to become.

    Args:
        folder: the folder, without those below it.
        pattern: of the names of the files that they were to become.
    """
    return [
        path
        for path in folder.glob(".*.tmp")
        if (found := _TEMPORARY.fullmatch(path.name)) and fnmatchcase(found["name"], pattern)
    ]


def explained(error: OSError, path: Path) -> UserError:
    """The error that tells the user why a file or folder cannot be written, and what to do."""
    if error.errno in _FULL:
        return UserError(
            f"the disk of {path.parent} is full: free some space and repeat the command, it "
            "continues where it stopped"
        )
    below = next((parent for parent in path.parents if parent.is_file()), None)
    if below is not None:
        return UserError(f"{path} cannot be written, {below} is a file: name another folder")
    reason = error.strerror or error
    return UserError(f"{path} cannot be written ({reason}): name another folder")


def _write(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise explained(error, path) from error
