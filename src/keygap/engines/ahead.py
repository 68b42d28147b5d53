"""Batches that are made while the model computes, no larger than memory allows.

Decoding images and making model inputs is work of the CPU that a GPU would wait for. It is done in
threads, a few batches ahead. Images are opened by one thread at a time and in the order of the run,
because a benchmark may read them from one file.

A batch that does not fit into memory is divided in two, and later batches are no larger than what
did fit. A single sample that does not fit is a bad sample, as one whose image cannot be read; the
batches after it are as large as before.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import torch

from keygap.benchmarks import Sample, SampleSet
from keygap.capture.batches import Reasons, labelled, opened
from keygap.models.batch import Batch
from keygap.models.vlm import VLM
from keygap.selfcheck.finding import is_out_of_memory

THREADS = max(1, min(4, (os.cpu_count() or 1) // 2))
Result = TypeVar("Result")


@dataclass(frozen=True)
class Prepared:
    """A batch, ready for the model.

    Attributes:
        samples: the usable samples.
        batch: their inputs; None if there are none.
        bad: id of every other sample, and the reason.
    """

    samples: list[Sample]
    batch: Batch | None
    bad: Reasons


@dataclass
class BatchLimit:
    """The largest number of samples that may fit into memory, as far as is known."""

    samples: int


def prepared(vlm: VLM, chosen: SampleSet, limit: BatchLimit) -> Generator[Prepared]:
    """Make the batches of some samples ahead of their use.

    Args:
        vlm: the model.
        chosen: the samples, in their order.
        limit: the size of batches; it may become smaller in the meantime.
    """
    opening = Lock()

    def prepare(part: SampleSet) -> Prepared:
        with opening:
            samples, broken = opened(part)
        return _of(vlm, samples, broken)

    rest = chosen
    ahead: deque[Future[Prepared]] = deque()
    with ThreadPoolExecutor(THREADS, "keygap-prepare") as threads:
        try:
            while rest or ahead:
                while rest and len(ahead) <= THREADS:
                    part, rest = rest[: limit.samples], rest[limit.samples :]
                    ahead.append(threads.submit(prepare, part))
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def run_within_memory(
    vlm: VLM,
    ready: Prepared,
    limit: BatchLimit,
    run: Callable[[Prepared], Result],
) -> tuple[list[Result], Reasons]:
    """Run a batch, in smaller ones if it does not fit into memory.

    Args:
        vlm: the model.
        ready: the batch.
        limit: becomes smaller if it does not fit.
        run: a forward pass.

    Returns:
        The result of each batch that was run, and why the samples of no batch were left out.
    """
    if len(ready.samples) > limit.samples:
        return _in_two(vlm, ready, limit, run)
    try:
        return [run(ready)], {}
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        said = (str(error).splitlines() or [""])[0][:200]
    # outside the handler, whose exception keeps the tensors of the pass alive
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(ready.samples) == 1:
        return [], {ready.samples[0].id: f"it does not fit into memory alone: {said}"}
    before, limit.samples = limit.samples, max(1, len(ready.samples) // 2)
    found, bad = _in_two(vlm, ready, limit, run)
    if bad:  # the fault was that of one sample
        limit.samples = before
    return found, bad


def _in_two(
    vlm: VLM, ready: Prepared, limit: BatchLimit, run: Callable[[Prepared], Result]
) -> tuple[list[Result], Reasons]:
    half = (len(ready.samples) + 1) // 2
    found: list[Result] = []
    bad: Reasons = {}
    for samples in (ready.samples[:half], ready.samples[half:]):
        results, reasons = run_within_memory(vlm, _of(vlm, samples, {}), limit, run)
        found += results
        bad |= reasons
    return found, bad


def _of(vlm: VLM, samples: list[Sample], broken: Reasons) -> Prepared:
    usable, batch, refused = labelled(vlm, samples)
    return Prepared(usable, batch, broken | refused)
