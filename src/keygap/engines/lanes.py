"""Batches side by side on a CPU: some lanes, each with a share of the processors.

The matrices of a short prompt are too small to keep several processors busy, and whatever else the
process does makes all of them wait for the slowest. Batches do not depend on each other, so each
lane computes its own batch with fewer processors. A GPU computes one batch at a time.

Modules keep state while they run: hooks, and in some families buffers. So each lane has a copy of
the modules, with the same parameters. A lane is made only where that copy is known to be complete;
any other model has one lane, which is the model itself.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import nn

from keygap.models.vlm import VLM

MOST = 4  # lanes: each holds a batch in memory
# Packages whose modules keep no state outside of themselves.
KNOWN = frozenset({"torch", "transformers", "timm"})
Lane = TypeVar("Lane")
Item = TypeVar("Item")
Result = TypeVar("Result")


def lanes_of(vlm: VLM) -> list[VLM]:
    """The model, and as many copies of it as there are lanes beside the first.

    Args:
        vlm: the model. It has one lane if it is not on a CPU, if something hooks, replaces or
            compiles its modules, or if one of them comes from a package that is not known.
    """
    count = min(MOST, torch.get_num_threads())
    if count == 1 or not _is_copied_whole(vlm):
        return [vlm]
    return [vlm, *(_copy(vlm) for _ in range(count - 1))]


def side_by_side(
    run: Callable[[Lane, Item], Result], lanes: Sequence[Lane], items: Iterable[Item]
) -> Generator[tuple[Item, Result]]:
    """Run a function on items, one in each lane at a time.

    Args:
        run: is given a lane that nobody else uses meanwhile.
        lanes: what the items are run in. A single lane is used in the calling thread.
        items: the items. Few are taken before their turn.

    Yields:
        Each item and its result, in the order of the items.
    """
    if len(lanes) == 1:
        for item in items:
            yield item, run(lanes[0], item)
        return
    free: SimpleQueue[Lane] = SimpleQueue()
    for lane in lanes:
        free.put(lane)

    def in_a_lane(item: Item) -> Result:
        lane = free.get()
        try:
            return run(lane, item)
        finally:
            free.put(lane)

    with _shared_processors(len(lanes)) as share:
        threads = ThreadPoolExecutor(len(lanes), "keygap-lane", torch.set_num_threads, (share,))
        going: deque[tuple[Item, Future[Result]]] = deque()
        try:
            for item in items:
                going.append((item, threads.submit(in_a_lane, item)))
                if len(going) > len(lanes):  # one waits, so that no lane does
                    yield _first(going)
            while going:
                yield _first(going)
        finally:
            threads.shutdown(cancel_futures=True)


def _first(going: deque[tuple[Item, Future[Result]]]) -> tuple[Item, Result]:
    item, result = going.popleft()
    return item, result.result()


@contextmanager
def _shared_processors(lanes: int) -> Iterator[int]:
    """Give each thread of this process its share of the threads that torch uses."""
    before = torch.get_num_threads()
    share = max(1, before // lanes)
    torch.set_num_threads(share)
    try:
        yield share
    finally:
        torch.set_num_threads(before)


def _is_copied_whole(vlm: VLM) -> bool:
    """Whether a copy of the modules shares nothing with the model but its parameters."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in vlm.model.parameters())
    return on_cpu and not vlm.interventions.active and all(map(_is_plain, vlm.model.modules()))


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is as its package made it: not hooked by others, replaced or compiled."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    makers = (type(module).__module__, *(getattr(hook, "__module__", "") for hook in hooks))
    changed = {"forward", "_hf_hook"} & vars(module).keys() or module._compiled_call_impl
    return not changed and all(maker.split(".")[0] in KNOWN for maker in makers)


def _copy(vlm: VLM) -> VLM:
    """The model with modules of its own and the same parameters."""
    shared = {id(parameter): parameter for parameter in vlm.model.parameters()}
    model, decoder, layers = copy.deepcopy((vlm.model, vlm.decoder, vlm.layers), shared)
    return replace(vlm, model=model, decoder=decoder, layers=layers)
