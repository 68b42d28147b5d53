"""The engine without workers: this process does every item itself."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Self, TypeVar

from keygap.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Here:
    """This process, one item after another.

    Raises:
        UserError: a number of workers or GPUs was given.
    """

    def __init__(self, workers: int | None = None, gpus_per_worker: int | None = None) -> None:
        given = {"workers": workers, "gpus_per_worker": gpus_per_worker}
        for name, number in given.items():
            if number is not None:
                raise UserError(
                    f"{name} is {number}, and the engine is local, which works in this process "
                    "alone: choose the engine ray, or leave it out"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def map(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Sequence[Item],
        what: str,
        gpus: int = 0,
    ) -> Generator[Result]:
        """See ``Workers.map``. An item is done when its result is asked for."""
        yield from map(make(), items)
