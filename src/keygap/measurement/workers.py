"""Comparisons of one layer side by side, in as many threads as there are processors.

A comparison consists of many small computations, which a processor's other cores cannot share. Its
threads spend their time in numpy and torch, which let other threads run meanwhile. Large
comparisons come one after another, each with all processors: measuring one takes about twenty times
the memory of its vectors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

MOST = 4  # threads
MEMORY = 16 * 2**20  # bytes that the vectors of the comparisons side by side may have

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(
    compute: Callable[[Item], Result], items: Iterable[Item], size: int
) -> Iterator[tuple[Item, Result]]:
    """Compute something of each item, several at a time, and iterate in the order of the items.

    Args:
        compute: the function; it may not depend on the order of its calls.
        items: taken from the iterable only when a thread is free.
        size: bytes of the vectors of the largest one.

    Yields:
        Each item with its result.
    """
    processors = torch.get_num_threads()
    workers = max(1, min(processors, MOST, MEMORY // max(size, 1)))
    if workers == 1:
        yield from ((item, compute(item)) for item in items)
        return
    threads = processors // workers
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    # torch keeps the number of threads for each thread that starts work, and numpy for all.
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,))
    try:
        with threadpool_limits(threads):
            for item in items:
                waiting.append((item, pool.submit(compute, item)))
                if len(waiting) == workers:
                    yield _finished(waiting)
            while waiting:
                yield _finished(waiting)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(processors)


def _finished(waiting: deque[tuple[Item, Future[Result]]]) -> tuple[Item, Result]:
    item, future = waiting.popleft()
    return item, future.result()
