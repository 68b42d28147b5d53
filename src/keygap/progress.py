"""Long work tells how far it is: a bar with a remaining time, or a log line now and then.

On a terminal rich draws the bar on stderr; elsewhere a line goes to the ``keygap`` logger at most
every ``QUIET_SECONDS``, so that a job's log stays readable.
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

logger = logging.getLogger("keygap")
QUIET_SECONDS = 15.0
Item = TypeVar("Item")


def track(items: Iterable[Item], total: int, what: str, done: int = 0) -> Iterator[Item]:
    """The items, with progress told as each is finished.

    Args:
        items: what is still to do.
        total: how many there are with those already done.
        what: a few words for the line.
        done: how many were done before.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(what, total=total, completed=done)
            for item in items:
                yield item
                progress.advance(task)
        return
    started = told = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        last = done + number == total
        if now - told >= QUIET_SECONDS or last:
            rate = number / (now - started)
            left = (total - done - number) / rate
            logger.info("%s: %d/%d, %.2f/s, %.0f s left", what, done + number, total, rate, left)
            told = now
