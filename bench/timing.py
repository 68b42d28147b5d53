"""Times variants of one computation against each other.

The speed of a machine drifts, so absolute times of different runs cannot be compared. Variants
therefore take turns in one process, and a result is a ratio of times of the same round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

Variants = Mapping[str, Callable[[], object]]


def rounds_of(variants: Variants, rounds: int) -> list[dict[str, float]]:
    """Seconds of each variant in each round; every variant runs once before the first round."""
    for run in variants.values():  # fills caches and the allocator
        run()
    return [{name: seconds_of(run) for name, run in variants.items()} for _ in range(rounds)]


def ratios_to_bare(rounds: list[dict[str, float]]) -> tuple[float, dict[str, dict[str, float]]]:
    """Each variant over the mean of the bare passes before and after it in the same round.

    Args:
        rounds: of ``rounds_of``; the variants ``bare`` and ``bare again`` are the first and last.

    Returns:
        Median seconds of a bare pass, and median, min and max of the ratio by variant.
    """
    bares = [(seconds["bare"] + seconds["bare again"]) / 2 for seconds in rounds]
    found = {}
    for name in rounds[0]:
        if name.startswith("bare"):
            continue
        ratios = [seconds[name] / bare for seconds, bare in zip(rounds, bares, strict=True)]
        found[name] = {"median": median(ratios), "min": min(ratios), "max": max(ratios)}
    return median(bares), found


def seconds_of(run: Callable[[], object]) -> float:
    """Seconds of one call, with the work that a GPU still has to do."""
    _synchronise()
    start = time.perf_counter()
    run()
    _synchronise()
    return time.perf_counter() - start


def _synchronise() -> None:
    """Wait for the work that a GPU still has to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
