"""``checksums.sha256``: the SHA-256 of every file of a run, as ``sha256sum --check`` reads it.

What is not recorded here was not written by the run, or not to the end. The last line, a comment to
``sha256sum``, is the SHA-256 of the lines above it, so that damage to the file itself is noticed.

``samples.parquet`` has two lines while a part is committed: one for its content before and one for
its content after. Both are valid, so a kill between the two writes of a commit does no harm.

keygap 0.1 wrote no checksums. Its runs are read without verification.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from keygap.errors import Damaged
from keygap.store.files import write_text
from keygap.store.reading import is_missing, read_text
from keygap.store.run import CHECKSUMS

Recorded = Mapping[str, tuple[str, ...]]  # the checksums of each file, by path in the run folder
REPAIR = "repeat the keygap extract or keygap run that made the run, it does only this again"
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
_SEAL = "# sha256 of the lines above: "


def read_checksums(root: Path, remedy: str = REPAIR) -> dict[str, tuple[str, ...]] | None:
    """The checksums of a run; None if its folder has none.

    Args:
        root: the run folder.
        remedy: what the user can do if the file is damaged.

    Raises:
        CannotRead: the file cannot be read now.
        Damaged: it is damaged.
    """
    path = root / CHECKSUMS
    try:
        text = read_text(path, remedy)
    except Damaged as error:
        if is_missing(error):
            return None
        raise
    lines, _, seal = text.rpartition(_SEAL)
    if seal != f"{_digest(lines)}\n":
        raise Damaged(f"{path} is damaged (its own SHA-256 is not that of its lines): {remedy}")
    recorded: dict[str, tuple[str, ...]] = {}
    for line in lines.splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            raise Damaged(f"{path} is damaged (it has a line {line[:80]!r}): {remedy}")
        recorded[found[2]] = (*recorded.get(found[2], ()), found[1])
    return recorded


def write_checksums(root: Path, recorded: Recorded) -> None:
    """Write the checksums of a run.

    Raises:
        UserError: the disk is full, or the file cannot be written.
    """
    write_text(root / CHECKSUMS, text_of(recorded))


def text_of(recorded: Recorded) -> str:
    """What the file says of these checksums."""
    lines = "".join(f"{one}  {name}\n" for name in sorted(recorded) for one in recorded[name])
    return f"{lines}{_SEAL}{_digest(lines)}\n"


def checksums_of(
    root: Path, name: str, recorded: Recorded | None, remedy: str = REPAIR
) -> tuple[str, ...] | None:
    """Each checksum that a file may have; None if the run has no checksums.

    Args:
        root: the run folder.
        name: path of the file in it.
        recorded: the checksums of the run.
        remedy: what the user can do if there is none of this file.

    Raises:
        Damaged: the run has checksums and none of this file.
    """
    if recorded is None:
        return None
    if name not in recorded:
        raise Damaged(f"{root / name} was not written by this run, or not to the end: {remedy}")
    return recorded[name]


def _digest(lines: str) -> str:
    return hashlib.sha256(lines.encode()).hexdigest()
