"""The objects at an address, in any file system of fsspec that several threads may use.

Object stores fail now and then, so every read and write is repeated a few times. What keeps failing
is one line that names the object. A listing may lack some objects, so it is only used to tidy up.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import fsspec

from keygap.arguments import address_of, followed
from keygap.errors import CannotWrite, UserError
from keygap.store.files import write_bytes
from keygap.text import first_line

COPIES = 8  # objects that are copied at once
WAITS = (0.2, 1.0, 5.0)  # seconds before another attempt
# Errors that another attempt cannot cure.
FINAL = (FileNotFoundError, PermissionError, NotImplementedError)
Result = TypeVar("Result")
logger = logging.getLogger("keygap")


@dataclass(frozen=True)
class Objects:
    """The objects at an address.

    Attributes:
        address: without a slash at its end.
        system: its file system.
        base: the path of the address in it.
    """

    address: str
    system: Any
    base: str

    @classmethod
    def at(cls, address: str, what: str) -> Self:
        """The objects at an address.

        Args:
            address: such as ``s3://bucket/run``.
            what: the argument's name, for messages.

        Raises:
            UserError: it is not an address, no file system is known for it, a package is missing,
                or it cannot be reached.
        """
        address_of(address, what)
        try:
            system, base = fsspec.core.url_to_fs(address)
        except Exception as error:  # each file system raises its own
            raise UserError(f"{what} {address} cannot be reached: {first_line(error)}") from error
        return cls(address.rstrip("/"), system, base.rstrip("/"))

    def below(self, prefix: str) -> Self:
        """The objects whose names begin with a prefix and a slash."""
        return replace(self, address=f"{self.address}/{prefix}", base=f"{self.base}/{prefix}")

    @property
    def anywhere(self) -> str:
        """The address in a form that does not depend on the working folder of a process."""
        here = "file" in self.system.protocol
        return str(self.system.unstrip_protocol(self.base)) if here else self.address

    def refuse_inside(self, folder: Path) -> None:
        """Refuse an address that is a folder on this machine inside another one.

        Raises:
            UserError: it is.
        """
        here = "file" in self.system.protocol
        if here and followed(Path(self.base)).is_relative_to(followed(folder.absolute())):
            raise UserError(f"{self.address} is inside {folder}: name an address outside of it")

    def read(self, name: str) -> bytes | None:
        """The content of an object; None if there is none.

        Raises:
            UserError: it cannot be read.
        """

        def read() -> bytes | None:
            try:
                return bytes(self.system.cat_file(self._place(name)))
            except FileNotFoundError:
                return None

        return self._repeated(read, name, "read")

    def read_all(self, names: Iterable[str]) -> list[bytes | None]:
        """The contents of several objects, in order; see ``read``."""
        return self._at_once(self.read, names)

    def fetch(self, names: Iterable[str], folder: Path) -> dict[str, str]:
        """Copy objects into a folder, each whole or not at all.

        Args:
            names: the objects, and the paths in the folder.
            folder: the folder.

        Returns:
            The SHA-256 of each file; those that do not exist are left out.

        Raises:
            UserError: one cannot be read, or the folder cannot be written.
        """

        def fetch(name: str) -> tuple[str, str] | None:
            data = self.read(name)
            return None if data is None else (name, write_bytes(folder / name, data))

        return dict(filter(None, self._at_once(fetch, names)))

    def write(self, name: str, data: bytes) -> None:
        """Write an object.

        Raises:
            UserError: it cannot be written.
        """
        self._write(lambda: self.system.pipe_file(self._place(name), data), name)

    def put(self, name: str, folder: Path) -> None:
        """Copy a file of a folder; the object has the file's path in the folder as its name.

        Raises:
            UserError: it cannot be written.
        """
        self._write(lambda: self.system.put_file(str(folder / name), self._place(name)), name)

    def put_all(self, names: Iterable[str], folder: Path) -> None:
        """Copy several files; see ``put``."""
        self._at_once(lambda name: self.put(name, folder), names)

    def remove(self, name: str) -> None:
        """Remove an object, if it exists.

        Raises:
            UserError: it cannot be removed.
        """

        def remove() -> None:
            try:
                self.system.rm_file(self._place(name))
            except FileNotFoundError:
                return

        self._repeated(remove, name, "removed")

    def remove_all(self, names: Iterable[str]) -> None:
        """Remove several objects; see ``remove``."""
        self._at_once(self.remove, names)

    def listed(self, prefix: str) -> list[str]:
        """The names that begin with a prefix and a slash, as far as a listing shows them.

        Raises:
            UserError: they cannot be listed.
        """

        def find() -> list[str]:
            self.system.invalidate_cache()  # other processes write there
            return list(self.system.find(self._place(prefix)))

        found = self._repeated(find, prefix, "listed")
        return [path.removeprefix(f"{self.base}/") for path in found]

    def remove_empty(self, prefix: str) -> None:
        """Remove a folder on this machine and those in it, if they are empty.

        Object stores have none; those of other file systems stay.
        """
        if "file" in self.system.protocol:
            for folder, _, _ in os.walk(self._place(prefix), topdown=False):
                with suppress(OSError):  # it is not empty
                    os.rmdir(folder)

    def _place(self, name: str) -> str:
        return f"{self.base}/{name}"

    def _write(self, action: Callable[[], object], name: str) -> None:
        """Write an object, after making its folder where the file system has folders."""

        def write() -> None:
            try:
                action()
            except FileNotFoundError:
                top = self.base[:1] + self.base[1:].partition("/")[0]
                if not self.system.exists(top):  # a bucket, which is the user's to make
                    raise
                self.system.makedirs(self._place(name).rpartition("/")[0], exist_ok=True)
                action()

        self._repeated(write, name, "written")

    @staticmethod
    def _at_once(action: Callable[[str], Result], names: Iterable[str]) -> list[Result]:
        """Do the same with several objects at once, or raise what the first of them raises."""
        with ThreadPoolExecutor(COPIES, "keygap-copy") as threads:
            return list(threads.map(action, names))

    def _repeated(self, action: Callable[[], Result], name: str, what: str) -> Result:
        """Do something with an object, again if it fails.

        Raises:
            UserError: it keeps failing.
        """
        place = f"{self.address}/{name}"
        for wait in WAITS:
            try:
                return action()
            except FINAL as error:
                raise _gave_up(place, what, error) from error
            except Exception as error:  # each file system raises its own
                logger.warning("%s cannot be %s (%s): tried again", place, what, first_line(error))
                time.sleep(wait)
        try:
            return action()
        except Exception as error:
            raise _gave_up(place, what, error) from error


def _gave_up(place: str, what: str, error: Exception) -> CannotWrite:
    return CannotWrite(
        f"{place} cannot be {what} ({first_line(error)}): nothing that is in the folder is lost, "
        "and the command continues when it is repeated"
    )
