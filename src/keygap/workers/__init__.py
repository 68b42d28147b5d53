"""Workers: processes that each prepare once and then do items of work, here or on a cluster.

What keygap does at length consists of items that do not depend on each other: the parts of an
extraction, the layers of a measurement. Each needs something that takes long to prepare, such as a
loaded model. ``Workers`` does them in some number of processes and returns the results in order, so
that the caller, who alone writes what depends on the order, cannot tell where they were computed.

To add an engine, write a class with the methods of ``Workers`` in one file and register it: with a
line in ``REGISTRY`` here, or an entry point of the group ``keygap.engines`` in another package. The
class takes ``workers`` and ``gpus_per_worker``, and its docstring begins with the line that says
what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, Self, TypeVar

from keygap import defaults
from keygap.arguments import whole
from keygap.registry import Registry

Item = TypeVar("Item")
Result = TypeVar("Result")
LOCAL = defaults.ENGINE


class Workers(Protocol):
    """Processes that do items of work. They are used inside a ``with`` block."""

    def __enter__(self) -> Self:
        """Connect to where the work is done.

        Raises:
            UserError: it cannot be reached.
        """
        ...

    def __exit__(self, *exception: object) -> None: ...

    def map(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Sequence[Item],
        what: str,
        gpus: int = 0,
    ) -> Generator[Result]:
        """Do every item once.

        Args:
            make: called once in each worker, it prepares what all items need and returns the
                function that does one. It must be possible to send it to another process.
            items: the items.
            what: what the work is, for messages.
            gpus: how many GPUs one worker needs, unless the user has said so.

        Yields:
            The results in the order of ``items``.

        Raises:
            UserError: an item raised it, the work cannot be sent to the workers, or a worker died
                again and again.
        """
        ...


REGISTRY: Registry[Callable[..., Workers]] = Registry(
    "engine",
    "keygap.engines",
    {
        LOCAL: "keygap.workers.here:Here",
        "ray": "keygap.workers.on_ray:OnRay",
    },
)


def workers_of(
    engine: str = LOCAL, workers: int | None = None, gpus_per_worker: int | None = None
) -> Workers:
    """The workers of an engine.

    Args:
        engine: a name in ``REGISTRY``.
        workers: how many processes; None leaves it to the engine.
        gpus_per_worker: GPUs of each; None means as many as the work needs.

    Raises:
        UserError: there is no such engine, its package is not installed, or a number is given to an
            engine that takes none.
    """
    given: dict[str, Any] = {
        "workers": None if workers is None else whole(workers, "workers", 1),
        "gpus_per_worker": (
            None if gpus_per_worker is None else whole(gpus_per_worker, "gpus_per_worker", 0)
        ),
    }
    return REGISTRY[engine](**given)


__all__ = ["LOCAL", "REGISTRY", "Workers", "workers_of"]
