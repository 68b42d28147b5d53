"""Writes an extraction so that its folder is valid at every moment.

An extraction consists of parts. The files of a part, its tokens and vectors, are written first and
each is whole or missing; they may be written by any process. Then the one writer that holds the
folder's lock commits the part: it appends the rows of its samples and the checksums of its files to
``journal.jsonl``. When the writer leaves, they are moved into ``samples.parquet`` and
``checksums.sha256``. A sample is done if and only if it has a row. A run that continues after a
kill writes the files of uncommitted parts again, with the same content up to rounding.

A writer that opens a run verifies what is there. Parts that are missing or damaged are to be
extracted again, and files among the parts that the run did not write are removed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import yaml

from keygap import interrupts
from keygap.errors import Damaged, UserError
from keygap.store.checksums import read_checksums, write_checksums
from keygap.store.files import remove, staged, temporary_files, write_table, write_text
from keygap.store.journal import Commit, append, with_rows
from keygap.store.lock import locked
from keygap.store.reader import read_identity
from keygap.store.recovery import State, inspect, is_of_extraction
from keygap.store.run import (
    CHECKSUMS,
    EXTRACTION,
    JOURNAL,
    LOCK,
    MANIFEST,
    PARTS,
    SAMPLES,
    THUMBNAILS,
    TOKENS,
    VECTORS,
    extraction_file,
    part_name,
    part_number,
    vectors_folder,
)
from keygap.store.schema import SAMPLES_SCHEMA

OWN_FILES = (EXTRACTION, MANIFEST, SAMPLES, CHECKSUMS)
THREADS = max(1, min(4, (os.cpu_count() or 1) // 2))  # that write the files of a part
SHOWN = 3  # damaged files that a message names
# What an identity of an earlier keygap, which does not say it, stands for.
EARLIER = {"thumbnails": False, "tokens": "all"}

logger = logging.getLogger("keygap")


@dataclass(frozen=True)
class PartTables:
    """The tables of one part of an extraction.

    Attributes:
        samples: one row per sample, failed ones with their reason (``SAMPLES_SCHEMA``).
        tokens: one row per token (``TOKENS_SCHEMA``); None if every sample failed.
        vectors: one table per site and layer (``vectors_schema``).
        thumbnails: one row per image (``THUMBNAILS_SCHEMA``); None if none are kept.
    """

    samples: pa.Table
    tokens: pa.Table | None
    vectors: Mapping[tuple[str, int], pa.Table]
    thumbnails: pa.Table | None = None


def write_part(root: Path, number: int, part: PartTables) -> dict[str, str]:
    """Write the files of a part. The part is not committed by this.

    Args:
        root: the run folder.
        number: of the part, from 0.
        part: its tables.

    Returns:
        The SHA-256 of each file, by its path in the run folder.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    files = {
        vectors_folder(root, site, layer) / part_name(number): table
        for (site, layer), table in part.vectors.items()
    }
    for folder, table in ((TOKENS, part.tokens), (THUMBNAILS, part.thumbnails)):
        if table is not None:
            files[root / folder / part_name(number)] = table
    # one thread writes a file at a few hundred MB/s, which a GPU would wait for
    with ThreadPoolExecutor(THREADS, "keygap-file") as threads:
        digests = list(threads.map(write_table, files, files.values()))
    names = [path.relative_to(root).as_posix() for path in files]
    return dict(zip(names, digests, strict=True))


