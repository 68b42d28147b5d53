"""Progress of long loops: a bar on a terminal, log lines elsewhere.

On a terminal, rich draws a bar with the remaining time on stderr. Without one, a line goes to the
``keygap`` logger at most every ``QUIET_SECONDS``, so that the log of a batch job stays readable.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from keygap.interrupts import tidied

logger = logging.getLogger("keygap")
QUIET_SECONDS = 15.0
Item = TypeVar("Item")


def track(items: Iterable[Item], total: int, what: str, done: int = 0) -> Iterator[Item]:
    """Iterate over items and show progress after each.

    Args:
        items: the items that remain.
        total: the number of items, including those already done.
        what: a short description of the work.
        done: the number of items that were done before.

    Yields:
        The items, unchanged.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        yield from _with_bar(items, total, what, done, console)
    else:
        yield from _with_log(items, total, what, done)


def _with_bar(
    items: Iterable[Item], total: int, what: str, done: int, console: Console
) -> Iterator[Item]:
    columns = (
        TextColumn("{task.description}", markup=False),  # it has names of models
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with tidied(), Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total, completed=done)
        for item in items:
            yield item
            progress.advance(task)


def _with_log(items: Iterable[Item], total: int, what: str, done: int) -> Iterator[Item]:
    started = logged = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        last = done + number == total
        if now - logged >= QUIET_SECONDS or last:
            rate = number / (now - started)
            left = (total - done - number) / rate
            logger.info("%s: %d/%d, %.2f/s, %.0f s left", what, done + number, total, rate, left)
            logged = now
