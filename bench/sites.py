"""What reading a site costs: captures at all layers, as ratios to forward passes.

A capture runs through the last layer but leaves out the language-model head. Each is therefore
compared with a bare pass, and with a pass without the head, which isolates the cost of hooks
and taps. Results are medians over rounds of the ratio within a round.

    python bench/sites.py [MODEL] [--rounds 15]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import rounds_of

import keygap as kg
from keygap.benchmarks import Sample, image_then_question
from keygap.capture import Capture
from keygap.capture.sites import SITES

RESULTS = Path(__file__).parent / "results" / "sites.json"
WANTED = {"k_proj": ["k_proj"], "key": ["key"], "all sites": [*SITES]}


def inputs_of(vlm: kg.VLM, batch_size: int) -> dict[str, Any]:
    """Model inputs of random images with one question, on the model's device."""
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, 128, 128, 3), dtype=np.uint8)
    question = "What is the colour of the shape in the picture, and is there another one of it?"
    samples = [
        Sample(str(n), (Image.fromarray(image),), question, image_then_question(question))
        for n, image in enumerate(pixels)
    ]
    return dict(vlm.prompter(samples).inputs.to(vlm.device, dtype=vlm.dtype))


def variants_of(
    vlm: kg.VLM, inputs: dict[str, Any], layers: list[int]
) -> dict[str, Callable[[], object]]:
    """What is timed: both kinds of forward pass, and a capture for each entry of ``WANTED``."""

    def captured(sites: list[str]) -> Callable[[], object]:
        capture = Capture(vlm, sites, layers)

        def run() -> object:
            with capture:
                return capture(inputs)

        return run

    return {
        "bare": lambda: vlm.forward(inputs),
        "no head": lambda: vlm.model.base_model(**inputs, use_cache=False),
        **{name: captured(sites) for name, sites in WANTED.items()},
    }


def main() -> None:
    """Time the variants, print their ratios and write them to ``bench/results/sites.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="micro:linear")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()

    vlm = kg.load(options.model)
    inputs = inputs_of(vlm, options.batch_size)
    layers = [layer.index for layer in vlm.layers if layer.attends == "self"]
    with torch.no_grad():
        rounds = rounds_of(variants_of(vlm, inputs, layers), options.rounds)
    ratios = {
        name: {
            base: statistics.median(seconds[name] / seconds[base] for seconds in rounds)
            for base in ("bare", "no head")
        }
        for name in WANTED
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
        "bare_seconds": statistics.median(seconds["bare"] for seconds in rounds),
        "ratios": ratios,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{options.model}, {len(layers)} layers, batch of {options.batch_size}")
    print(f"  {'':10} over a bare pass   over one without head")
    for name, over in ratios.items():
        print(f"  {name:10} {over['bare']:16.3f}   {over['no head']:21.3f}")


if __name__ == "__main__":
    main()
