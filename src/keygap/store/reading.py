"""Reads one file of a run, or explains in one line what is wrong with it.

Files on disk can be missing, truncated, overwritten or written by another program. Every table and
every text of a run is read here, so that each kind of damage ends in a ``Damaged`` with the path
and a remedy: a clause that says what the user can do, such as "run keygap measure DIR". A file that
cannot be read now, because a disk or a network fails for instance, is a ``CannotRead``: it may be
whole.

If a checksum was recorded for a file, its bytes are compared with it before anything parses them.
The file is read once for both.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from keygap.errors import CannotRead, Damaged, UserError
from keygap.text import first_line

Checksums = Collection[str] | None
Result = TypeVar("Result")
THREADS = min(8, os.cpu_count() or 1)  # that hash files
AT_ONCE = 1000  # files that wait for a thread; a run has many more


def read_bytes(path: Path, remedy: str, checksums: Checksums = None) -> bytes:
    """The contents of a file.

    Args:
        path: of the file.
        remedy: what the user can do if it is damaged.
        checksums: each SHA-256 that it may have, in hexadecimal; None if none was recorded.

    Raises:
        CannotRead: it cannot be read now.
        Damaged: it is missing, or has another checksum.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(error, path, remedy) from error
    if checksums is not None and hashlib.sha256(data).hexdigest() not in checksums:
        raise _changed(path, remedy, empty=not data)
    return data


def read_text(path: Path, remedy: str, checksums: Checksums = None) -> str:
    """The contents of a text file in UTF-8; arguments as for ``read_bytes``.

    Raises:
        UserError: the file is missing, cannot be read, has another checksum or another encoding.
    """
    try:
        return read_bytes(path, remedy, checksums).decode()
    except UnicodeDecodeError as error:
        raise Damaged(f"{path} is damaged (it is not text in UTF-8): {remedy}") from error


def read_yaml(path: Path, remedy: str, checksums: Checksums = None) -> dict[str, Any]:
    """The mapping in a YAML file; arguments as for ``read_bytes``.

    Raises:
        UserError: the file cannot be read, has another checksum, or holds no mapping.
    """
    return _mapping(path, remedy, checksums, yaml.safe_load)


def read_json(path: Path, remedy: str, checksums: Checksums = None) -> dict[str, Any]:
    """The mapping in a JSON file; arguments as for ``read_bytes``.

    Raises:
        UserError: the file cannot be read, has another checksum, or holds no mapping.
    """
    return _mapping(path, remedy, checksums, json.loads)


def read_csv(
    path: Path,
    remedy: str,
    columns: Iterable[str],
    text: Collection[str],
    checksums: Checksums = None,
    **options: Any,
) -> pd.DataFrame:
    """The table in a CSV file.

    Args:
        path: of the file.
        remedy: what the user can do if it is damaged.
        columns: that the table must have.
        text: the columns that are text. The others are numbers.
        checksums: each SHA-256 that it may have; None if none was recorded.
        options: of ``pandas.read_csv``.

    Raises:
        UserError: the file cannot be read, has another checksum, lacks a column, or has text in a
            column of numbers.
    """
    data = read_bytes(path, remedy, checksums)
    try:
        frame = pd.read_csv(io.BytesIO(data), encoding="utf-8", **options)
    except (ValueError, OverflowError) as error:  # pandas' errors of parsing are ValueErrors
        raise Damaged(f"{path} is damaged ({first_line(error)}): {remedy}") from error
    _refuse_without(path, remedy, columns, frame.columns)
    for name in columns:
        if name not in text and frame[name].dtype.kind not in "iuf" and len(frame):
            raise Damaged(f"{path} is damaged (its column {name} is not numbers): {remedy}")
    return frame


def read_table(
    path: Path, remedy: str, columns: Iterable[str], checksums: Checksums = None
) -> pa.Table:
    """The table in a parquet file.

    Args:
        path: of the file.
        remedy: what the user can do if it is damaged.
        columns: that the table must have.
        checksums: each SHA-256 that it may have; None if none was recorded.

    Raises:
        UserError: the file cannot be read, has another checksum, is no parquet file, or lacks a
            column.
    """
    data = read_bytes(path, remedy, checksums)
    try:
        table = pq.read_table(pa.BufferReader(data))
        names = table.column_names
        if checksums is None:
            table.validate(full=True)  # an index outside a dictionary, for instance
            table = table.replace_schema_metadata(_own_metadata(table))
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise Damaged(f"{path} is damaged ({first_line(error)}): {remedy}") from error
    _refuse_without(path, remedy, columns, names)
    return table


