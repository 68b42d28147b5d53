"""Progress of long work: bars on a terminal, one output in a notebook, log lines elsewhere.

On a terminal, rich draws bars on stderr. In a notebook, one output of the cell is updated in place.
Without either, a line goes to the ``keygap`` logger about every ``QUIET_SECONDS``, also while a
single item takes long, so that the log of a batch job stays readable and never stands still.

Work may contain other work, such as a loop over batches in a loop over conditions. There is one
display for all of it: two that redraw one terminal would destroy each other.
"""

from __future__ import annotations

import html
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from keygap.interrupts import tidied
from keygap.text import one_line

logger = logging.getLogger("keygap")
QUIET_SECONDS = 30.0
NOTEBOOK_SECONDS = 0.5
LONGEST = 100  # characters of a detail
LONG = 5.0  # seconds of one item, from which it is said that it takes longer than others
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
    work = _begin(Work(what, total, done))
    try:
        for item in items:
            yield item
            work.advance()
    finally:
        _end(work)


@contextmanager
def step(what: str) -> Iterator[Callable[[object], None]]:
    """Show that one piece of work goes on, for work whose length is unknown.

    Args:
        what: a short description of the work.

    Yields:
        A function that takes what is being done now, in a few words.
    """
    work = _begin(Work(what))
    try:
        yield work.say
        work.finished = True
    finally:
        _end(work)


def silence(silent: bool = True) -> None:
    """Show no bars, neither on a terminal nor in a notebook. Log lines follow the logger's level.

    Args:
        silent: False shows them again.
    """
    global _silent
    _silent = silent


class Work:
    """One loop or one step that goes on.

    Args:
        what: a short description.
        total: the number of items; None if it is not known.
        done: how many were done before.
    """

    def __init__(self, what: str, total: int | None = None, done: int = 0) -> None:
        self.what, self.total, self.done, self.first = one_line(what, LONGEST), total, done, done
        self.started = self.moved = time.monotonic()
        self.detail = ""
        self.finished = total is not None and done >= total

    def advance(self, count: int = 1) -> None:
        """Note that items are done."""
        self.done += count
        self.moved = time.monotonic()
        self.detail = ""
        self.finished = self.total is not None and self.done >= self.total

    def say(self, detail: object) -> None:
        """Note what is being done now."""
        self.detail = one_line(detail, LONGEST)

    def status(self) -> str:
        """How far the work is, at which rate, and how long it will take."""
        now = time.monotonic()
        detail = f" ({self.detail})" if self.detail else ""
        if self.total is None:
            return f"{_duration(now - self.started)}{detail}"
        count = f"{self.done}/{self.total}"
        made = self.done - self.first
        if self.finished:
            return f"{count} in {_duration(self.moved - self.started)}"
        if not made:
            return f"{count} after {_duration(now - self.started)}{detail}"
        each = (self.moved - self.started) / made
        rate = f"{1 / each:.1f}/s" if each < 1 else f"{_duration(each)} each"
        waited, rest = now - self.moved, self.total - self.done
        if waited <= max(each, LONG):
            return f"{count}, {rate}, {_duration(rest * each - waited)} left{detail}"
        after = f", {_duration((rest - 1) * each)} for the others" if rest > 1 else ""
        return f"{count}, {rate}, the next takes {_duration(waited)} so far{after}{detail}"

    def line(self) -> str:
        """What the work is, and its status."""
        return f"{self.what}: {self.status()}"


class _Display:
    """Shows the works in progress, outermost first.

    Attributes:
        going: the work.
        told: when a line was last logged, by this display or an earlier one.
    """

    def __init__(self) -> None:
        self.going: list[Work] = []
        self.told = _told

    def begin(self, work: Work) -> None:
        self.going.append(work)

    def end(self, work: Work) -> None:
        self.going.remove(work)

    def close(self) -> None:
        """Called after the last work has ended."""


class _Nothing(_Display):
    """Shows nothing."""


