"""Time of MMD with 1,000 permutations and 1,000 bootstraps, over one blocked pass of the kernel.

    python bench/statistics/speed.py [--largest 50000]

The pass is the least that any exact MMD has to do: squared distances by matrix products in blocks
that fit in cache, one exponential and one sum, for each unordered pair once. Both run in turn in
this process on the same data, and the best time of several is kept. After that, time and peak
memory above the data are measured for growing sizes, each in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from planted import save

import keygap.gap

D, SAMPLES = 128, 200


def data(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two sides of n float32 vectors and their sample ids (the same on both sides)."""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((n, D), dtype=np.float32) for _ in range(2))
    y[:, 0] += 1.0
    return x, y, np.arange(n) * SAMPLES // n


def blocked_pass(points: torch.Tensor, sigma: float, block: int) -> float:
    """Sum of one Gaussian kernel over all pairs."""
    squares = (points * points).sum(1)
    total = 0.0
    for i in range(0, len(points), block):
        for j in range(i, len(points), block):
            product = points[i : i + block] @ points[j : j + block].T
            distance = squares[i : i + block, None] + squares[j : j + block] - 2 * product
            total += float(distance.clamp_(min=0).mul_(-0.5 / sigma**2).exp_().sum())
    return total


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def growth(n: int) -> tuple[float, float]:
    """Seconds, and peak resident memory above what was there before the call, in GB."""
    x, y, groups = data(n)
    keygap.gap.mmd(x[::50], y[::50], groups[::50], groups[::50])  # load libraries first
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took = seconds(lambda: keygap.gap.mmd(x, y, groups, groups))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return took, (peak - before) / 2**20


def main() -> None:
    """Record and print the ratio to one pass, then the growth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--growth", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.growth:
        print(*growth(arguments.growth))
        return

    n = min(10_000, arguments.largest)
    x, y, groups = data(n)
    points = torch.from_numpy(np.concatenate([x, y]))
    passes: dict[int, float] = {}
    whole = float("inf")
    for _ in range(arguments.repeats):
        for block in (512, 1024, 2048):
            took = seconds(lambda block=block: blocked_pass(points, 16.0, block))
            passes[block] = min(took, passes.get(block, took))
        whole = min(whole, seconds(lambda: keygap.gap.mmd(x, y, groups, groups)))
    rows: list[dict[str, object]] = [
        {
            "vectors a side": n,
            "seconds": whole,
            "over the fastest pass": whole / min(passes.values()),
            "per pair (ns)": 1e9 * whole / (2.0 * n**2),
            "GB above the data": "",
        }
    ]
    for size in (5_000, 10_000, 20_000, 50_000):
        if size > arguments.largest:
            break
        output = subprocess.run(
            [sys.executable, __file__, "--growth", str(size)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        took, memory = float(output[0]), float(output[1])
        rows.append(
            {
                "vectors a side": size,
                "seconds": took,
                "over the fastest pass": "",
                "per pair (ns)": 1e9 * took / (2.0 * size**2),
                "GB above the data": memory,
            }
        )
    save("speed", rows)


if __name__ == "__main__":
    main()
