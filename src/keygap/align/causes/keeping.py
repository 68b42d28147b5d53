"""The files of points, each written as soon as it is measured, in a folder for one purpose.

An interrupted run continues with the next point. A folder says what it is for, and is refused for
anything else, since points of different samples or models cannot be compared.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keygap.align.causes.points import Point
from keygap.errors import UserError
from keygap.store.files import write_bytes
from keygap.store.interim import read_interim, write_interim
from keygap.store.reading import read_json

if TYPE_CHECKING:
    from keygap.align.causes.judging import Judged

IDENTITY = "identity.json"
OTHER = "name another folder, or remove this one"


def claim(folder: Path, identity: Mapping[str, Any], what: str) -> None:
    """Record what a folder is for, or refuse one that is for something else.

    Args:
        folder: the folder of points.
        identity: what decides every number, as plain values.
        what: what the folder holds, for the message.

    Raises:
        UserError: the folder is for something else.
    """
    mine = json.loads(json.dumps(identity))
    file = folder / IDENTITY
    if not file.is_file():
        write_bytes(file, json.dumps(mine, indent=1).encode())
        return
    other = read_json(file, OTHER, None)
    if changed := [name for name, value in mine.items() if other.get(name) != value]:
        raise UserError(
            f"{folder} holds {what} with another {changed[0]} ({other.get(changed[0])}): {OTHER}"
        )


def point_file(folder: Path, point: Point) -> Path:
    """The file of a point."""
    return folder / f"{re.sub(r'[^A-Za-z0-9.+-]+', '_', point.id)}.json"


def read_point(file: Path) -> dict[str, Any]:
    """What was kept of a point.

    Raises:
        UserError: the file is damaged.
    """
    return read_interim(file, f"remove {file} and run again")


def write_point(file: Path, values: Mapping[str, Any]) -> None:
    """Keep what was measured at a point, as plain values.

    Raises:
        UserError: the file cannot be written.
    """
    write_interim(file, values)


def as_plain(judged: Judged) -> dict[str, Any]:
    """What was measured at a point, as JSON values."""
    return {
        "samples": json.loads(judged.samples.to_json(orient="records", double_precision=12)),
        "rows": json.loads(judged.rows.to_json(orient="records", double_precision=12)),
        "left_out": judged.left_out,
    }


def digest_of(names: Sequence[str]) -> str:
    """A short digest of names in their order."""
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()[:16]
