"""Values that a command keeps while it works, for the command that continues after an interruption.

``checksums.sha256`` records finished results only. So each of these files has the checksum of its
values beside them: a damaged number would otherwise end up in a table without a word.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keygap.errors import Damaged
from keygap.store.files import write_text
from keygap.store.reading import read_json


def write_interim(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values as JSON, whole or not at all. Missing folders are created.

    Raises:
        UserError: the disk is full, or the file cannot be written.
    """
    text = json.dumps(values)
    write_text(path, f'{{"sha256": "{_digest(text)}", "values": {text}}}')


def read_interim(path: Path, remedy: str) -> dict[str, Any]:
    """The values that ``write_interim`` wrote.

    Args:
        path: of the file.
        remedy: what the user can do if it is damaged.

    Raises:
        CannotRead: the file cannot be read now.
        Damaged: it is missing, or is not as it was written.
    """
    found = read_json(path, remedy)
    values = found.get("values")
    if not isinstance(values, dict) or found.get("sha256") != _digest(json.dumps(values)):
        raise Damaged(f"{path} is damaged (its values have another checksum): {remedy}")
    return values


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
