"""A copy of a run at an address such as ``s3://bucket/run``, which follows the run folder.

A machine may be taken away with its disk. So each part is copied as soon as it is committed, and
another machine that is given an empty folder and the same address continues from the copy. What
counts is the folder: the copy follows it and is never read while a folder holds a run.

An object store writes objects whole and does not append. In the place of the journal, each commit
is therefore an object of its own, in ``commits``, written after the files of its part. A kill
between two writes leaves a part that is not committed and will be copied again.

Object stores fail now and then, so writes are repeated. If one keeps failing, the command ends and
the folder is whole. The files of parts are copied beside the forward passes.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import fsspec

from keygap.arguments import address_of
from keygap.errors import CannotWrite, UserError
from keygap.store.files import explained, remove, write_bytes
from keygap.store.journal import Commit, line_of
from keygap.store.lock import locked
from keygap.store.run import (
    CHECKSUMS,
    EXTRACTION,
    JOURNAL,
    LOCK,
    MANIFEST,
    SAMPLES,
    THUMBNAILS,
    TOKENS,
    VECTORS,
    part_name,
)

COMMITS = "commits"  # a folder with one object for each part that is committed
COPIES = 8  # files that are copied at once
WAITS = (0.2, 1.0, 5.0)  # seconds before a write is repeated
FRESH = 300.0  # seconds in which a writer that was killed is taken for one that works
# What repeating does not mend.
FINAL = (FileNotFoundError, PermissionError, NotImplementedError)
Result = TypeVar("Result")
logger = logging.getLogger("keygap")


def file_system_of(address: str, what: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of an address, and the path in it.

    Args:
        address: such as ``s3://bucket/run``.
        what: the argument's name, for messages.

    Raises:
        UserError: it is no address, no file system is known for it, or a package is missing.
    """
    address_of(address, what)
    try:
        system, base = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError, OSError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{what} {address} cannot be reached: {line}") from error
    return system, base.rstrip("/")