class StoreWriter:
    """The one writer of an extraction, between ``__enter__`` and ``__exit__``.

    It holds the folder's lock. If no part is committed when it leaves, it removes what was written.

    Args:
        root: the run folder. One that holds part of the same extraction is continued.
        identity: what is asked, complete, as plain values.

    Attributes:
        failures: id of every committed sample that failed, and why.
        damaged: numbers of the committed parts that must be extracted and committed again.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any]) -> None:
        self.root = root
        self.identity = dict(identity)
        self.failures: dict[str, str] = {}
        self._tables = [SAMPLES_SCHEMA.empty_table()]
        self._done: set[str] = set()
        self.damaged: set[int] = set()
        self._recorded: dict[str, tuple[str, ...]] = {}
        self._results: set[str] = set()  # names of the recorded files that are results
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Lock the folder, read what is committed and verify it.

        Raises:
            UserError: the folder holds another extraction or something else, is being written by
                another process, or cannot be written; or one of its files cannot be read now.
        """
        self.refuse_other()  # before a lock is put into a folder that is none of ours
        with ExitStack() as stack:
            stack.enter_context(locked(self.root))
            self.refuse_other()
            self._remove_temporary()
            state = inspect(self.root)
            self._recorded, self.damaged, self._tables = state.recorded, state.damaged, []
            self._results = {name for name in state.recorded if not is_of_extraction(name)}
            self._add(state.samples)
            # only now: what these write and remove depends on what is committed
            stack.callback(self._remove_uncommitted)
            stack.callback(self._tidy)
            stack.callback(self._leave)
            self._recover(state)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        """Release the folder."""
        self._stack.close()

    @property
    def samples(self) -> pa.Table:
        """The rows of all committed samples."""
        self._tables = [pa.concat_tables(self._tables).combine_chunks()]
        return self._tables[0]

    @property
    def done(self) -> frozenset[str]:
        """Ids of the samples that have a row, failed ones included."""
        return frozenset(self._done)

    @property
    def is_finished(self) -> bool:
        """Whether it has a whole manifest, so that nothing is missing."""
        return MANIFEST in self._recorded

    @property
    def checksums(self) -> dict[str, str]:
        """The SHA-256 of each file of the committed parts, by its path in the run folder."""
        parts = sorted(name for name in self._recorded if part_number(name) is not None)
        return {name: self._recorded[name][-1] for name in parts}

    def commit(self, number: int, samples: pa.Table, checksums: Mapping[str, str]) -> None:
        """Commit a part whose files are on disk.

        Args:
            number: of the part, from 0.
            samples: the rows of its samples.
            checksums: the SHA-256 of its files, as ``write_part`` returns them.

        Raises:
            UserError: the disk is full, or the folder cannot be written. Earlier parts stay.
        """
        commit = Commit(samples, checksums)
        has_rows = not self._done.isdisjoint(samples["sample_id"].to_pylist())
        if number in self.damaged or has_rows or (not checksums and self._files_of(number)):
            self._replace(number, commit)
            return
        known = self._recorded
        # files without rows are recorded if the rows were lost
        changed = any(known.get(name, (digest,)) != (digest,) for name, digest in checksums.items())
        with interrupts.deferred():
            if changed and self._results:
                self._record(self._without_results(self._recorded))
            append(self.root, commit)
            self._recorded |= {name: (digest,) for name, digest in checksums.items()}
            self._add(samples)

    def _add(self, samples: pa.Table) -> None:
        """Take note of rows that are on disk."""
        self._tables.append(samples)
        self._done |= set(samples["sample_id"].to_pylist())
        self.failures |= failures_of(samples)
        if self._done:
            interrupts.keep(f"{len(self._done)} samples are kept in {self.root}")

    def _replace(self, number: int, commit: Commit) -> None:
        """Commit a part again, in its former place."""
        former = self._files_of(number)
        recorded = {name: sums for name, sums in self._recorded.items() if name not in former}
        written = {name: (digest,) for name, digest in commit.checksums.items()}
        if former and former != written:
            recorded = self._without_results(recorded)
        together = with_rows(self.samples, [commit])
        self._write_whole(together, {**recorded, **written})
        for name in former.keys() - written.keys():
            remove(self.root / name)
        self._tables, self.failures = [], {}
        self._add(together)
        self.damaged.discard(number)

    def _files_of(self, number: int) -> dict[str, tuple[str, ...]]:
        """The checksums of the files that are recorded for a part."""
        return {name: s for name, s in self._recorded.items() if part_number(name) == number}

    def _without_results(
        self, recorded: Mapping[str, tuple[str, ...]]
    ) -> dict[str, tuple[str, ...]]:
        """Checksums without those of the results, which are of other vectors."""
        return {name: sums for name, sums in recorded.items() if name not in self._results}

    def _write_whole(self, samples: pa.Table, recorded: dict[str, tuple[str, ...]]) -> None:
        """Write the two files that hold the whole run; the journal is in them."""
        with staged(self.root / SAMPLES, samples) as file, interrupts.deferred():
            before = recorded.get(SAMPLES, ())[-1:]
            either = tuple(dict.fromkeys((*before, file.sha256)))
            self._record({**recorded, SAMPLES: either})
            file.commit()
            remove(self.root / JOURNAL)

    def _empty_journal(self) -> None:
        if (self.root / JOURNAL).exists():
            self._write_whole(self.samples, self._recorded)

    def _leave(self) -> None:
        with suppress(UserError):  # a full disk: the journal holds as much, and is read as well
            self._empty_journal()

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write what was done. This marks the extraction as finished.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        self._empty_journal()
        text = json.dumps(manifest, indent=2) + "\n"
        with staged(self.root / MANIFEST, text) as file, interrupts.deferred():
            file.commit()
            latest = {name: sums[-1:] for name, sums in self._recorded.items()}
            self._record({**latest, MANIFEST: (file.sha256,)})

    def refuse_other(self) -> None:
        """Refuse a folder in which this extraction can neither begin nor continue.

        Raises:
            UserError: it holds another extraction or something else, or it is a file.
        """
        if not self.root.exists():
            return
        if not self.root.is_dir():
            raise UserError(f"{self.root} is a file: name a folder for the run")
        if not (self.root / CHECKSUMS).exists() and not extraction_file(self.root).is_file():
            ours = {self.root / LOCK, *temporary_files(self.root)}
            if set(self.root.iterdir()) - ours:
                raise UserError(
                    f"{self.root} is not empty and holds no run: name another folder with --out"
                )
            return
        found = self._found_identity()
        key = differing_key(self.identity, found)
        if key is not None:
            its = found.get(key, EARLIER.get(key))
            raise UserError(
                f"{self.root} holds another extraction: its {key} is {its!r}, not "
                f"{self.identity.get(key)!r}; name another folder with --out"
            )

    def _found_identity(self) -> dict[str, Any]:
        """What the folder's extraction was asked for.

        A damaged file of it is no obstacle if its checksum is that of what is asked now.
        """
        remedy = "name another folder with --out"
        try:
            recorded = read_checksums(self.root)
        except Damaged:
            recorded = None
        digest = hashlib.sha256(self._identity_text().encode()).hexdigest()
        if recorded is not None and digest in recorded.get(EXTRACTION, ()):
            return self.identity
        return read_identity(self.root, recorded, remedy)

    def _identity_text(self) -> str:
        return yaml.safe_dump(self.identity, sort_keys=False)

    def _recover(self, state: State) -> None:
        """Remove damaged and unexpected files.

        If there are any, the run counts as unfinished until they are replaced.
        """
        if state.wrong:
            shown = ", ".join(state.wrong[:SHOWN])
            more = f" and {len(state.wrong) - SHOWN} more" if len(state.wrong) > SHOWN else ""
            logger.warning(
                "%s: repairing missing, damaged or unexpected files: %s%s", self.root, shown, more
            )
            self._remove_misplaced()
            undone = {MANIFEST, *({SAMPLES} & set(state.wrong))}
            self._record({name: s for name, s in self._recorded.items() if name not in undone})
            for name in (MANIFEST, *state.wrong):
                if name != CHECKSUMS:
                    remove(self.root / name)
        for name in state.foreign:
            remove(self.root / name)
        if EXTRACTION in state.wrong or EXTRACTION not in self._recorded:
            digest = write_text(self.root / EXTRACTION, self._identity_text())
            self._record({**self._recorded, EXTRACTION: (digest,)})
        self._empty_journal()

    def _record(self, recorded: dict[str, tuple[str, ...]]) -> None:
        write_checksums(self.root, recorded)
        self._recorded = recorded
        self._results = {name for name in self._results if name in recorded}

    def _remove_misplaced(self) -> None:
        """Remove folders in the place of files, and files in the place of folders."""
        for name, is_wrong in (
            (CHECKSUMS, Path.is_dir), (TOKENS, Path.is_file), (VECTORS, Path.is_file),
            (THUMBNAILS, Path.is_file),
        ):  # fmt: skip
            if is_wrong(self.root / name):
                remove(self.root / name)

    def _remove_temporary(self) -> None:
        left = [path for name in OWN_FILES for path in temporary_files(self.root, name)]
        folders = [self.root / TOKENS, self.root / THUMBNAILS]
        for folder in (*folders, *(self.root / VECTORS).glob("site=*/layer=*")):
            left += temporary_files(folder, PARTS)
        for path in left:
            remove(path)

    def _tidy(self) -> None:
        """Leave no half file of another process that wrote parts and was killed."""
        with suppress(OSError, UserError):
            self._remove_temporary()

    def _remove_uncommitted(self) -> None:
        """Leave nothing of a run that committed nothing, unless something else is there."""
        if self._done:
            return
        ours = (EXTRACTION, CHECKSUMS, TOKENS, VECTORS, THUMBNAILS, JOURNAL)
        with suppress(OSError, UserError):
            if not {path.name for path in self.root.iterdir()} - {*ours, LOCK}:
                for name in ours:
                    remove(self.root / name)


def differing_key(asked: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """The first key in which an identity differs from the one asked for; None if it is the same."""
    found = {**EARLIER, **found}
    for key in dict.fromkeys((*asked, *found)):  # in the order of what was asked
        if asked.get(key, EARLIER.get(key)) != found.get(key):
            return key
    return None


def failures_of(samples: pa.Table) -> dict[str, str]:
    """Id of every sample of a table that failed, and why."""
    rows = zip(samples["sample_id"].to_pylist(), samples["failure"].to_pylist(), strict=True)
    return {name: reason for name, reason in rows if reason is not None}
