"""Writes a file whole or not at all, and explains what prevented it.

A file is written under a temporary name in its own folder, flushed to the disk, and renamed. A
reader, or a run that continues after a kill, therefore never meets half a file. Every table and
every text of a run is written here. The functions that write return the SHA-256 of the file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from keygap import interrupts
from keygap.errors import CannotWrite

Content: TypeAlias = "str | bytes | pa.Table"
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.tmp")
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Staged:
    """A file that is whole on disk under a temporary name.

    Attributes:
        path: where it belongs.
        temporary: where it is.
        sha256: of its content, in hexadecimal.
    """

    path: Path
    temporary: Path
    sha256: str

    def commit(self) -> None:
        """Move the file to where it belongs, in place of the one before."""
        self.temporary.replace(self.path)


@contextmanager
def staged(path: Path, content: Content) -> Iterator[Staged]:
    """Write a file under a temporary name, which is removed on leaving unless it was committed.

    Args:
        path: where the file belongs. Missing folders are created.
        content: text (written in UTF-8), bytes, or a table (written as parquet).

    Raises:
        UserError: the disk is full, or the file cannot be written.
    """
    temporary = _temporary_name(path)
    with interrupts.tidied():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield Staged(path, temporary, _written(temporary, content))
        except OSError as error:
            raise explained(error, path) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def marked(path: Path) -> Iterator[Path]:
    """Have an empty file with a new temporary name of a path in a block.

    Raises:
        UserError: it cannot be written.
    """
    mark = _temporary_name(path)
    with interrupts.tidied():
        write_bytes(mark, b"")
        try:
            yield mark
        finally:
            with suppress(OSError):
                mark.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> str:
    """Write a file, whole or not at all. Missing folders are created.

    Raises:
        UserError: the disk is full, or the file cannot be written.
    """
    return _write(path, data)


def write_text(path: Path, text: str) -> str:
    """Write a text file in UTF-8, whole or not at all. Missing folders are created.

    Raises:
        UserError: the disk is full, or the file cannot be written.
    """
    return _write(path, text)


def write_table(path: Path, table: pa.Table) -> str:
    """Write a parquet file, whole or not at all. Missing folders are created.

    Raises:
        UserError: the disk is full, or the file cannot be written.
    """
    return _write(path, table)


def remove(path: Path) -> None:
    """Remove a file, or a folder with everything in it, if it exists.

    Raises:
        UserError: it cannot be removed.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise explained(error, path) from error


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


def explained(error: OSError, path: Path) -> CannotWrite:
    """The error that tells the user why a file or folder cannot be written, and what to do."""
    if error.errno in _FULL:
        return CannotWrite(
            f"the disk of {path.parent} is full: free some space and repeat the command, it "
            "continues where it stopped"
        )
    below = next((parent for parent in path.parents if parent.is_file()), None)
    if below is not None:
        return CannotWrite(f"{path} cannot be written, {below} is a file: name another folder")
    reason = os.strerror(error.errno) if error.errno else error  # pyarrow's are long
    return CannotWrite(f"{path} cannot be written ({reason}): name another folder")


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def _written(path: Path, content: Content) -> str:
    """Write a file through to the disk; returns its SHA-256."""
    if isinstance(content, pa.Table):
        # A path, because an interrupted writer of an open file prints an ignored exception; an
        # absolute one, because pyarrow takes a relative path such as exp:1/run for an address.
        pq.write_table(content, path.absolute(), **_encoding(content.schema))
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """How the columns of a table are written.

    Vectors are neither searched for repeated values, of which they have none, nor compressed: that
    would make them a tenth smaller and take five times as long.
    """
    lists = {field.name for field in schema if pa.types.is_fixed_size_list(field.type)}
    bytes_ = {field.name for field in schema if pa.types.is_fixed_size_binary(field.type)}
    others = [field.name for field in schema if field.name not in lists | bytes_]
    plain = dict.fromkeys([*(f"{name}.list.element" for name in lists), *bytes_], "none")
    return {"use_dictionary": others, "compression": dict.fromkeys(others, "zstd") | plain}


def _write(path: Path, content: Content) -> str:
    with staged(path, content) as file:
        file.commit()
    return file.sha256
