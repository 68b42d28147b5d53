"""The engine that extracts in this process: a part is written while the next one is computed.

A part is handed on once the next one has been read. A process that is killed (kill -9) meanwhile
can therefore lose two parts: the one that is read, and the one before.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from keygap.engines.ahead import BatchLimit
from keygap.engines.part import ReadPart, read_parts
from keygap.engines.plan import Plan, WrittenPart
from keygap.store import write_part


class LocalEngine:
    """Extracts the parts of a plan in this process.

    Args:
        limit: the size of batches, which is remembered from one call to the next; by default that
            of the plan.
    """

    def __init__(self, limit: BatchLimit | None = None) -> None:
        self._limit = limit

    def run(self, plan: Plan, numbers: Sequence[int], root: Path) -> Generator[WrittenPart]:
        """See ``Engine.run``."""
        before: Future[WrittenPart] | None = None
        with (
            ThreadPoolExecutor(1, "keygap-write") as writing,
            closing(read_parts(plan, numbers, self._limit)) as parts,
        ):
            for _ in numbers:
                try:
                    part = next(parts)
                except BaseException:  # the files of the part before are complete, whatever failed
                    if before is not None:
                        yield before.result()
                    raise
                if before is not None:
                    yield before.result()
                before = writing.submit(_written, part, root)
            if before is not None:
                yield before.result()


def _written(part: ReadPart, root: Path) -> WrittenPart:
    tables = part.tables()
    return WrittenPart(part.number, tables.samples, write_part(root, part.number, tables))
