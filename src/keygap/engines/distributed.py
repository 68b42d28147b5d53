"""The engine that extracts parts in other processes, which load the model themselves.

A worker gets the arguments with which the model was loaded, the interventions on it, and the plan.
It compares the identity of the extraction that it would make with the one that was asked for, so
that another release of the weights or of transformers on one node is an error and not other rows.
It writes the files of a part where it is, into the folder that it shares with the caller. A worker
that does not see the folder sends them to the address of the run's copy, and the caller receives
them from there. The caller alone commits the part.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from keygap.engines.local import LocalEngine
from keygap.engines.manifest import identity_of
from keygap.engines.plan import Plan, WrittenPart
from keygap.errors import UserError
from keygap.models.interventions import Intervention
from keygap.models.load import load
from keygap.models.vlm import VLM
from keygap.store.files import marked
from keygap.store.mirror import Mirror, send
from keygap.store.objects import Objects
from keygap.store.run import EXTRACTION, LOCK
from keygap.temporary import temporary_folder
from keygap.workers import Workers


class DistributedEngine:
    """Extracts the parts of a plan in workers.

    Args:
        workers: who does it.
        copy: of the run. Workers that do not see the run folder send parts there. None if there is
            none.
    """

    def __init__(self, workers: Workers, copy: Mirror | None = None) -> None:
        self._workers, self._copy = workers, copy

    def run(self, plan: Plan, numbers: Sequence[int], root: Path) -> Generator[WrittenPart]:
        """See ``Engine.run``.

        Raises:
            UserError: the model was not loaded by name, its workers cannot do the work, or what
                they sent cannot be received.
        """
        what = f"{plan.vlm.name} on {plan.samples.name}"
        root = root.resolve()
        address = None if self._copy is None else self._copy.objects.anywhere
        with marked(root / EXTRACTION) as mark:
            work = Work.of(plan, root, mark, address)
            parts = self._workers.map(work.begin, numbers, what, gpus=gpus_of(plan.vlm))
            yield from self._received(parts)

    def _received(self, parts: Generator[tuple[WrittenPart, str | None]]) -> Generator[WrittenPart]:
        """The parts, once all of their files are in the run folder."""
        with closing(parts):
            for part, prefix in parts:
                if self._copy is not None and prefix is not None:
                    self._copy.receive(prefix, part.checksums)
                yield part


@dataclass(frozen=True)
class Work:
    """What a worker needs to extract parts, in a form that can be sent to another process.

    Attributes:
        load: arguments of ``kg.load``.
        interventions: what is applied to the model, in order.
        plan: the plan, without the model.
        identity: of the extraction.
        root: absolute path of the run folder.
        mark: a temporary file in the run folder. A worker that sees it shares the folder; another
            node may have another folder at the same path.
        address: of the copy of the run; None if there is none.
    """

    load: dict[str, Any]
    interventions: tuple[Intervention, ...]
    plan: Plan
    identity: dict[str, Any]
    root: Path
    mark: Path
    address: str | None

    @classmethod
    def of(cls, plan: Plan, root: Path, mark: Path, address: str | None = None) -> Work:
        """The work of a plan.

        Raises:
            UserError: the model was not loaded by name.
        """
        vlm = plan.vlm
        if vlm.loaded is None:
            raise UserError(
                f"{vlm.name} was given to kg.load as an object, and other processes have to load "
                "it themselves: load it by its name or from a folder, or use the engine local"
            )
        place = Path(vlm.loaded["model"])
        arguments = {**vlm.loaded, "model": str(place.resolve() if place.is_dir() else place)}
        for key in ("device", "device_map"):
            if key in arguments:
                arguments[key] = _as_a_worker_sees_it(arguments[key])
        return cls(
            arguments,
            vlm.interventions.active,
            replace(plan, vlm=cast(VLM, None)),
            identity_of(plan),
            root,
            mark,
            address,
        )

    def begin(self) -> Callable[[int], tuple[WrittenPart, str | None]]:
        """Load the model; returns the function that extracts a part by its number.

        With the part it returns where its files were sent (see ``keygap.store.mirror.send``), or
        None if they are in the run folder.

        Raises:
            UserError: this worker can reach neither the run folder nor its copy, or would extract
                something else.
        """
        copy = None if os.path.isfile(self.mark) else self._copy()
        vlm = replace(load(**self.load), name=self.identity["model"])
        applied = ExitStack()  # as long as the function that is returned
        applied.enter_context(vlm.interventions.applied(*self.interventions))
        plan = replace(self.plan, vlm=vlm)
        found = identity_of(plan)
        for key, wanted in self.identity.items():
            if found[key] != wanted:
                raise UserError(
                    f"a worker would extract something else: its {key} is {found[key]!r}, not "
                    f"{wanted!r}; install the same releases and the same model on every node"
                )

        engine = LocalEngine(plan.limit())  # what is known about memory holds for the next part

        def extract(number: int, applied: ExitStack = applied) -> tuple[WrittenPart, str | None]:
            if copy is None:
                return next(engine.run(plan, [number], self.root)), None
            with _said_by_this_worker(), temporary_folder() as folder:
                part = next(engine.run(plan, [number], folder))
                return part, send(copy, part.checksums, folder)

        return extract

    def _copy(self) -> Objects:
        """Where this worker, which does not see the run folder, sends parts.

        Raises:
            UserError: there is no such place, or it cannot be reached.
        """
        if self.address is None:
            raise UserError(
                f"a worker on another node does not see the folder {self.root}: name one with "
                "--out that all nodes share, or use keygap extract with --mirror and an address "
                "that all nodes can write"
            )
        with _said_by_this_worker():
            objects = Objects.at(self.address, "mirror")
            if objects.read(LOCK) is None:  # the claim of the caller
                raise UserError(
                    f"there is no copy of the run at {self.address}: name an address with --mirror "
                    "that all nodes share"
                )
        return objects


@contextmanager
def _said_by_this_worker() -> Iterator[None]:
    """Add the name of this machine to user errors of the block."""
    try:
        yield
    except UserError as error:
        raise UserError(f"a worker on {socket.gethostname()}: {error}") from error


def _as_a_worker_sees_it(placed: Any) -> Any:
    """A device or a device map for a process that sees its own GPUs alone, counted from 0."""
    if not isinstance(placed, Mapping):
        return placed if _gpu(placed) is None else "cuda"
    number: dict[int | None, int] = {gpu: place for place, gpu in enumerate(_gpus(placed))}
    return {part: number.get(_gpu(place), place) for part, place in placed.items()}


def gpus_of(vlm: VLM) -> int:
    """How many GPUs a model is on."""
    placed = getattr(vlm.model, "hf_device_map", None) or {"": vlm.device}
    return len(_gpus(placed)) if vlm.device.type == "cuda" else 0


def _gpus(placed: Mapping[str, Any]) -> list[int]:
    """The indices of the GPUs of a device map."""
    return sorted({gpu for gpu in map(_gpu, placed.values()) if gpu is not None})


def _gpu(place: Any) -> int | None:
    """The index of a GPU, which may be written as 1, "1" or "cuda:1"; None for any other place."""
    number = str(place).removeprefix("cuda").removeprefix(":") or "0"
    return int(number) if number.isdecimal() else None
