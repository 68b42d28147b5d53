"""Rows of parquet and TSV files, read as a stream.

A benchmark of 20,000 questions with images may be larger than memory. ``scan`` reads only the
columns that an index needs, and ``row`` reads one row. A table keeps no file open and stores only
where its rows begin, so it can also be pickled and sent to another process.
"""

from __future__ import annotations

import csv
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from keygap.benchmarks.sample import BadSample
from keygap.errors import UserError, unknown

Row = dict[str, Any]
FIELD_LIMIT = 1 << 28  # bytes of one TSV field; a longer one has an unclosed quote
BUFFER = 1 << 20


class Table(Protocol):
    """The rows of one file, or of several."""

    columns: tuple[str, ...]

    def __len__(self) -> int: ...

    def scan(self, columns: Sequence[str]) -> Iterator[Row]:
        """Read some columns of every row, in order; a row that cannot be read is empty."""
        ...

    def row(self, number: int) -> Row:
        """Read all columns of one row.

        Raises:
            BadSample: the row cannot be read.
        """
        ...


class ParquetTable:
    """A parquet file.

    Raises:
        UserError: it is not a parquet file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()  # a worker may be in another folder
        try:
            self._metadata = metadata = pq.read_metadata(self.path)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} is not a readable parquet file: {error}") from error
        self.columns = tuple(metadata.schema.to_arrow_schema().names)
        sizes = (metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
        self._starts = array("Q", accumulate(sizes, initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def scan(self, columns: Sequence[str]) -> Iterator[Row]:
        """Read some columns of every row; see ``Table``."""
        try:
            with self._open() as file:
                for batch in file.iter_batches(1024, columns=list(columns), use_threads=False):
                    yield from _rows_of(batch)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self.path} is not a readable parquet file: {error}") from error

    def row(self, number: int) -> Row:
        """Read one row from its row group, a few rows at a time; see ``Table``."""
        group = bisect_right(self._starts, number) - 1
        skip = number - self._starts[group]
        try:
            with self._open() as file:
                # each thread would use memory of its own, which costs more than it saves here
                for batch in file.iter_batches(8, row_groups=[group], use_threads=False):
                    if skip < batch.num_rows:
                        return batch.slice(skip, 1).to_pylist()[0]
                    skip -= batch.num_rows
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise BadSample(f"row {number} of {self.path.name} cannot be read: {error}") from error
        raise BadSample(f"row {number} of {self.path.name} is missing")

    def _open(self) -> pq.ParquetFile:
        # without pre-buffering, a column is read by page and not by whole row group
        return pq.ParquetFile(
            self.path, metadata=self._metadata, buffer_size=BUFFER, pre_buffer=False
        )


class TsvTable:
    """A TSV file with a header. Fields may be quoted and contain tabs and line breaks.

    The constructor reads the file once, to note the byte at which each row begins.

    Raises:
        UserError: the file has no header, or a quote that is not closed, which would take the rows
            after it for text.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()  # a worker may be in another folder
        header = next(self._parsed(0), (0, None))[1]
        if not header:
            raise UserError(f"{path} has no header row")
        if any(not name.isprintable() or not_utf8(name) for name in header):
            raise UserError(f"{path} is not a TSV file in UTF-8: save it as one")
        self.columns = tuple(header)
        self._starts = array("Q", (start for start, _ in self._parsed(0)))
        self._starts.append(path.stat().st_size)

    def __len__(self) -> int:
        return len(self._starts) - 2  # without the header and the end

    def scan(self, columns: Sequence[str]) -> Iterator[Row]:
        """Read some columns of every row; see ``Table``."""
        rows = self._parsed(0)
        next(rows)
        for _, fields in rows:
            whole = fields is not None and self._fault_of(fields) is None
            named = dict(zip(self.columns, fields or (), strict=False)) if whole else {}
            yield {name: named[name] for name in columns if name in named}

    def row(self, number: int) -> Row:
        """Read one row; see ``Table``."""
        _, fields = next(self._parsed(self._starts[number + 1]))
        fault = "broken quoting" if fields is None else self._fault_of(fields)
        if fields is None or fault:
            raise BadSample(f"row {number} of {self.path.name} cannot be read: {fault}")
        return dict(zip(self.columns, fields, strict=True))

    def _fault_of(self, fields: list[str]) -> str | None:
        """Say what is wrong with a row's fields; None if nothing is."""
        if len(fields) != len(self.columns):
            return f"{len(fields)} fields where the header has {len(self.columns)}"
        # "surrogateescape" turned the bytes that are not UTF-8 into surrogates
        if any(not_utf8(field) for field in fields if not field.isascii()):
            return "it is not UTF-8"
        return None

    def _parsed(self, start: int) -> Iterator[tuple[int, list[str] | None]]:
        """Parse rows from a byte on: where each begins, and its fields or None if it is broken.

        Raises:
            UserError: broken quoting goes on over several lines. (Of one line, it is a broken row.)
        """
        csv.field_size_limit(max(csv.field_size_limit(), FIELD_LIMIT))
        with self.path.open("rb") as file:
            file.seek(start)
            position = start

            def lines() -> Iterator[str]:
                nonlocal position
                for line in file:
                    text = line.decode("utf-8", "surrogateescape")
                    text = text.removeprefix("\ufeff") if position == 0 else text
                    position += len(line)
                    yield text

            reader = csv.reader(lines(), delimiter="\t", strict=True)
            while True:
                begin, line = position, reader.line_num + 1
                try:
                    fields: list[str] | None = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    if reader.line_num > line:
                        raise UserError(
                            f"{self.path}, line {line}: a quote in the row that begins here is not "
                            'closed: remove it, or close it (a quote inside a text is written "")'
                        ) from error
                    fields = None
                if fields != []:  # skip blank lines
                    yield begin, fields


