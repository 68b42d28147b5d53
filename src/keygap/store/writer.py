"""Writes a run so that it is whole at every moment.

A part appears by an atomic rename, or not at all. ``samples.parquet`` is rewritten last of every
part and is the commit: a sample is done if and only if it has a row there. Whatever a killed run
left beyond that is written again, to the same bytes, by the run that continues.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from keygap.errors import UserError
from keygap.store.schema import SAMPLES, part_name, vectors_folder

EXPERIMENT, MANIFEST, SAMPLES_FILE = "experiment.yaml", "manifest.json", "samples.parquet"


class StoreWriter:
    """The one writer of a run folder. Nothing is on disk before the first part is written.

    Args:
        root: the run folder.
        experiment: what was asked, complete, as plain values. A folder that holds another
            extraction is refused.

    Raises:
        UserError: the folder holds another experiment, or something that is no run.
    """

    def __init__(self, root: Path, experiment: Mapping[str, Any]) -> None:
        self.root = root
        self.experiment = dict(experiment)
        self.rows: list[dict[str, Any]] = []
        self._check_folder()
        if (root / SAMPLES_FILE).is_file():
            self.rows = pq.read_table(root / SAMPLES_FILE).to_pylist()
        for leftover in root.rglob(".*.tmp"):
            leftover.unlink()

    def _check_folder(self) -> None:
        if not self.root.exists():
            return
        if not self.root.is_dir():
            raise UserError(f"{self.root} is a file: name a folder for the run")
        path = self.root / EXPERIMENT
        if not path.is_file():
            if any(self.root.iterdir()):
                raise UserError(
                    f"{self.root} is not empty and holds no run: name another folder with --out"
                )
            return
        found = yaml.safe_load(path.read_text())
        for key in sorted(self.experiment.keys() | found.keys()):
            if self.experiment.get(key) != found.get(key):
                raise UserError(
                    f"{self.root} holds another experiment: its {key} is {found.get(key)!r}, not "
                    f"{self.experiment.get(key)!r}; name another folder with --out"
                )

    @property
    def done(self) -> set[str]:
        """Ids of the samples that are on disk or recorded as failed."""
        return {row["sample_id"] for row in self.rows}

    def write_part(
        self,
        number: int,
        rows: Sequence[Mapping[str, Any]],
        tokens: pa.Table | None,
        vectors: Mapping[tuple[str, int], pa.Table],
    ) -> None:
        """One part: its vectors, its tokens, then the rows of its samples, which commit it.

        Raises:
            UserError: the disk is full; what was written before stays whole.
        """
        try:
            if not (self.root / EXPERIMENT).is_file():
                self.root.mkdir(parents=True, exist_ok=True)
                _write_text(
                    self.root / EXPERIMENT, yaml.safe_dump(self.experiment, sort_keys=False)
                )
            for (site, layer), table in vectors.items():
                _write_table(vectors_folder(self.root, site, layer) / part_name(number), table)
            if tokens is not None:
                _write_table(self.root / "tokens" / part_name(number), tokens)
            committed = [*self.rows, *map(dict, rows)]
            samples = pa.Table.from_pylist(committed, schema=SAMPLES)
            _write_table(self.root / SAMPLES_FILE, samples)
            self.rows = committed
        except OSError as error:
            raise _explained(error, self.root) from error

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """The facts of the run: versions, counts, failures.

        Raises:
            UserError: the disk is full.
        """
        try:
            _write_text(self.root / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        except OSError as error:
            raise _explained(error, self.root) from error


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all.

    Raises:
        UserError: the disk is full.
    """
    try:
        _write_text(path, text)
    except OSError as error:
        raise _explained(error, path.parent) from error


def write_table(path: Path, table: pa.Table) -> None:
    """A parquet file, whole or not at all.

    Raises:
        UserError: the disk is full.
    """
    try:
        _write_table(path, table)
    except OSError as error:
        raise _explained(error, path.parent) from error


def _explained(error: OSError, root: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"the disk of {root} is full: free some space and repeat the command, it continues "
            "where it stopped"
        )
    if error.errno in (errno.EACCES, errno.EROFS):
        return UserError(f"{root} cannot be written ({error.strerror}): name another folder")
    return error


def _write_text(path: Path, text: str) -> None:
    _atomically(path, lambda scratch: scratch.write_text(text))


def _write_table(path: Path, table: pa.Table) -> None:
    _atomically(path, lambda scratch: pq.write_table(table, scratch, compression="zstd"))


def _atomically(path: Path, write: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(scratch)
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
