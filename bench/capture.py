"""What capturing costs: the same batches, captured over bare, in one process and one run.

Rounds of each variant take turns, so that a drift of the machine's speed hits all of them; the
figure is the median over rounds of the ratio to the bare pass of the same round. Absolute times
are printed for orientation only.

    python bench/capture.py [--model micro:linear] [--rounds 7]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import keygap as kg
from keygap.capture import Capture

RESULTS = Path(__file__).parent / "results"


def measured(run: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="micro:linear")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()

    vlm = kg.load(options.model)
    bench = kg.benchmark("easy-vqa", split="test")
    size = options.batch_size
    batches = []
    for number in range(options.batches):
        places = range(number * size, (number + 1) * size)
        batch = vlm.prompter([bench.sample(place) for place in places])
        batches.append(dict(batch.inputs.to(vlm.device, dtype=vlm.dtype)))
    count = len(vlm.layers)

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                vlm.model(**batch, use_cache=False)

    def captured(layers: list[int], attention: bool = False) -> Callable[[], None]:
        def run() -> None:
            with Capture(vlm, ["k_proj"], layers, attention=attention) as capture:
                for batch in batches:
                    capture(batch)

        return run

    variants = {
        "all layers": captured(list(range(count))),
        "all layers, attention received": captured(list(range(count)), attention=True),
        "first, middle, last": captured([0, count // 2, count - 1]),
        "three layers, none the last": captured([0, count // 4, count // 2]),
    }
    bare()
    for run in variants.values():
        run()
    ratios: dict[str, list[float]] = {name: [] for name in variants}
    bares = []
    for _ in range(options.rounds):
        before = measured(bare)
        times = {name: measured(run) for name, run in variants.items()}
        after = measured(bare)
        bares.append((before + after) / 2)
        for name, seconds in times.items():
            ratios[name].append(seconds / bares[-1])

    rows = {
        name: {
            "median": statistics.median(values),
            "min": min(values),
            "max": max(values),
        }
        for name, values in ratios.items()
    }
    print(f"{options.model}, {count} layers, {options.batches} batches of {size}, {vlm.dtype}")
    print(f"bare forward pass: median {statistics.median(bares):.3f} s, ratio 1")
    for name, row in rows.items():
        print(f"{name:32} {row['median']:.3f}   ({row['min']:.3f} to {row['max']:.3f})")
    RESULTS.mkdir(exist_ok=True)
    report = {
        "model": options.model,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "dtype": str(vlm.dtype),
        "rounds": options.rounds,
        "bare_seconds": statistics.median(bares),
        "ratios": rows,
    }
    (RESULTS / "capture.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
