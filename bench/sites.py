"""What reading costs: the same batch, captured at all sites and layers, over a bare forward pass.

Each round times every variant once, in turn, so that whatever else the machine does falls on all of
them; the result is the median over rounds of a variant's time over that round's bare pass. Captures
run through the last layer but leave out the language-model head, so a second column compares them
with a pass that has no head either: what is left is what hooks and taps cost.

    python bench/sites.py [MODEL] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import keygap as kg
from keygap.benchmarks import Sample, image_then_question
from keygap.capture.batches import on_device
from keygap.capture.hooks import Capture
from keygap.capture.sites import SITES

RESULTS = Path(__file__).parent / "results" / "sites.json"


def samples(count: int) -> list[Sample]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 128, 128, 3), dtype=np.uint8)
    question = "What is the colour of the shape in the picture, and is there another one of it?"
    return [
        Sample(str(n), (Image.fromarray(image),), question, image_then_question(question))
        for n, image in enumerate(pixels)
    ]


@contextmanager
def timed() -> Iterator[list[float]]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    took: list[float] = []
    start = time.perf_counter()
    yield took
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    took.append(time.perf_counter() - start)


def median_ratio(rounds: list[dict[str, float]], name: str, base: str) -> float:
    """Median over rounds, so that a round in which the machine was busy counts once."""
    return statistics.median(seconds[name] / seconds[base] for seconds in rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="micro:linear")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()

    vlm = kg.load(options.model)
    inputs = on_device(vlm, vlm.prompter(samples(options.batch_size)))
    layers = [layer.index for layer in vlm.layers if layer.attends == "self"]
    wanted = {
        "k_proj": ["k_proj"],
        "key": ["key"],
        "all sites": [*SITES],
    }
    with torch.no_grad(), ExitStack() as stack:
        stack.callback(vlm.model.train, vlm.model.training)
        variants: dict[str, Callable[[], object]] = {
            "bare": lambda: vlm.forward(inputs),
            "no head": lambda: vlm.model.base_model(**inputs, use_cache=False),
        }
        for name, sites in wanted.items():
            capture = Capture(vlm, sites, layers)

            def run(capture: Capture = capture) -> object:
                with capture:
                    return capture(inputs)

            variants[name] = run
        for variant in variants.values():  # caches, allocator
            variant()
        rounds: list[dict[str, float]] = []
        for _ in range(options.rounds):
            seconds = {}
            for name, variant in variants.items():
                with timed() as took:
                    variant()
                seconds[name] = took[0]
            rounds.append(seconds)
    ratios = {
        name: {base: median_ratio(rounds, name, base) for base in ("bare", "no head")}
        for name in wanted
    }
    result = {
        "model": options.model,
        "batch_size": options.batch_size,
        "tokens": int(inputs["input_ids"].shape[1]),
        "layers": len(layers),
        "rounds": options.rounds,
        "device": str(vlm.device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "bare_seconds": statistics.median(each["bare"] for each in rounds),
        "ratios": ratios,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{options.model}, {len(layers)} layers, batch of {options.batch_size}")
    print(f"  {'':10} over a bare pass   over one without head")
    for name, over in ratios.items():
        print(f"  {name:10} {over['bare']:16.3f}   {over['no head']:21.3f}")


if __name__ == "__main__":
    main()