def read_blocks(
    path: Path,
    remedy: str,
    columns: Sequence[str],
    rows: int,
    optional: Collection[str] = (),
) -> Iterator[pa.RecordBatch]:
    """Some columns of a parquet file in blocks of rows, of which one at a time is in memory.

    Nothing is compared with a checksum: see ``verify``.

    Args:
        path: of the file.
        remedy: what the user can do if it is damaged.
        columns: the columns.
        rows: most rows of a block.
        optional: those of the columns that the file may lack.

    Raises:
        UserError: the file is missing, cannot be read, is no parquet file, or lacks a column.
    """
    try:
        with pq.ParquetFile(path.absolute(), memory_map=True, pre_buffer=False) as file:
            present = file.schema_arrow.names
            _refuse_without(path, remedy, set(columns) - set(optional), present)
            wanted = [name for name in columns if name in present]
            yield from file.iter_batches(rows, columns=wanted, use_threads=False)
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise _refused(error, path, remedy) from error


def read_rows(
    path: Path, remedy: str, columns: Sequence[str] | None, where: Sequence[tuple[str, str, object]]
) -> pa.Table:
    """The rows of a parquet file that have some values; the rest is not kept in memory.

    Nothing is compared with a checksum: see ``verify``.

    Args:
        path: of the file.
        remedy: what the user can do if it is damaged.
        columns: the columns; None means all.
        where: conditions as those of ``pyarrow.parquet.read_table``, all of which hold.

    Raises:
        UserError: the file is missing, cannot be read, is no parquet file, or lacks a column.
    """
    named = None if columns is None else list(columns)
    try:
        return pq.read_table(
            path.absolute(),
            columns=named,
            filters=list(where),
            memory_map=True,
            use_threads=False,
        )
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        raise _refused(error, path, remedy) from error


def verify(path: Path, remedy: str, checksums: Collection[str]) -> None:
    """Compare a file with its checksums, without keeping it in memory.

    Args:
        path: of the file.
        remedy: what the user can do if it differs.
        checksums: each SHA-256 that it may have, in hexadecimal.

    Raises:
        CannotRead: it cannot be read now.
        Damaged: it is missing, or has another checksum.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            empty = file.tell() == 0
    except OSError as error:
        raise _unreadable(error, path, remedy) from error
    if found not in checksums:
        raise _changed(path, remedy, empty)


def verify_all(root: Path, remedy: str, recorded: Mapping[str, Collection[str]]) -> None:
    """Compare files with their checksums; see ``verify``.

    Args:
        root: the run folder.
        remedy: what the user can do if a file differs.
        recorded: the checksums of each file, by its path in the folder.

    Raises:
        CannotRead: a file cannot be read now.
        Damaged: one is missing, or has another checksum: the first by its path.
    """
    list(side_by_side(lambda name: verify(root / name, remedy, recorded[name]), sorted(recorded)))


def side_by_side(action: Callable[[str], Result], names: Sequence[str]) -> Iterator[Result]:
    """What an action returns for each name, in order. Several threads can hash at once."""
    with ThreadPoolExecutor(THREADS, "keygap-hash") as threads:
        for start in range(0, len(names), AT_ONCE):
            yield from threads.map(action, names[start : start + AT_ONCE])


def is_missing(error: UserError) -> bool:
    """Whether a file could not be read because it is not there, nor the folder it would be in."""
    return isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError))


def _own_metadata(table: pa.Table) -> dict[bytes, bytes]:
    """The metadata of a table without what pandas would interpret."""
    return {key: value for key, value in (table.schema.metadata or {}).items() if key != b"pandas"}


def _mapping(
    path: Path, remedy: str, checksums: Checksums, parse: Callable[[str], Any]
) -> dict[str, Any]:
    text = read_text(path, remedy, checksums)
    try:
        values = parse(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Damaged(f"{path} is damaged ({first_line(error)}): {remedy}") from error
    if not isinstance(values, dict):
        raise Damaged(f"{path} is damaged (it holds no mapping of keys to values): {remedy}")
    return values


def _refuse_without(
    path: Path, remedy: str, columns: Iterable[str], present: Iterable[str]
) -> None:
    if missing := set(columns) - set(present):
        raise Damaged(
            f"{path} is damaged or of another version (no column {min(missing)}): {remedy}"
        )


def _changed(path: Path, remedy: str, empty: bool) -> Damaged:
    reason = "it is empty" if empty else "its SHA-256 is not the one that was recorded"
    return Damaged(f"{path} is damaged or foreign ({reason}): {remedy}")


def _unreadable(error: OSError, path: Path, remedy: str) -> UserError:
    if isinstance(error, FileNotFoundError):
        return Damaged(f"{path} is missing: {remedy}")
    reason = os.strerror(error.errno) if error.errno else first_line(error)  # pyarrow's are long
    if isinstance(error, (IsADirectoryError, NotADirectoryError)):
        return Damaged(f"{path} cannot be read ({reason}): {remedy}")
    return CannotRead(
        f"{path} cannot be read ({reason}): check its permissions and its disk, then repeat the "
        "command"
    )


def _refused(error: Exception, path: Path, remedy: str) -> UserError:
    """The error for a table that pyarrow does not read: damaged, unless it was not opened."""
    if isinstance(error, OSError) and error.errno:
        return _unreadable(error, path, remedy)
    return Damaged(f"{path} is damaged ({first_line(error)}): {remedy}")
