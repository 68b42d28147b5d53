"""Workers that are Ray actors, on this machine or on a cluster.

An actor is one process. It prepares once and does one item at a time. If it dies, another takes its
place, and the item that it was doing is done again. A result that has arrived is kept, so no item
is done twice for the caller. Results that arrive early wait for those before them, and workers get
only a few items ahead, so that little is lost if the caller is killed.

Ray would restart actors and repeat calls by itself. It is done here because only then a worker that
dies in the same way each time ends the work with one line.
"""

from __future__ import annotations

import logging
import pickle
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from keygap.errors import UserError
from keygap.optional import require
from keygap.text import first_line
from keygap.workers.cluster import connected, imported, room

Item = TypeVar("Item")
Result = TypeVar("Result")
logger = logging.getLogger("keygap")

MOST_DEATHS = 5  # in a row, of one worker's place or over one item
AHEAD = 2  # items of each worker that are done while an earlier one is awaited
ENDED_IN = 10.0  # seconds
WAIT = 30.0  # seconds without any news after which it is said what is awaited


class OnRay:
    """Ray actors, on this machine or on the cluster that RAY_ADDRESS names.

    Args:
        workers: how many; by default one for each GPU, or where none is needed for each node.
        gpus_per_worker: of each; by default as many as the work needs.

    Raises:
        UserError: Ray is not installed.
    """

    def __init__(self, workers: int | None = None, gpus_per_worker: int | None = None) -> None:
        require("ray", "ray", "the engine ray")
        self._workers, self._gpus = workers, gpus_per_worker
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Connect to the cluster, or start Ray on this machine.

        Raises:
            UserError: it cannot be reached or started.
        """
        self._stack.enter_context(connected(self._workers))
        return self

    def __exit__(self, *exception: object) -> None:
        """Disconnect, unless the caller was connected before."""
        self._stack.close()

    def map(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Sequence[Item],
        what: str,
        gpus: int = 0,
    ) -> Generator[Result]:
        """See ``Workers.map``."""
        if not items:
            return
        needed = room(self._workers, gpus if self._gpus is None else self._gpus)
        pool = _Pool(_sent(make, what), items, needed.options, what)
        try:
            yield from pool.results(min(needed.workers, len(items)))
        finally:
            pool.stop()


class _Actor:
    """What runs in a worker's process."""

    def prepare(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        """Prepare what all items need."""
        from keygap import progress

        progress.silence()  # the caller shows it
        self._do = make()

    def do(self, item: Any) -> Any:
        """Do one item."""
        return self._do(item)


@dataclass
class _Place:
    """A place for one worker: the actor in it now, and how often one died in it in a row."""

    actor: Any = None
    deaths: int = 0


@dataclass
class _Pool:
    """The state of one ``map``.

    Attributes:
        make: reference to what prepares a worker.
        items: the items.
        options: of each actor.
        what: what the work is.
        queue: numbers of the items that no worker has, in ascending order; those to be repeated
            come first.
        going: for each pending answer of Ray, the place of its worker and the number of its item;
            None while the worker prepares.
        found: results by number that have arrived and are not handed on.
        deaths: how many workers died over an item.
    """

    make: Any
    items: Sequence[Any]
    options: dict[str, Any]
    what: str
    queue: deque[int] = field(init=False)
    going: dict[Any, tuple[_Place, int | None]] = field(default_factory=dict)
    idle: list[_Place] = field(default_factory=list)
    found: dict[int, Any] = field(default_factory=dict)
    deaths: dict[int, int] = field(default_factory=dict)
    places: list[_Place] = field(default_factory=list)

    def __post_init__(self) -> None:
        """All items are to be done."""
        self.queue = deque(range(len(self.items)))

    def results(self, workers: int) -> Generator[Any]:
        """Start workers and yield the results in order."""
        self.places = [_Place() for _ in range(workers)]
        for place in self.places:
            self._start(place)
        for number in range(len(self.items)):
            while number not in self.found:
                self._hand_out(number + AHEAD * workers)
                self._await()
            self._hand_out(number + 1 + AHEAD * workers)  # workers go on while this one is used
            yield self.found.pop(number)

    def stop(self) -> None:
        """Kill all workers, and wait at most ten seconds for the busy ones."""
        ray = imported()
        if not ray.is_initialized():
            return
        for place in self.places:
            if place.actor is not None:  # the start of an earlier one may have failed
                ray.kill(place.actor)
        if self.going:  # what they do is answered by their death
            ray.wait(list(self.going), num_returns=len(self.going), timeout=ENDED_IN)

    def _start(self, place: _Place) -> None:
        place.actor = imported().remote(_Actor).options(**self.options).remote()
        self.going[place.actor.prepare.remote(self.make)] = (place, None)

    def _hand_out(self, end: int) -> None:
        """Give idle workers the next items, as far as ``end``."""
        while self.idle and self.queue and self.queue[0] < end:
            place, number = self.idle.pop(), self.queue.popleft()
            self.going[place.actor.do.remote(self.items[number])] = (place, number)

    def _await(self) -> None:
        """Wait for an answer, and take all that are there.

        Raises:
            UserError: an item raised it, or workers die again and again.
        """
        ray = imported()
        done: list[Any] = []
        while not done:
            done, _ = ray.wait(list(self.going), timeout=WAIT)
            if not done and all(number is None for _, number in self.going.values()):
                logger.info("%s: waiting for %d workers of the cluster", self.what, len(self.going))
        done, _ = ray.wait(list(self.going), num_returns=len(self.going), timeout=0)
        for answer in done:
            self._take(answer)

    def _take(self, answer: Any) -> None:
        place, number = self.going.pop(answer)
        exceptions = imported().exceptions
        lost = (
            *(exceptions.RayActorError, exceptions.NodeDiedError, exceptions.WorkerCrashedError),
            *(exceptions.ObjectLostError, exceptions.OutOfMemoryError),
        )
        try:
            result = imported().get(answer)
        except lost as reason:
            self._replace(place, number, reason)
        except exceptions.RayTaskError as error:
            raise _unwrapped(error) from error
        else:
            place.deaths = 0 if number is not None else place.deaths
            if number is not None:
                self.found[number] = result
            self.idle.append(place)

    def _replace(self, place: _Place, number: int | None, reason: Exception) -> None:
        """Put a new worker in the place of one that died; its item is done again.

        Raises:
            UserError: too many died here, or over this item.
        """
        place.deaths += 1
        if number is not None:
            self.deaths[number] = self.deaths.get(number, 0) + 1
            self.queue.appendleft(number)
        line = _why(reason)
        doing = "it prepared" if number is None else f"it did item {number + 1}"
        if max(place.deaths, self.deaths.get(number, 0) if number is not None else 0) > MOST_DEATHS:
            raise UserError(
                f"{self.what}: a worker died {MOST_DEATHS + 1} times in a row, the last while "
                f"{doing}: {line}; what was done before is kept"
            )
        logger.warning("%s: a worker died while %s and is replaced: %s", self.what, doing, line)
        imported().kill(place.actor)  # it may be out of reach only
        self._start(place)


def _sent(make: Callable[[], Any], what: str) -> Any:
    """Put what prepares a worker where all workers find it.

    Raises:
        UserError: it cannot be sent to another process.
    """
    try:
        return imported().put(make)
    except (TypeError, ValueError, AttributeError, OSError, pickle.PicklingError) as error:
        raise UserError(
            f"{what} cannot be sent to other processes ({first_line(error)}): use the engine local"
        ) from error


def _unwrapped(error: Any) -> Exception:
    """The user error that was raised in a worker; any other is Ray's, with its traceback."""
    cause = getattr(error, "cause", None)
    return UserError(str(cause)) if isinstance(cause, UserError) else error


def _why(reason: Exception) -> str:
    """The line of a long message of Ray that says why a worker died."""
    lines = [line.strip() for line in str(reason).splitlines() if line.strip()]
    told = [line for line in lines if "exit" in line.lower() or "died" in line.lower()]
    return (told or lines or [type(reason).__name__])[-1][:300]
