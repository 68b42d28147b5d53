"""Finds what is damaged, missing or foreign in the folder of an extraction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from keygap.errors import Damaged
from keygap.store.checksums import read_checksums
from keygap.store.journal import read_journal, with_journal, with_rows
from keygap.store.reading import read_table, side_by_side, verify
from keygap.store.run import CHECKSUMS, EXTRACTION, MANIFEST, SAMPLES, part_files, part_number
from keygap.store.schema import SAMPLES_SCHEMA


@dataclass(frozen=True)
class State:
    """What can be relied on in the folder of an extraction, and what cannot.

    Attributes:
        recorded: the checksums; none if their file is missing or damaged.
        samples: the rows of the committed samples; none if their file is missing or damaged.
        damaged: numbers of the committed parts that have a missing or damaged file.
        foreign: files among the parts that were not committed, by path in the folder.
        wrong: what a user should be told of, by path in the folder. Files of uncommitted parts are
            normal after a kill. They are listed here only if the run had already finished.
    """

    recorded: dict[str, tuple[str, ...]]
    samples: pa.Table
    damaged: set[int]
    foreign: set[str]
    wrong: list[str]


def inspect(root: Path) -> State:
    """Read every file of an extraction and compare it with its checksum.

    Raises:
        CannotRead: a file cannot be read now, so it is not known what is damaged.
    """
    wrong = []
    try:
        recorded = read_checksums(root)
    except Damaged:
        recorded = None
    began = any((root / name).exists() for name in (SAMPLES, MANIFEST))
    if recorded is None and (began or (root / CHECKSUMS).exists()):
        wrong.append(CHECKSUMS)
    journal = read_journal(root)
    recorded = with_journal(recorded or {}, journal)
    names = sorted(recorded)
    whole = side_by_side(lambda name: _is_whole(root, name, recorded[name]), names)
    wrong += [name for name, is_whole in zip(names, whole, strict=True) if not is_whole]
    samples = SAMPLES_SCHEMA.empty_table()
    if SAMPLES in recorded and SAMPLES not in wrong:
        samples = read_table(root / SAMPLES, "", SAMPLES_SCHEMA.names, recorded[SAMPLES])
    samples = with_rows(samples, journal)
    damaged = {number for name in wrong if (number := part_number(name)) is not None}
    foreign = part_files(root) - recorded.keys()
    if MANIFEST in recorded:
        wrong += sorted(foreign)
    return State(recorded, samples, damaged, foreign, wrong)


def is_of_extraction(name: str) -> bool:
    """Whether a file of a run, by its path, belongs to the extraction; else it is a result."""
    return name in (EXTRACTION, SAMPLES, MANIFEST) or part_number(name) is not None


def _is_whole(root: Path, name: str, checksums: tuple[str, ...]) -> bool:
    if not is_of_extraction(name):
        return True
    try:
        verify(root / name, "", checksums)
    except Damaged:
        return False
    return True
