"""What an extraction has committed since its writer began, one line for each part.

``samples.parquet`` and ``checksums.sha256`` hold the whole run. To write them again for every part
would cost more for each sample, the longer the run is. So a commit appends one line here, and the
writer moves the lines into those files when it leaves. Until then, and after a kill, a reader takes
the lines as part of them.

A line ends in its own SHA-256. One that a kill or a full disk cut short is no commit, and neither
is any line after a damaged one: those parts are extracted again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from keygap.errors import Damaged
from keygap.store.files import explained
from keygap.store.reading import is_missing, read_bytes
from keygap.store.run import JOURNAL
from keygap.store.schema import SAMPLES_SCHEMA


@dataclass(frozen=True)
class Commit:
    """One part of an extraction.

    Attributes:
        samples: the rows of its samples (``SAMPLES_SCHEMA``).
        checksums: the SHA-256 of each of its files, by path in the run folder.
    """

    samples: pa.Table
    checksums: Mapping[str, str]


def append(root: Path, commit: Commit) -> None:
    """Commit a part whose files are on disk.

    Args:
        root: the run folder.
        commit: the part.

    Raises:
        UserError: the disk is full, or the folder cannot be written. Nothing is committed then.
    """
    path = root / JOURNAL
    try:
        with path.open("ab") as file:
            before = file.tell()
            try:
                file.write(line_of(commit))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise
    except OSError as error:
        raise explained(error, path) from error


def line_of(commit: Commit) -> bytes:
    """The line of a commit, with its own SHA-256."""
    checksums = dict(sorted(commit.checksums.items()))
    content = {"samples": commit.samples.to_pylist(), "checksums": checksums}
    text = json.dumps(content)
    return f"{text}\t{_digest(text)}\n".encode()


def read_journal(root: Path) -> list[Commit]:
    """The commits of a run that its other files do not have yet, in order.

    Args:
        root: the run folder.

    Raises:
        CannotRead: the journal cannot be read now, so it is not known what is committed.
        Damaged: a folder is in its place.
    """
    try:
        data = read_bytes(root / JOURNAL, "remove this folder and repeat the command")
    except Damaged as error:
        if is_missing(error):
            return []
        raise
    found = []
    for line in data.decode(errors="replace").splitlines():
        commit = commit_of(line)
        if commit is None:
            break
        found.append(commit)
    return found


def commit_of(line: str) -> Commit | None:
    """The commit of a line; None if the line is not whole."""
    text, _, digest = line.removesuffix("\n").rpartition("\t")
    if digest != _digest(text):
        return None
    content = json.loads(text)
    samples = pa.Table.from_pylist(content["samples"], schema=SAMPLES_SCHEMA)
    return Commit(samples, content["checksums"])


def with_journal(
    recorded: Mapping[str, tuple[str, ...]], journal: Sequence[Commit]
) -> dict[str, tuple[str, ...]]:
    """The checksums of a run with those of its journal.

    Args:
        recorded: of ``read_checksums``.
        journal: of ``read_journal``.
    """
    found = dict(recorded)
    for commit in journal:
        found |= {name: (digest,) for name, digest in commit.checksums.items()}
    return found


def with_rows(samples: pa.Table, commits: Sequence[Commit]) -> pa.Table:
    """The rows of a run with those of some commits.

    A part that is committed again keeps its place. A writer that was killed while it emptied the
    journal leaves its rows in both files.

    Args:
        samples: the rows of the run.
        commits: in order.
    """
    together = pa.concat_tables([samples, *(commit.samples for commit in commits)])
    if pc.count_distinct(together["sample_id"]).as_py() == len(together):
        return together.combine_chunks()
    for commit in commits:  # some rows are there again; the time is the square of their number
        new = commit.samples
        again = pc.is_in(samples["sample_id"], value_set=new["sample_id"].combine_chunks())
        place = again.to_pylist().index(True) if pc.any(again).as_py() else len(samples)
        rest = samples.slice(place).filter(pc.invert(again.slice(place)))
        samples = pa.concat_tables([samples.slice(0, place), new, rest])
    return samples.combine_chunks()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
