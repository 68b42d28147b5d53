"""Prepare batches while the model computes, and fit their size to memory.

Decoding images and making model inputs is work of the CPU that a GPU would wait for. It is done in
threads, a few batches ahead and across the border between two parts. Thumbnails are made there too,
so that no decoded image is needed after its batch has been read. Images are opened by one
thread and in the order of the run, because a benchmark may read them from one file. The samples of
a part are opened together, which decodes none, so that batches can be made of those of similar
length (see ``lengths``).

A batch that does not fit into memory is divided in two, and later batches are no larger than what
did fit. A single sample that does not fit is tried twice and then recorded as bad, like one with an
unreadable image; the batches after it are as large as before. A limit that may grow is doubled as
long as enough memory is free.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import pyarrow as pa
import torch
from torch import Tensor
from transformers import BatchFeature

from keygap.benchmarks import Sample, SampleSet
from keygap.capture.batches import Reasons, labelled, opened
from keygap.capture.thumbnails import thumbnail_table
from keygap.engines.lengths import longest_first
from keygap.engines.memory import peak_share
from keygap.models.batch import Batch
from keygap.models.vlm import VLM
from keygap.selfcheck.finding import is_out_of_memory
from keygap.text import first_line

THREADS = max(1, min(4, (os.cpu_count() or 1) // 2))
USABLE = 0.8  # share of free GPU memory that a batch of twice the size may be expected to take
Result = TypeVar("Result")


@dataclass(frozen=True)
class Prepared:
    """A batch, ready for the model.

    Attributes:
        samples: the usable samples.
        batch: their inputs; None if there are none.
        bad: id of every other sample, and the reason.
        last: whether it is the last one of its part.
        thumbnails: the table of each usable sample, by its id; None if none are kept.
    """

    samples: list[Sample]
    batch: Batch | None
    bad: Reasons
    last: bool
    thumbnails: dict[str, pa.Table] | None


@dataclass
class BatchLimit:
    """The largest number of samples that may fit into memory, as far as is known.

    Attributes:
        samples: in one batch.
        most: what ``samples`` may grow to.
        share: the largest share of a GPU's free memory for each sample, in any batch so far.
    """

    samples: int
    most: int = 0
    share: float = 0.0

    @property
    def grows(self) -> bool:
        """Whether it may still become larger."""
        return self.samples < self.most

    def fitted(self, samples: int, share: float) -> None:
        """Double the limit if a batch left so much memory that twice as many samples will fit.

        Args:
            samples: of the batch.
            share: of the free memory that it took at its peak.
        """
        self.share = max(self.share, share / samples)
        if 2 * self.samples * self.share <= USABLE:
            self.samples = min(2 * self.samples, self.most)


def prepared(
    vlm: VLM, parts: Sequence[SampleSet], limit: BatchLimit, thumbnails: bool = False
) -> Generator[Prepared]:
    """Make the batches of some parts ahead of their use.

    Args:
        vlm: the model.
        parts: the samples of each part. A batch has samples of one part.
        limit: the size of batches; it may change in the meantime.
        thumbnails: whether they are kept.

    Yields:
        The batches of each part, at least one; the longest samples of a part come first.
    """
    before = torch.get_num_threads()
    # Lanes on the CPU have divided the processors. Beside a GPU each thread gets one.
    own = (torch.set_num_threads, (1,)) if vlm.device.type == "cuda" else ()
    with (
        ThreadPoolExecutor(1, "keygap-open") as opening,
        ThreadPoolExecutor(THREADS, "keygap-prepare", *own) as threads,
    ):
        ahead = _Ahead(vlm, iter(parts), limit, thumbnails, opening, threads)
        try:
            while ahead.fill():
                yield ahead.batches.popleft().result()
        finally:
            ahead.cancel()
            if own:
                torch.set_num_threads(before)  # some of torch's libraries have one number for all


class _Ahead:
    """The batches that are being made, what is left of the part that is open, and the next part."""

    def __init__(
        self,
        vlm: VLM,
        following: Iterator[SampleSet],
        limit: BatchLimit,
        thumbnails: bool,
        opening: ThreadPoolExecutor,
        threads: ThreadPoolExecutor,
    ) -> None:
        self.vlm, self.limit, self.following = vlm, limit, following
        self.thumbnails, self.opening, self.threads = thumbnails, opening, threads
        self.batches: deque[Future[Prepared]] = deque()
        self.rest: list[Sample] = []
        self.next_part = self._open_next()

    def fill(self) -> bool:
        """Begin to make batches until enough are ahead; returns whether there is any."""
        while len(self.batches) <= THREADS:
            broken: Reasons = {}
            if not self.rest:
                if self.next_part is None or (self.batches and not self._is_next_part_ready):
                    break
                self.rest, broken = self.next_part.result()
                self.next_part = self._open_next()
            batch, self.rest = self.rest[: self.limit.samples], self.rest[self.limit.samples :]
            making = (self.vlm, batch, broken, not self.rest, self.thumbnails)
            self.batches.append(self.threads.submit(_of, *making))
        return bool(self.batches)

    @property
    def _is_next_part_ready(self) -> bool:
        """Whether the next part is open. Batches neither wait for it nor fail because of it."""
        return bool(self.next_part and self.next_part.done() and not self.next_part.exception())

    def cancel(self) -> None:
        """Cancel what has not begun."""
        for future in self.batches:
            future.cancel()
        if self.next_part is not None:
            self.next_part.cancel()

    def _open_next(self) -> Future[tuple[list[Sample], Reasons]] | None:
        """Begin to open the next part; None if there is none."""
        for part in self.following:
            return self.opening.submit(self._opened, part)
        return None

    def _opened(self, part: SampleSet) -> tuple[list[Sample], Reasons]:
        samples, broken = opened(part)
        return longest_first(self.vlm, samples), broken


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
        limit: becomes smaller if it does not fit, and larger if it may grow and memory is left.
        run: a forward pass.

    Returns:
        One result for each batch that was run, and the reason for each sample that was left out.
    """
    if len(ready.samples) > limit.samples:
        return _in_two(vlm, ready, limit, run)
    alone = len(ready.samples) == 1
    for _ in range(2 if alone else 1):  # others may have taken the memory for a moment
        try:
            if not limit.grows:
                return [run(ready)], {}
            peak_share(vlm.model)  # forgets the peaks of the batches before
            result = run(ready)
            limit.fitted(len(ready.samples), peak_share(vlm.model))
            return [result], {}
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            said = first_line(error)
        # outside the handler, whose exception keeps the tensors of the pass alive
        torch.cuda.empty_cache()  # nothing where no GPU is used
    if alone:
        return [], {ready.samples[0].id: f"it does not fit into memory alone: {said}"}
    before = replace(limit)
    limit.samples = limit.most = max(1, len(ready.samples) // 2)
    found, bad = _in_two(vlm, ready, limit, run)
    if bad:  # the fault was that of one sample
        limit.samples, limit.most = before.samples, before.most
    return found, bad


def _in_two(
    vlm: VLM, ready: Prepared, limit: BatchLimit, run: Callable[[Prepared], Result]
) -> tuple[list[Result], Reasons]:
    half = (len(ready.samples) + 1) // 2
    found: list[Result] = []
    bad: Reasons = {}
    for samples in (ready.samples[:half], ready.samples[half:]):
        part = _of(vlm, samples, {}, False, ready.thumbnails is not None)
        results, reasons = run_within_memory(vlm, part, limit, run)
        found += results
        bad |= reasons
    return found, bad


def _of(vlm: VLM, samples: list[Sample], broken: Reasons, last: bool, thumbnails: bool) -> Prepared:
    usable, batch, refused = labelled(vlm, samples)
    if batch is not None and vlm.device.type == "cuda":
        batch = _pinned(batch)
    tables: dict[str, pa.Table] | None = None
    if thumbnails:
        labels = () if batch is None else batch.labels
        shown = zip(usable, labels, strict=True)
        tables = {sample.id: thumbnail_table(sample, own) for sample, own in shown}
    return Prepared(usable, batch, broken | refused, last, tables)


def _pinned(batch: Batch) -> Batch:
    """The batch in memory from which a GPU copies without being waited for.

    Torch keeps that memory until the copy is done, also if the tensor is given up before.
    """
    inputs = {
        name: value.pin_memory() if isinstance(value, Tensor) else value
        for name, value in batch.inputs.items()
    }
    return replace(batch, inputs=BatchFeature(inputs))