class _Bars(_Display):
    """Bars on a terminal. What others write to stderr meanwhile appears above them."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._stack.enter_context(tidied())
        what, status = (Column(no_wrap=True, overflow="ellipsis") for _ in range(2))
        description = TextColumn("{task.description}", markup=False, table_column=what)
        columns = (description, _Bar(20), _Status(status))
        # stdout may be a file or a pipe, into which no line of a terminal belongs
        shared = sys.stdout.isatty()
        self._bars = Progress(*columns, console=console, redirect_stdout=shared)
        self._stack.enter_context(self._bars)
        self._ids: dict[Work, Any] = {}

    def begin(self, work: Work) -> None:
        super().begin(work)
        self._ids[work] = self._bars.add_task(work.what, total=work.total, work=work)

    def end(self, work: Work) -> None:
        super().end(work)
        if self.going or work.total is None:
            self._bars.remove_task(self._ids.pop(work))

    def close(self) -> None:
        self._stack.close()


class _Bar(BarColumn):
    """A bar that shows how much of a work is done."""

    def render(self, task: Task) -> ProgressBar:
        task.completed = task.fields["work"].done
        return super().render(task)


class _Status(ProgressColumn):
    """The status of a work."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["work"].status())


class _Ticking(_Display):
    """A display that a thread renews, because nothing else runs while one item takes long."""

    seconds: float

    def __init__(self) -> None:
        super().__init__()
        self._stopped = threading.Event()
        self._lock = threading.RLock()
        threading.Thread(target=self._run, name="keygap progress", daemon=True).start()

    def begin(self, work: Work) -> None:
        with self._lock:
            super().begin(work)

    def end(self, work: Work) -> None:
        with self._lock:
            super().end(work)

    def close(self) -> None:
        self._stopped.set()

    def tell(self) -> None:
        """Show how far the work is now."""
        raise NotImplementedError

    def _run(self) -> None:
        while not self._stopped.wait(max(self.told + self.seconds - time.monotonic(), 0.01)):
            with self._lock:
                if self.going and time.monotonic() - self.told >= self.seconds:
                    self.tell()
                    self.told = time.monotonic()


class _Lines(_Ticking):
    """Lines in the log: now and then, and at the end of a loop and of what took long."""

    def __init__(self) -> None:
        self.seconds = QUIET_SECONDS
        super().__init__()

    def end(self, work: Work) -> None:
        super().end(work)
        took = time.monotonic() - work.started
        outermost_loop = work.total is not None and not self.going
        if work.finished and (outermost_loop or took >= self.seconds):
            logger.info("%s%s", work.line(), "" if work.total else ", done")
            self.told = time.monotonic()

    def tell(self) -> None:
        logger.info("; ".join(work.line() for work in self.going))


class _Notebook(_Ticking):
    """One output of a notebook's cell, updated in place. It needs no widgets."""

    def __init__(self) -> None:
        from IPython.display import display

        self.seconds = NOTEBOOK_SECONDS
        super().__init__()
        self._last: list[Work] = []
        self._handle = display(self._content(), raw=True, display_id=True)

    def end(self, work: Work) -> None:
        super().end(work)
        if not self.going:
            self._last = [work]

    def close(self) -> None:
        super().close()
        with self._lock:
            self.tell()

    def tell(self) -> None:
        self._handle.update(self._content(), raw=True)

    def _content(self) -> dict[str, str]:
        works = self.going or self._last
        bars = []
        for work in works:
            if work.total is not None:
                ends = f' value="{work.done}" max="{work.total}"'
            else:  # a bar without a value moves for ever
                ends = "" if work in self.going else f' value="{int(work.finished)}" max="1"'
            bars.append(f"<div><progress{ends}></progress> {html.escape(work.line())}</div>")
        return {"text/plain": "; ".join(work.line() for work in works), "text/html": "".join(bars)}


_silent = False
_told = time.monotonic()  # when the last line was logged; much short work is silence too
_display: _Display | None = None
_lock = threading.RLock()


def _begin(work: Work) -> Work:
    global _display
    with _lock:
        if _display is None:
            _display = _new_display()
        _display.begin(work)
    return work


def _end(work: Work) -> None:
    global _display, _told
    with _lock:
        if _display is None or work not in _display.going:
            return
        _display.end(work)
        if not _display.going:
            _display.close()
            _told = _display.told
            _display = None


def _new_display() -> _Display:
    console = Console(stderr=True)
    if console.is_jupyter:
        return _Nothing() if _silent else _Notebook()
    if console.is_terminal and not console.is_dumb_terminal:
        return _Nothing() if _silent else _Bars(console)
    return _Lines()


def _duration(seconds: float) -> str:
    """A duration in the unit that suits it."""
    seconds = max(seconds, 0.0)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
