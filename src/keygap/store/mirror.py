"""A copy of a run at an address such as ``s3://bucket/run``, which follows the run folder.

A machine may be taken away with its disk. So each part is copied as soon as it is committed, and
another machine that is given an empty folder and the same address continues from the copy. What
counts is the folder: what is committed in it is never changed by the copy.

An object store writes objects whole and does not append. In the place of the journal, each commit
is therefore an object of its own, in ``commits``. It is removed before the files of its part are
replaced, and written after them, so a kill leaves a part that is not committed.

A write that fails is repeated. If it keeps failing, the command ends and the folder is whole. The
files of parts are copied beside the forward passes.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from keygap.errors import CannotWrite, UserError
from keygap.store.checksums import REPAIR, read_checksums, text_of
from keygap.store.claim import Claim
from keygap.store.files import write_bytes
from keygap.store.journal import Commit, commit_of, line_of, read_journal
from keygap.store.lock import at_work
from keygap.store.objects import COPIES, Objects
from keygap.store.reading import read_bytes
from keygap.store.recovery import is_of_extraction
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
    part_number,
)
from keygap.store.writer import StoreWriter, differing_key

COMMITS = "commits"  # a folder with one object for each part that is committed
SENT = ".keygap-sent"  # a folder with what workers sent and nobody has received
logger = logging.getLogger("keygap")


def refuse_unreachable(address: str | None, what: str) -> None:
    """Refuse an address that no file system is known for, before any work is done.

    Args:
        address: where a copy is to be; None if nowhere.
        what: the argument's name, for messages.

    Raises:
        UserError: it is one.
    """
    if address is not None:
        Objects.at(address, what)


@contextmanager
def mirrored(
    address: str | None, root: Path, identity: Mapping[str, Any]
) -> Iterator[Mirror | None]:
    """The copy of a run, while the run is made; None without an address.

    The folder is locked, the address claimed, and an empty folder filled from the copy.

    Args:
        address: where the copy is.
        root: the run folder.
        identity: of the extraction.

    Raises:
        UserError: the folder or the address is written by another process, or cannot be; or the
            address holds the copy of another extraction.
    """
    if address is None:
        yield None
        return
    objects = Objects.at(address, "mirror")
    objects.refuse_inside(root)
    copy = Mirror(objects, root, identity)
    copy.refuse_other()  # at once, and again after the claim was waited for
    with at_work(root), Claim(objects, root) as claim:
        copy.refuse_other()
        copy.restore()
        with copy.following(claim):
            yield copy


class Mirror:
    """The copy of one run.

    Args:
        objects: the objects at its address.
        root: the run folder.
        identity: of the extraction.
    """

    def __init__(self, objects: Objects, root: Path, identity: Mapping[str, Any]) -> None:
        self.objects, self.root, self.identity = objects, root, identity
        self._claim: Claim | None = None
        self._copying: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, "keygap-mirror")

    def refuse_other(self) -> None:
        """Refuse an address or a folder that holds another extraction, or something else.

        Raises:
            UserError: it is one, or it cannot be read.
        """
        StoreWriter(self.root, self.identity).refuse_other()
        text = self.objects.read(EXTRACTION)
        if text is None:
            return
        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError:
            found = None
        if not isinstance(found, dict):
            raise UserError(f"{self.objects.address}/{EXTRACTION} is damaged: remove it")
        key = differing_key(self.identity, found)
        if key is not None:
            raise UserError(
                f"{self.objects.address} holds the copy of another extraction, whose {key} is not "
                "the one asked for: name another address"
            )

    def restore(self) -> None:
        """Fill the run folder from the copy, if nothing is committed in the folder.

        The parts up to the first one that is missing are fetched. The writer that opens the run
        compares them with their checksums.

        Raises:
            UserError: the copy cannot be read, or the folder cannot be written.
        """
        text = self.objects.read(EXTRACTION)
        if text is None or (self.root / SAMPLES).exists() or read_journal(self.root):
            return
        lines = list(self._committed())
        if not lines:
            return
        logger.info("%s: continues from the copy at %s", self.root, self.objects.address)
        names = [name for _, commit in lines for name in commit.checksums]
        if other := next((name for name in names if not _is_of_part(name)), None):
            raise UserError(
                f"{self.objects.address} lists {other!r}, which is not the file of a part"
            )
        write_bytes(self.root / EXTRACTION, text)  # from here on the folder is a run
        self.objects.fetch(names, self.root)
        write_bytes(self.root / JOURNAL, b"".join(line for line, _ in lines))

    @contextmanager
    def following(self, claim: Claim) -> Iterator[None]:
        """Let the block push parts; at its end, wait for what is being copied.

        What workers sent and nobody received is removed before and after.
        """
        self._claim = claim
        self._remove_sent()
        with self._thread:
            try:
                yield
            except BaseException as raised:
                error = None if self._copying is None else self._copying.exception()
                if error is not None and error is not raised:
                    logger.warning("%s", error)
                raise
            finally:
                self._remove_sent()

    def follow(self, commits: Mapping[int, Commit], finished: bool) -> None:
        """Copy the parts that the folder has and the copy does not.

        Args:
            commits: the committed parts of the folder, by number.
            finished: whether the folder's extraction is.

        Raises:
            UserError: the address cannot be written, or another process took it over.
        """
        found = dict(zip(commits, self.objects.read_all(map(_name, commits)), strict=True))
        late = [number for number in commits if found[number] != line_of(commits[number])]
        if late or not finished:
            self._refuse_lost()
            self.objects.remove(MANIFEST)
        if commits:
            self._say_what_it_is()
        for number in late:
            self.push(number, commits[number])

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
        self._copying = self._thread.submit(self._push, number, commit)

    def receive(self, prefix: str, checksums: Mapping[str, str]) -> None:
        """Move the files of a part that another process sent into the run folder.

        Args:
            prefix: what ``send`` returned.
            checksums: the SHA-256 of each file.

        Raises:
            UserError: a file is not there or was damaged, the folder cannot be written, or another
                process took the address over.
        """
        sent = self.objects.below(prefix)
        found = sent.fetch(checksums, self.root)
        for name, digest in checksums.items():
            if found.get(name) == digest:
                continue
            self._refuse_lost()
            if name not in found:
                raise UserError(
                    f"a worker wrote {sent.address}/{name}, which is not there: name an address "
                    "with --mirror that all nodes share"
                )
            raise UserError(
                f"{sent.address}/{name} was damaged on its way from a worker: repeat the command, "
                "it continues"
            )
        sent.remove_all(checksums)
        sent.remove_empty("")

    def finish(self) -> None:
        """Copy the files that hold the whole run, the manifest last.

        Raises:
            UserError: the address cannot be written, a file of the folder cannot be read, or
                another process took the address over.
        """
        self._wait()
        recorded = read_checksums(self.root) or {}
        own = {name: sums for name, sums in recorded.items() if is_of_extraction(name)}
        whole = {name: read_bytes(self.root / name, REPAIR) for name in (SAMPLES, MANIFEST)}
        whole = {CHECKSUMS: text_of(own).encode(), **whole}  # results are not copied
        if self.objects.read_all(whole) == list(whole.values()):
            return
        self._refuse_lost()
        self.objects.remove(MANIFEST)
        for name, data in whole.items():
            self.objects.write(name, data)

    def _remove_sent(self) -> None:
        """Remove what nobody will receive. If that fails, the next command tries again."""
        try:
            if self._holds():
                self.objects.remove_all(filter(_was_sent, self.objects.listed(SENT)))
                self.objects.remove_empty(SENT)
        except UserError as error:
            logger.warning(
                "%s/%s may hold parts that nobody needs, which the next command with this mirror "
                "removes (%s)",
                *(self.objects.address, SENT, error.__cause__ or error),
            )

    def _say_what_it_is(self) -> None:
        """Write the identity of the copy, unless it is there."""
        if self.objects.read(EXTRACTION) != read_bytes(self.root / EXTRACTION, REPAIR):
            self.objects.put(EXTRACTION, self.root)

    def _wait(self) -> None:
        if self._copying is not None:
            self._copying.result()

    def _push(self, number: int, commit: Commit) -> None:
        self._refuse_lost()
        self._say_what_it_is()
        self.objects.remove(_name(number))
        self.objects.put_all(commit.checksums, self.root)
        self._refuse_lost()
        self.objects.write(_name(number), line_of(commit))

    def _holds(self) -> bool:
        """Whether the address is this process's to write."""
        return self._claim is not None and self._claim.is_held()

    def _refuse_lost(self) -> None:
        if not self._holds():
            raise CannotWrite(
                f"{self.objects.address} was taken over by another process: see {LOCK} there"
            )

    def _committed(self) -> Iterator[tuple[bytes, Commit]]:
        """The commits of the copy up to the first that is missing, each with its line."""
        for first in count(0, COPIES):
            names = [_name(number) for number in range(first, first + COPIES)]
            for line in self.objects.read_all(names):
                commit = None if line is None else commit_of(line.decode(errors="replace"))
                if line is None or commit is None:
                    return
                yield line, commit


def send(objects: Objects, names: Iterable[str], folder: Path) -> str:
    """Send the files of a part to the process that makes the copy.

    They get a place of their own below ``SENT``, because only the holder of the claim may write
    where the copy is.

    Args:
        objects: those at the address of the copy.
        names: the paths of the files in the folder.
        folder: where they are.

    Returns:
        The place, for ``Mirror.receive``.

    Raises:
        UserError: the address cannot be written.
    """
    prefix = f"{SENT}/{secrets.token_hex(8)}"
    objects.below(prefix).put_all(names, folder)
    return prefix


def _name(number: int) -> str:
    """The object that commits a part."""
    return f"{COMMITS}/{part_name(number)}".replace(".parquet", ".json")


def _was_sent(name: str) -> bool:
    """Whether ``send`` made an object, and not the user."""
    found = re.fullmatch(rf"{re.escape(SENT)}/[0-9a-f]{{16}}/(.+)", name)
    return found is not None and _is_of_part(found[1])


def _is_of_part(name: str) -> bool:
    """Whether a path that a commit names is that of a part's file, and not outside of the run."""
    folder, *below = name.split("/")
    ours = folder in (TOKENS, VECTORS, THUMBNAILS) and ".." not in below
    return ours and part_number(name) is not None
