"""From the samples of a part to the tables of that part.

What was read becomes tables in a step of its own, so that an engine can take that step while the
model computes the next part.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from keygap.capture.batches import Reasons
from keygap.capture.hooks import Capture
from keygap.capture.keeping import Draw
from keygap.capture.tables import CapturedBatch, failed_row, vector_tables
from keygap.engines.ahead import BatchLimit, Prepared, prepared, run_within_memory
from keygap.engines.lanes import lanes_of, side_by_side
from keygap.engines.plan import Plan
from keygap.progress import track
from keygap.store import PartTables
from keygap.store.schema import SAMPLES_SCHEMA


@dataclass(frozen=True)
class ReadPart:
    """What was read of the samples of a part.

    Attributes:
        plan: of the extraction.
        number: of the part, from 0.
        read: what is kept of each forward pass.
        bad: id of every sample that is in none of them, and the reason.
    """

    plan: Plan
    number: int
    read: Sequence[CapturedBatch]
    bad: Mapping[str, str]

    def tables(self) -> PartTables:
        """The tables of the part, in the order of its samples.

        A bad sample is a row of ``samples`` with its reason.
        """
        entries = self.plan.part(self.number).entries
        names = [entry.id for entry in entries]
        rows: dict[str, dict[str, Any]] = {
            entry.id: failed_row(entry, self.bad[entry.id])
            for entry in entries
            if entry.id in self.bad
        }
        tokens: dict[str, pa.Table] = {}
        thumbnails: dict[str, pa.Table] = {}
        for captured in self.read:
            rows |= captured.sample_rows()
            tokens |= captured.token_tables()
            thumbnails |= captured.thumbnail_tables()
        return PartTables(
            samples=pa.Table.from_pylist([rows[name] for name in names], schema=SAMPLES_SCHEMA),
            tokens=_joined(tokens, names),
            vectors=dict(vector_tables(self.read, names)),
            thumbnails=_joined(thumbnails, names),
        )


class ReadBatch(NamedTuple):
    """What was read of one prepared batch, in as many passes as it took."""

    found: list[CapturedBatch]
    bad: Reasons
    last: bool  # of its part


def read_parts(
    plan: Plan, numbers: Sequence[int], limit: BatchLimit | None = None
) -> Generator[ReadPart]:
    """Read parts of a plan. Each depends on the plan alone, and nothing is written.

    Args:
        plan: of the extraction.
        numbers: of the parts, from 0.
        limit: samples in one forward pass, as far as memory is known; by default those of the plan.
            It changes vectors by rounding only.

    Yields:
        The parts in the order of ``numbers``. Batches of later ones are made and run meanwhile.
    """
    limit = limit or plan.limit()
    parts = [plan.part(number) for number in numbers]

    def run(capture: Capture, ready: Prepared) -> ReadBatch:
        if ready.batch is None:
            return ReadBatch([], ready.bad, ready.last)
        forward = partial(_read, capture, draw=plan.draw)
        found, unfit = run_within_memory(capture.vlm, ready, limit, forward)
        return ReadBatch(found, ready.bad | unfit, ready.last)

    with ExitStack() as stack:
        captures = [
            stack.enter_context(Capture(vlm, plan.sites, plan.layers, attention=True))
            for vlm in lanes_of(plan.vlm)
        ]
        batches = stack.enter_context(closing(prepared(plan.vlm, parts, limit, plan.thumbnails)))
        results = stack.enter_context(
            closing(side_by_side(run, captures, batches, stop=Capture.stop))
        )
        for number, part in zip(numbers, parts, strict=True):
            bad: Reasons = {}
            read: list[CapturedBatch] = []
            count = -(-len(part) // limit.samples)
            own = of_one_part(results)
            for batch in track(own, count, f"batches of part {number + 1}"):
                read += batch.found
                bad |= batch.bad
            yield ReadPart(plan, number, read, bad)


def of_one_part(results: Iterable[ReadBatch]) -> Iterator[ReadBatch]:
    """The results up to the last batch of a part; those of the next part stay in the iterator."""
    for result in results:
        yield result
        if result.last:
            return


def _read(capture: Capture, ready: Prepared, draw: Draw) -> CapturedBatch:
    assert ready.batch is not None
    return CapturedBatch.read(capture, ready.samples, ready.batch, draw, ready.thumbnails)


def _joined(tables: Mapping[str, pa.Table], order: Sequence[str]) -> pa.Table | None:
    """The tables of some samples in the order of their ids; None if there is none."""
    found = [tables[name] for name in order if name in tables]
    return pa.concat_tables(found).unify_dictionaries() if found else None
