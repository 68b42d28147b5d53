"""What measuring attention costs: all layers of the same batches, as a ratio to a bare pass.

Each ratio is to the mean of the bare passes before and after it in the same round; the result is
its median over rounds. ``measured`` is everything that ``kg.measure_attention`` does with a batch,
less the reading of samples. A second check counts the largest tensor that attention of a long
prompt needs, in multiples of one number for each query head and key: weights of all queries would
need as many as the prompt is long.

    python bench/attention.py [--model micro:linear] [--rounds 7]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import ratios_to_bare, rounds_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import keygap as kg
from keygap.bias.attention import OF_PROMPT, _Measurement
from keygap.capture.attention import QueryGroups, attention_by_key
from keygap.models.attention_tap import AttentionCall

RESULTS = Path(__file__).parent / "results" / "attention.json"
MOST = 1.3  # of a bare forward pass


def variants_of(vlm: kg.VLM, count: int, size: int) -> dict[str, Callable[[], object]]:
    """What is timed: measurements between two bare passes over the same batches."""
    chosen = kg.benchmark("easy-vqa", split="test").choose(count * size)
    read = [[part.sample(number) for number in range(len(part))] for part in chosen.batches(size)]
    batches = [vlm.prompter(samples) for samples in read]

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                vlm.forward(batch)

    def measured(queries: tuple[str, ...]) -> Callable[[], None]:
        def run() -> None:
            measurement = _Measurement(vlm, vlm.layer_indices(["all"]), queries, 0)
            for samples, batch in zip(read, batches, strict=True):
                measurement._add_prompts(samples, batch)
            measurement.table([])

        return run

    return {
        "bare": bare,
        "question and last position": measured(OF_PROMPT),
        "last position": measured(("last",)),
        "bare again": bare,
    }


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and look at what it returns."""
        output = function(*args, **(kwargs or {}))
        for each in tree_leaves(output):
            if isinstance(each, torch.Tensor):
                self.elements = max(self.elements, each.numel())
        return output


def largest_share(length: int, heads: int = 8, key_heads: int = 2) -> float:
    """Elements of the largest tensor over those of one query's weights in all heads.

    Args:
        length: tokens of the prompt; half of them are queries.
        heads: query heads.
        key_heads: key heads.
    """
    query, key = (torch.randn(1, number, length, 16) for number in (heads, key_heads))
    module = torch.nn.Identity()
    module.is_causal = True  # type: ignore[assignment]
    call = AttentionCall(module, query, key, key, (None,), {}, lambda *_: None)
    queries = QueryGroups.of([[np.arange(length // 2, length), np.asarray([length - 1])]])
    with Largest() as largest:
        attention_by_key(call, queries)
    return largest.elements / (heads * length)


def main() -> None:
    """Time the variants and write their ratios to ``bench/results/attention.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="micro:linear")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()

    shares = {str(length): largest_share(length) for length in (512, 2048, 8192)}
    print("largest tensor, in weights of one query of all heads, by length of the prompt:", shares)
    vlm = kg.load(options.model)
    variants = variants_of(vlm, options.batches, options.batch_size)
    bare, rows = ratios_to_bare(rounds_of(variants, options.rounds))
    for name in rows:
        kept = "kept" if rows[name]["median"] <= MOST else "MISSED"
        print(f"{name:30} {rows[name]['median']:.3f}   (at most {MOST}: {kept})")
    report = {
        "model": options.model,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "dtype": str(vlm.dtype),
        "rounds": options.rounds,
        "batches": options.batches,
        "batch_size": options.batch_size,
        "bare_seconds": bare,
        "ratios": rows,
        "largest_tensor_in_query_weights": shares,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
