"""From the samples of a part to the tables of that part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from keygap.benchmarks import SampleSet
from keygap.capture.batches import labelled, opened
from keygap.capture.hooks import Capture
from keygap.capture.keeping import Draw
from keygap.capture.tables import CapturedBatch, failed_row, vector_tables
from keygap.engines.plan import Plan
from keygap.progress import track
from keygap.store import PartTables
from keygap.store.schema import SAMPLES_SCHEMA


def run_part(plan: Plan, number: int) -> PartTables:
    """Extract a part of a plan. The result depends on nothing else, and nothing is written.

    Args:
        plan: of the extraction.
        number: of the part, from 0.

    Returns:
        The tables of the part. A bad sample is a row of ``samples`` with its reason.
    """
    part = plan.part(number)
    rows: dict[str, dict[str, Any]] = {}
    tokens: dict[str, pa.Table] = {}
    thumbnails: dict[str, pa.Table] = {}
    read: list[CapturedBatch] = []
    with Capture(plan.vlm, plan.sites, plan.layers, attention=True) as capture:
        batches = part.batches(1 if plan.alone else plan.batch_size)
        for samples in track(batches, len(batches), f"batches of part {number + 1}"):
            captured, bad = _read(capture, samples, plan.draw)
            rows |= bad
            if captured is None:
                continue
            rows |= captured.sample_rows()
            tokens |= captured.token_tables()
            if plan.thumbnails:
                thumbnails |= captured.thumbnail_tables()
            read.append(captured)
    names = [entry.id for entry in part.entries]
    return PartTables(
        samples=pa.Table.from_pylist([rows[name] for name in names], schema=SAMPLES_SCHEMA),
        tokens=_joined(tokens, names),
        vectors=dict(vector_tables(read, names)),
        thumbnails=_joined(thumbnails, names),
    )


def _read(
    capture: Capture, chosen: SampleSet, draw: Draw
) -> tuple[CapturedBatch | None, dict[str, dict[str, Any]]]:
    """One forward pass over the usable samples of a batch, and the rows of the others, by id."""
    samples, broken = opened(chosen)
    usable, batch, refused = labelled(capture.vlm, samples)
    reasons = broken | refused
    bad = {e.id: failed_row(e, reasons[e.id]) for e in chosen.entries if e.id in reasons}
    if batch is None:
        return None, bad
    return CapturedBatch.read(capture, usable, batch, draw), bad


def _joined(tables: Mapping[str, pa.Table], order: Sequence[str]) -> pa.Table | None:
    """The tables of some samples in the order of their ids; None if there is none."""
    found = [tables[name] for name in order if name in tables]
    return pa.concat_tables(found).unify_dictionaries() if found else None
