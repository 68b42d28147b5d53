"""Two single-thread workers of Ray against one: the same parts of an extraction, start-up apart.

    OMP_NUM_THREADS=1 python bench/workers.py [SAMPLES]

It prints how many samples are read in a second once all workers are ready, with one worker and with
two in turn, what a part costs in processor time, and for which share of the time a worker works
and does not wait for its next part. Other programs on the machine slow both down; the share and
the processor time tell what Ray costs.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keygap as kg
from keygap.engines.distributed import Work
from keygap.engines.plan import Plan
from keygap.store.lock import locked
from keygap.workers import workers_of

PART = 16
ROUNDS = 2


@dataclass(frozen=True)
class Timed:
    """The work of an extraction, timed in the worker.

    Attributes:
        work: the work.
    """

    work: Work

    def begin(self) -> Callable[[int], tuple[float, float, float]]:
        """The function that extracts a part: when it began and ended, and processor seconds."""
        extract = self.work.begin()

        def timed(number: int) -> tuple[float, float, float]:
            begun, cpu = time.time(), time.process_time()
            extract(number)
            return begun, time.time(), time.process_time() - cpu

        return timed


def run(plan: Plan, workers: int) -> tuple[float, float, float]:
    """Samples in a second, processor seconds of a part, and the share of time that is worked."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with locked(root):
            work = Timed(Work.of(plan, root))
            with workers_of("ray", workers) as pool:
                found = list(pool.map(work.begin, range(len(plan)), "benchmark"))
    starts = sorted(begun for begun, _, _ in found)
    first = starts[2 * workers]  # before, some workers may still prepare
    last = starts[-workers]  # from here on a worker may have nothing to do
    inside = [each for each in found if first <= each[0] < last]
    seconds = last - first
    worked = sum(min(ended, last) - max(begun, first) for begun, ended, _ in found
                 if ended > first and begun < last)  # fmt: skip
    cpu = statistics.median(cpu for _, _, cpu in inside)
    return len(inside) * PART / seconds, cpu, worked / seconds / workers


def main() -> None:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 640
    vlm = kg.load("micro:linear")
    chosen = kg.benchmark("easy-vqa", split="test").choose(samples)
    plan = Plan(vlm, chosen, ("k_proj",), tuple(vlm.layer_indices(["all"])), PART, PART)
    print("workers, samples/s, processor seconds of a part, share of time worked")
    for _ in range(ROUNDS):
        rates = []
        for workers in (1, 2):
            rate, cpu, share = run(plan, workers)
            rates.append(rate)
            print(f"{workers}, {rate:.2f}, {cpu:.2f}, {share:.3f}", flush=True)
        print(f"ratio {rates[1] / rates[0]:.2f}", flush=True)


if __name__ == "__main__":
    main()
