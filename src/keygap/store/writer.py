"""Writes an extraction so that its folder is valid at every moment.

An extraction consists of parts. The files of a part, its tokens and vectors, are written first and
each is whole or missing; they may be written by any process. Then the one writer that holds the
folder's lock adds the part's rows to ``samples.parquet``, which commits it: a sample is done if and
only if it has a row there. A run that continues after a kill writes the files of uncommitted parts
again, with the same content.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from keygap.errors import UserError
from keygap.store.files import temporary_files, write_table, write_text
from keygap.store.lock import locked
from keygap.store.reader import read_identity
from keygap.store.run import (
    EXTRACTION,
    LOCK,
    MANIFEST,
    PARTS,
    SAMPLES,
    TOKENS,
    VECTORS,
    extraction_file,
    part_name,
    vectors_folder,
)
from keygap.store.schema import SAMPLES_SCHEMA

OWN_FILES = (EXTRACTION, MANIFEST, SAMPLES)


@dataclass(frozen=True)
class PartTables:
    """The tables of one part of an extraction.

    Attributes:
        samples: one row per sample, failed ones with their reason (``SAMPLES_SCHEMA``).
        tokens: one row per token (``TOKENS_SCHEMA``); None if every sample failed.
        vectors: one table per site and layer (``vectors_schema``).
    """

    samples: pa.Table
    tokens: pa.Table | None
    vectors: Mapping[tuple[str, int], pa.Table]


def write_part(root: Path, number: int, part: PartTables) -> None:
    """Write the files of a part. The part is not committed by this.

    Args:
        root: the run folder.
        number: of the part, from 0.
        part: its tables.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    for (site, layer), table in part.vectors.items():
        write_table(vectors_folder(root, site, layer) / part_name(number), table)
    if part.tokens is not None:
        write_table(root / TOKENS / part_name(number), part.tokens)


class StoreWriter:
    """The one writer of an extraction, between ``__enter__`` and ``__exit__``.

    It holds the folder's lock. If no part is committed when it leaves, it removes what was written.

    Args:
        root: the run folder. One that holds part of the same extraction is continued.
        identity: what is asked, complete, as plain values.

    Attributes:
        samples: the rows of all committed samples.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any]) -> None:
        self.root = root
        self.identity = dict(identity)
        self.samples: pa.Table = SAMPLES_SCHEMA.empty_table()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Lock the folder and read what is committed.

        Raises:
            UserError: the folder holds another extraction or something else, is being written by
                another process, or cannot be written.
        """
        self._refuse_other()  # before a lock is put into a folder that is none of ours
        with ExitStack() as stack:
            stack.enter_context(locked(self.root))
            self._refuse_other()
            self._remove_temporary()
            stack.callback(self._remove_uncommitted)
            if (self.root / SAMPLES).is_file():
                self.samples = pq.read_table(self.root / SAMPLES)
            self._write_identity()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        """Release the folder."""
        self._stack.close()

    @property
    def done(self) -> set[str]:
        """Ids of the samples that are committed, failed ones included."""
        return set(self.samples["sample_id"].to_pylist())

    @property
    def failures(self) -> dict[str, str]:
        """Id of every committed sample that failed, and why."""
        return failures_of(self.samples)

    def commit(self, samples: pa.Table) -> None:
        """Commit a part whose files are on disk.

        Args:
            samples: the rows of its samples.

        Raises:
            UserError: the disk is full, or the folder cannot be written. Earlier parts stay.
        """
        together = pa.concat_tables([self.samples, samples]).combine_chunks()
        write_table(self.root / SAMPLES, together)
        self.samples = together

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write what was done. This marks the extraction as finished.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        write_text(self.root / MANIFEST, json.dumps(manifest, indent=2) + "\n")

    def _refuse_other(self) -> None:
        if not self.root.exists():
            return
        if not self.root.is_dir():
            raise UserError(f"{self.root} is a file: name a folder for the run")
        if not extraction_file(self.root).is_file():
            ours = {self.root / LOCK, *temporary_files(self.root)}
            if set(self.root.iterdir()) - ours:
                raise UserError(
                    f"{self.root} is not empty and holds no run: name another folder with --out"
                )
            return
        found = read_identity(self.root)
        for key in dict.fromkeys((*self.identity, *found)):  # in the order of what was asked
            if self.identity.get(key) != found.get(key):
                raise UserError(
                    f"{self.root} holds another extraction: its {key} is {found.get(key)!r}, not "
                    f"{self.identity.get(key)!r}; name another folder with --out"
                )

    def _write_identity(self) -> None:
        if not (self.root / EXTRACTION).is_file():
            write_text(self.root / EXTRACTION, yaml.safe_dump(self.identity, sort_keys=False))

    def _remove_temporary(self) -> None:
        left = [path for name in OWN_FILES for path in temporary_files(self.root, name)]
        for folder in (self.root / TOKENS, *(self.root / VECTORS).glob("site=*/layer=*")):
            left += temporary_files(folder, PARTS)
        for path in left:
            path.unlink()

    def _remove_uncommitted(self) -> None:
        if (self.root / SAMPLES).is_file():
            return
        for name in (TOKENS, VECTORS):
            shutil.rmtree(self.root / name, ignore_errors=True)
        with suppress(OSError):
            (self.root / EXTRACTION).unlink()


def failures_of(samples: pa.Table) -> dict[str, str]:
    """Id of every sample of a table that failed, and why."""
    rows = zip(samples["sample_id"].to_pylist(), samples["failure"].to_pylist(), strict=True)
    return {name: reason for name, reason in rows if reason is not None}