class Mirror:
    """The copy of one run. It is written inside a ``with`` block.

    Args:
        address: where it is.
        root: the run folder.
        identity: the content of the extraction's ``extraction.yaml``.

    Raises:
        UserError: the address is none, or a package that reaches it is missing.
    """

    def __init__(self, address: str, root: Path, identity: str) -> None:
        self._system, self._base = file_system_of(address, "mirror")
        self.address, self.root = address.rstrip("/"), root
        self._identity = identity.encode()
        self._token = secrets.token_hex(8)  # tells this writer from those before and after it
        self._made: set[str] = set()  # folders, which object stores do not have
        self._copying: Future[None] | None = None
        self._next = ThreadPoolExecutor(1, "keygap-mirror")

    def __enter__(self) -> Self:
        """Claim the address.

        Raises:
            UserError: it holds another extraction, another process writes there, or it cannot be
                written.
        """
        self._refuse_other()
        self._refuse_claimed()
        self._claim()
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        """Wait for what is being copied, and give the address up."""
        self._next.shutdown(cancel_futures=kind is not None)
        try:
            if self._is_ours():
                self._repeated(lambda: self._system.rm_file(self._place(LOCK)), LOCK, "removed")
        except CannotWrite as error:  # what ended the block matters more
            logger.warning("%s", error)

    def restore(self) -> None:
        """Fill the run folder from the copy, if there is a copy and the folder holds nothing.

        What arrives is verified by the writer that opens the run.

        Raises:
            UserError: the copy is of another extraction or cannot be read, or the folder cannot be
                written.
        """
        if self.root.exists() and any(self.root.iterdir()):
            return
        names = self._listed()
        if EXTRACTION not in names:
            return
        self._refuse_other()
        logger.info("%s: continues from the copy at %s", self.root, self.address)
        beside = self.root.with_name(f".{self.root.name}.restored")  # whole before it has its name
        with locked(beside):
            for left in set(beside.iterdir()) - {beside / LOCK}:
                remove(left)
            parts = [name for name in names if name.split("/")[0] in (TOKENS, VECTORS, THUMBNAILS)]
            self._at_once(lambda name: self._fetch(name, beside), [EXTRACTION, *parts])
            commits = sorted(name for name in names if name.startswith(f"{COMMITS}/"))
            write_bytes(beside / JOURNAL, b"".join(self._read(name) or b"" for name in commits))
            try:
                beside.replace(self.root)
            except OSError as error:
                raise explained(error, self.root) from error

    def follow(self, commits: Mapping[int, Commit], finished: bool) -> None:
        """Copy what the folder has and the copy does not.

        Args:
            commits: the committed parts of the folder, by number.
            finished: whether the folder's extraction is.

        Raises:
            UserError: the address cannot be written, or another process took it over.
        """
        names = self._listed()
        if MANIFEST in names and not finished:  # parts will be extracted again
            self._write(lambda: self._system.rm_file(self._place(MANIFEST)), MANIFEST)
        self._put_bytes(EXTRACTION, self._identity)
        for number, commit in commits.items():
            sizes = {name: (self.root / name).stat().st_size for name in commit.checksums}
            whole = sizes.items() <= names.items()
            if not whole or self._read(_name(number)) != line_of(commit):
                self.push(number, commit)

    def push(self, number: int, commit: Commit) -> None:
        """Copy a part that is committed, while the caller goes on.

        Args:
            number: of the part.
            commit: its rows and checksums.

        Raises:
            UserError: the part before could not be copied, or another process took the address
                over.
        """
        self._wait()
        self._copying = self._next.submit(self._push, number, commit)

    def finish(self) -> None:
        """Copy the files that hold the whole run, the manifest last.

        Raises:
            UserError: the address cannot be written, or another process took it over.
        """
        self._wait()
        for name in (SAMPLES, CHECKSUMS, MANIFEST):
            self._put(name)

    def _wait(self) -> None:
        if self._copying is not None:
            self._copying.result()

    def _push(self, number: int, commit: Commit) -> None:
        if not self._is_ours():
            raise CannotWrite(f"{self.address} was taken over by another process: see {LOCK} there")
        self._claim()  # still at work
        self._at_once(self._put, commit.checksums)
        self._put_bytes(_name(number), line_of(commit))

    def _refuse_other(self) -> None:
        found = self._read(EXTRACTION)
        if found is not None and found != self._identity:
            raise UserError(
                f"{self.address} holds the copy of another extraction: name another address"
            )

    def _refuse_claimed(self) -> None:
        claim = self._claimed()
        age = time.time() - float(claim.get("time", 0))
        here = (claim.get("host"), claim.get("folder")) == (socket.gethostname(), self._folder)
        if not here and 0 <= age < FRESH:  # here, the lock of the folder says whether it works
            raise CannotWrite(
                f"{self.address} was written {age:.0f} seconds ago by process "
                f"{claim.get('process')} on {claim.get('host')}: name another address, or wait for "
                f"it to end; if it was killed, repeat the command {FRESH:.0f} seconds after that"
            )

    def _claim(self) -> None:
        claim = {
            "token": self._token,
            "process": os.getpid(),
            "host": socket.gethostname(),
            "folder": self._folder,
            "time": time.time(),
        }
        self._put_bytes(LOCK, json.dumps(claim).encode())

    def _claimed(self) -> dict[str, Any]:
        """Who writes at the address, as they say."""
        try:
            found = json.loads(self._read(LOCK) or b"{}")
        except ValueError:  # not ours, or half a write
            return {}
        return found if isinstance(found, dict) else {}

    def _is_ours(self) -> bool:
        return bool(self._claimed().get("token") == self._token)

    @property
    def _folder(self) -> str:
        return str(self.root.absolute())

    def _place(self, name: str) -> str:
        return f"{self._base}/{name}"

    def _listed(self) -> dict[str, int]:
        """The size of every object of the copy, by its name in it."""
        found = self._repeated(lambda: self._system.find(self._base, detail=True), "", "read")
        start = len(self._base) + 1
        return {path[start:]: int(info["size"]) for path, info in found.items()}

    def _read(self, name: str) -> bytes | None:
        """The content of an object; None if there is none."""

        def read() -> bytes | None:
            try:
                return bytes(self._system.cat_file(self._place(name)))
            except FileNotFoundError:
                return None

        return self._repeated(read, name, "read")

    def _fetch(self, name: str, folder: Path) -> None:
        target = folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explained(error, target) from error
        self._repeated(lambda: self._system.get_file(self._place(name), str(target)), name, "read")

    @staticmethod
    def _at_once(copy: Callable[[str], None], names: Iterable[str]) -> None:
        """Copy several files, or raise what the first of them raises."""
        with ThreadPoolExecutor(COPIES, "keygap-copy") as threads:
            list(threads.map(copy, names))

    def _put(self, name: str) -> None:
        source = str(self.root / name)
        self._write(lambda: self._system.put_file(source, self._place(name)), name)

    def _put_bytes(self, name: str, data: bytes) -> None:
        self._write(lambda: self._system.pipe_file(self._place(name), data), name)

    def _write(self, action: Callable[[], object], name: str) -> None:
        folder = self._place(name).rpartition("/")[0]
        if folder not in self._made:
            self._repeated(lambda: self._system.makedirs(folder, exist_ok=True), name, "written")
            self._made.add(folder)
        self._repeated(action, name, "written")

    def _repeated(self, action: Callable[[], Result], name: str, what: str) -> Result:
        """Do something at the address, again if it fails.

        Raises:
            UserError: it keeps failing.
        """
        place = f"{self.address}/{name}".rstrip("/")
        remedy = f"what is in {self.root} is kept; repeat the command, it continues"
        for wait in (*WAITS, None):
            try:
                return action()
            except Exception as error:  # what a file system raises is its own
                line = (str(error).splitlines() or [type(error).__name__])[0][:200]
                if wait is None or isinstance(error, FINAL):
                    raise CannotWrite(f"{place} cannot be {what} ({line}): {remedy}") from error
                logger.warning("%s could not be %s (%s), tried again", place, what, line)
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")


def _name(number: int) -> str:
    """The object that commits a part."""
    return f"{COMMITS}/{part_name(number)}".replace(".parquet", ".json")
