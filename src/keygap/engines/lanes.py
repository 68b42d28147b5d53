"""Batches side by side on a CPU: some lanes, each with a share of the processors.

The matrices of a short prompt are too small to keep several processors busy, and any other work in
the process delays one of them while the others wait for it. Batches do not depend on each other, so
each lane computes its own batch with fewer processors. A GPU computes one batch at a time.

Modules keep state while they run: hooks, and in some families buffers. So each lane has a copy of
the modules, with the same parameters. A lane is made only where that copy computes the same and
shares nothing else; any other model has one lane, which is the model itself.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from keygap.models.attention_tap import implementation_of, is_tapped
from keygap.models.vlm import VLM

MOST = 4  # lanes: each holds a batch in memory
# Packages whose modules keep no state outside of themselves.
KNOWN = frozenset({"torch", "transformers", "timm"})
IMPLEMENTATIONS = frozenset({"sdpa", "eager"})  # of attention; others compile or load kernels
Lane = TypeVar("Lane")
Item = TypeVar("Item")
Result = TypeVar("Result")
logger = logging.getLogger("keygap")


def lanes_of(vlm: VLM) -> list[VLM]:
    """The model, and as many copies of it as there are lanes beside the first.

    Args:
        vlm: the model. It has one lane if it is not on a CPU, if an intervention acts on it, if its
            modules are hooked, patched, tapped or compiled, if one of them is of a package that is
            not in ``KNOWN``, has attention that is not in ``IMPLEMENTATIONS`` or a dynamic rotary
            embedding, or if the caller has turned autocast on or hooked all modules of torch.
    """
    threads = torch.get_num_threads()
    # prefer more lanes: with 5 threads, four lanes of one thread and one idle thread
    counts = range(2, min(MOST, threads) + 1)
    count = max(counts, key=lambda lanes: (threads // lanes * lanes, lanes), default=1)
    if count == 1 or not _is_copied_whole(vlm):
        return [vlm]
    try:
        return [vlm, *(_copy(vlm) for _ in range(count - 1))]
    except (RuntimeError, TypeError) as reason:  # a module holds a lock, or a tensor with a graph
        logger.info("%s: one batch at a time, its modules cannot be copied: %s", vlm.name, reason)
        return [vlm]


def side_by_side(
    run: Callable[[Lane, Item], Result],
    lanes: Sequence[Lane],
    items: Iterable[Item],
    stop: Callable[[Lane], object] = lambda lane: None,
) -> Generator[Result]:
    """Run a function on items, one in each lane at a time.

    Args:
        run: is given a lane that nobody else uses meanwhile.
        lanes: what the items are run in. A single lane is used in the calling thread.
        items: the items. One more than there are lanes is taken in advance.
        stop: lets what runs in a lane end soon, because nobody will use its result.

    Yields:
        The results in the order of the items, which are not held longer than they are used. If the
        items end in an exception, it is raised after the results of those before.
    """
    if len(lanes) == 1:
        yield from map(partial(run, lanes[0]), items)
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
        going: deque[Future[Result]] = deque()
        following = iter(items)
        failure: Exception | None = None
        try:
            while True:
                try:
                    going.append(threads.submit(in_a_lane, next(following)))
                except StopIteration:
                    break
                except Exception as error:  # raised below
                    failure = error
                    break
                if len(going) > len(lanes):  # one waits, so that no lane does
                    yield going.popleft().result()
            while going:
                yield going.popleft().result()
            if failure is not None:
                raise failure
        finally:
            if going:  # an interrupt does not wait for whole passes
                for lane in lanes:
                    stop(lane)
            threads.shutdown(cancel_futures=True)


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
    """Whether a copy of the modules computes the same in another thread, and shares no state."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in vlm.model.parameters())
    changed = vlm.interventions.active or is_tapped() or torch.is_autocast_enabled("cpu")
    hooked = _global_forward_hooks or _global_forward_pre_hooks  # of every module of torch
    return on_cpu and not (changed or hooked) and all(map(_is_plain, vlm.model.modules()))


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is as its package made it, and does not remember earlier batches."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    made = (type(module), type(module).forward, *hooks)
    known = all((getattr(one, "__module__", "") or "").split(".")[0] in KNOWN for one in made)
    patched = any(
        callable(value) and hasattr(type(module), name) for name, value in vars(module).items()
    )
    remembers = "dynamic" in str(getattr(module, "rope_type", ""))  # the longest prompt so far
    usual = implementation_of(module) in IMPLEMENTATIONS
    return known and usual and not (patched or remembers or hasattr(module, "_hf_hook"))


def _copy(vlm: VLM) -> VLM:
    """The model with modules of its own and the same parameters."""
    shared = {id(parameter): parameter for parameter in vlm.model.parameters()}
    model, decoder, layers = copy.deepcopy((vlm.model, vlm.decoder, vlm.layers), shared)
    return replace(vlm, model=model, decoder=decoder, layers=layers)
