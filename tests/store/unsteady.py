"""A file system of fsspec, in memory, that is made to fail."""

from __future__ import annotations

import json
import time
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from keygap.store.mirror import COMMITS

ADDRESS = "unsteady://bucket/run"


class Unsteady(MemoryFileSystem):
    """A file system in memory, of which every so many writes fail."""

    protocol = "unsteady"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    fails: ClassVar[int] = 0  # every so many writes; 0: none
    error: ClassVar[Exception] = OSError("503 slow down")
    writes: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("unsteady://", "memory://"))

    def _written(self, path: str) -> None:
        self.writes.append(path)
        if self.fails and len(self.writes) % self.fails == 0:
            raise self.error

    def put_file(self, lpath, rpath, **options):
        self._written(rpath)
        return super().put_file(lpath, rpath, **options)

    def pipe_file(self, path, value, **options):
        self._written(path)
        return super().pipe_file(path, value, **options)


fsspec.register_implementation("unsteady", Unsteady, clobber=True)


def copied() -> dict[str, bytes]:
    """The objects of the copy by name, without what only the copy has."""
    start = len("/bucket/run/")
    found = {name[start:]: file.getvalue() for name, file in Unsteady.store.items()}
    return {name: data for name, data in found.items() if not name.startswith(COMMITS)}


def claim_of(**changed: object) -> bytes:
    """The claim of another process."""
    made = {"token": "0", "process": 7, "host": "elsewhere", "folder": "/x", "time": time.time()}
    return json.dumps(made | changed).encode()
