"""A claim on an address, held by one process at a time.

Object stores have no locks. So a writer leaves an object that says who it is, and renews it. A
claim that is not renewed is that of a process that was killed, and another takes it over. A writer
whose claim was taken over notices before its next commit.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any, Self

from keygap.errors import CannotWrite
from keygap.store.objects import Objects
from keygap.store.run import LOCK

RENEWED = 20.0  # seconds between two renewals
HELD = 90.0  # seconds for which a claim that is not renewed is respected
HALF = 0.3  # seconds in which a claim that is being written becomes whole
logger = logging.getLogger("keygap")


class Claim:
    """The claim on an address, between ``__enter__`` and ``__exit__``.

    Args:
        objects: those at the address.
        root: the folder whose copy is written there. Its lock is held: an earlier claim for it is
            that of a process that has ended.
    """

    def __init__(self, objects: Objects, root: Path) -> None:
        self._objects = objects
        self._own = {
            "token": secrets.token_hex(8),
            "process": os.getpid(),
            "host": socket.gethostname(),
            "folder": str(root.absolute()),
        }
        self._ended = threading.Event()
        self._access = threading.Lock()  # a renewal is not read half by this process
        self._renewing = threading.Thread(target=self._renew, name="keygap-claim", daemon=True)

    def __enter__(self) -> Self:
        """Claim the address, waiting for another process's claim to expire.

        Raises:
            UserError: the other process renews it, or the address cannot be written.
        """
        found = self._found()
        if found and not self._is_of_this_folder(found):
            self._wait_for(found)
        self._write()
        self._renewing.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the address up."""
        self._ended.set()
        self._renewing.join()
        try:
            if self.is_held():
                self._objects.remove(LOCK)
        except CannotWrite as error:  # what ended the block matters more
            logger.warning("%s", error)

    def is_held(self) -> bool:
        """Whether no other process has taken the address over.

        Raises:
            UserError: it cannot be read.
        """
        with self._access:
            return bool(self._found().get("token") == self._own["token"])

    def _is_of_this_folder(self, found: dict[str, Any]) -> bool:
        return all(found.get(name) == self._own[name] for name in ("host", "folder"))

    def _wait_for(self, found: dict[str, Any]) -> None:
        """Wait until a claim is no longer respected.

        Raises:
            UserError: it is renewed meanwhile.
        """
        address = self._objects.address
        holder = f"process {found.get('process')} on {found.get('host')}"
        age = abs(time.time() - _seconds(found.get("time")))
        left = max(HELD - age, 2.5 * RENEWED)  # the clocks of two machines may differ
        logger.info("%s: waiting %.0f s to see whether %s is still there", address, left, holder)
        self._ended.wait(left)
        if self._found().get("time") not in (found.get("time"), None):
            raise CannotWrite(
                f"{address} is being written by {holder}: wait for it to end, or name another "
                "address"
            )

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED):
            try:
                if not self.is_held():
                    return
                self._write()
            except CannotWrite as error:  # the next commit fails too, and says so
                logger.warning("%s", error)

    def _write(self) -> None:
        with self._access:
            self._objects.write(LOCK, json.dumps({**self._own, "time": time.time()}).encode())

    def _found(self) -> dict[str, Any]:
        """Who writes at the address, as they say; empty if nobody does."""
        for wait in (HALF, HALF, None):
            text = self._objects.read(LOCK)
            try:
                found = {} if text is None else json.loads(text)
            except ValueError:  # half a write
                found = None
            if isinstance(found, dict) or wait is None:
                break
            time.sleep(wait)
        return found if isinstance(found, dict) else {}


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
