"""What capturing costs: the same batches with hooks, as a ratio to a bare forward pass.

Each ratio is to the mean of the bare passes before and after it in the same round; the result is
its median over rounds. The absolute time is printed for orientation only.

    python bench/capture.py [--model micro:linear] [--rounds 7]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import ratios_to_bare, rounds_of

import keygap as kg
from keygap.capture import Capture

RESULTS = Path(__file__).parent / "results" / "capture.json"


def inputs_of(vlm: kg.VLM, batches: int, batch_size: int) -> list[dict[str, Any]]:
    """Model inputs of the first questions of easy-VQA, on the model's device."""
    bench = kg.benchmark("easy-vqa", split="test")
    made = []
    for first in range(0, batches * batch_size, batch_size):
        samples = [bench.sample(place) for place in range(first, first + batch_size)]
        made.append(dict(vlm.prompter(samples).inputs.to(vlm.device, dtype=vlm.dtype)))
    return made


def variants_of(vlm: kg.VLM, batches: list[dict[str, Any]]) -> dict[str, Callable[[], object]]:
    """What is timed: captures at several layers between two bare passes."""

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

    count = len(vlm.layers)
    return {
        "bare": bare,
        "all layers": captured(list(range(count))),
        "all layers, attention received": captured(list(range(count)), attention=True),
        "first, middle, last": captured([0, count // 2, count - 1]),
        "three layers, none the last": captured([0, count // 4, count // 2]),
        "bare again": bare,
    }


def main() -> None:
    """Time the variants, print their ratios and write them to ``bench/results/capture.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="micro:linear")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()

    vlm = kg.load(options.model)
    variants = variants_of(vlm, inputs_of(vlm, options.batches, options.batch_size))
    bare, rows = ratios_to_bare(rounds_of(variants, options.rounds))
    size = f"{options.batches} batches of {options.batch_size}"
    print(f"{options.model}, {len(vlm.layers)} layers, {size}, {vlm.dtype}")
    print(f"bare forward pass: median {bare:.3f} s, ratio 1")
    for name, row in rows.items():
        print(f"{name:32} {row['median']:.3f}   ({row['min']:.3f} to {row['max']:.3f})")
    report = {
        "model": options.model,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "dtype": str(vlm.dtype),
        "rounds": options.rounds,
        "bare_seconds": bare,
        "ratios": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
