"""From the samples of a part to the tables of that part."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from keygap.benchmarks import SampleSet
from keygap.capture.batches import labelled, opened
from keygap.capture.hooks import Capture, Key
from keygap.capture.tables import CapturedBatch, failed_row
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
    tokens: list[pa.Table] = []
    thumbnails: list[pa.Table] = []
    vectors: dict[Key, list[pa.Table]] = {}
    with Capture(plan.vlm, plan.sites, plan.layers, attention=True) as capture:
        batches = part.batches(1 if plan.alone else plan.batch_size)
        for samples in track(batches, len(batches), f"batches of part {number + 1}"):
            captured, bad = _read(capture, samples)
            rows |= bad
            if captured is None:
                continue
            rows |= captured.sample_rows()
            tokens += captured.token_tables()
            if plan.thumbnails:
                thumbnails += captured.thumbnail_tables()
            for key, table in captured.vector_tables():
                vectors.setdefault(key, []).append(table)
    return PartTables(
        samples=pa.Table.from_pylist([rows[e.id] for e in part.entries], schema=SAMPLES_SCHEMA),
        tokens=_joined(tokens) if tokens else None,
        vectors={key: _joined(tables) for key, tables in vectors.items()},
        thumbnails=_joined(thumbnails) if thumbnails else None,
    )


def _read(
    capture: Capture, chosen: SampleSet
) -> tuple[CapturedBatch | None, dict[str, dict[str, Any]]]:
    """One forward pass over the usable samples of a batch, and the rows of the others, by id."""
    samples, broken = opened(chosen)
    usable, batch, refused = labelled(capture.vlm, samples)
    reasons = broken | refused
    bad = {e.id: failed_row(e, reasons[e.id]) for e in chosen.entries if e.id in reasons}
    if batch is None:
        return None, bad
    return CapturedBatch(capture.vlm, usable, batch, capture(batch)), bad


def _joined(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).unify_dictionaries()