def not_utf8(text: str) -> bool:
    """Whether a text has the surrogates of bytes that could not be decoded."""
    return any("\ud800" <= character <= "\udfff" for character in text)


class Tables:
    """Several files with the same columns as one table, in the order given.

    Args:
        paths: .parquet and .tsv files, at least one.
        needs: columns that must be there.
        alike: columns that every file must have if one has them.

    Raises:
        UserError: a file has another suffix, cannot be read, or lacks a column.
    """

    def __init__(
        self, paths: Sequence[Path], needs: Sequence[str] = (), alike: Sequence[str] = ()
    ) -> None:
        self._tables = [_table(path) for path in paths]
        for path, table in zip(paths, self._tables, strict=True):
            if twice := [name for name, count in Counter(table.columns).items() if count > 1]:
                raise UserError(f"{path} has the column {twice[0]!r} twice: remove one")
            missing = [name for name in needs if name not in table.columns]
            if missing:
                raise UserError(
                    f"{path} has no column {', '.join(missing)}; it has {', '.join(table.columns)}"
                )
        self._refuse_unlike(paths, alike)
        self.columns = self._tables[0].columns
        self._starts = list(accumulate(map(len, self._tables), initial=0))

    def _refuse_unlike(self, paths: Sequence[Path], alike: Sequence[str]) -> None:
        having = [{name for name in alike if name in table.columns} for table in self._tables]
        most = max(range(len(having)), key=lambda number: len(having[number]))
        for path, own in zip(paths, having, strict=True):
            if missing := having[most] - own:
                raise UserError(
                    f"{path} has no column {', '.join(sorted(missing))}, which {paths[most]} has: "
                    "name the file that is meant"
                )

    def __len__(self) -> int:
        return self._starts[-1]

    def scan(self, columns: Sequence[str]) -> Iterator[Row]:
        """Read some columns of every row, of each file those that it has; see ``Table``."""
        for table in self._tables:
            yield from table.scan([name for name in columns if name in table.columns])

    def row(self, number: int) -> Row:
        """Read one row; see ``Table``."""
        position = bisect_right(self._starts, number) - 1
        return self._tables[position].row(number - self._starts[position])


KINDS: dict[str, type[ParquetTable] | type[TsvTable]] = {
    ".parquet": ParquetTable,
    ".tsv": TsvTable,
}


def _table(path: Path) -> Table:
    if path.suffix.lower() not in KINDS:
        raise unknown("kind of data file", path.name, KINDS)
    return KINDS[path.suffix.lower()](path)


def _rows_of(batch: pa.RecordBatch) -> list[Row]:
    """The rows of a batch; those whose text cannot be decoded are empty."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:  # in one row: keep the others
        return [_only_row(batch.slice(number, 1)) for number in range(batch.num_rows)]


def _only_row(batch: pa.RecordBatch) -> Row:
    """The row of a batch of one; empty if its text cannot be decoded."""
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError:
        return {}
