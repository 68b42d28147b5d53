"""What an extraction costs on a GPU, with the real shapes of 7B models and random weights.

Weights do not change how long a pass takes, so nothing is downloaded: the shapes are those of the
published configurations, and processors are made as in the tests. Rows are the bare prefill of
batches whose inputs are made beforehand; ``kg.extract`` of ``k_proj`` at all layers, from images to
a finished store; and a loop over some samples with a hook at every layer, as a reader of the paper
would write it. ``steady_over_bare`` leaves out what an extraction costs once (its checks, its first
and last part): it is the time of the last two thirds of the samples over their bare passes. The
share of the device's matrix rate compares the floating-point operations of the text stack (two for
each weight and token) with a product of large matrices in the same dtype.

Without a GPU only ``--model reduced`` makes sense: it tries the script, and its times say nothing.

    python bench/accelerator.py [--model llava-1.5-7b] [--samples 128] [--batch-size 16]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from timing import seconds_of
from transformers import AutoModelForImageTextToText

import keygap as kg
from keygap.benchmarks import InMemory, Sample, image_then_question
from keygap.models.load import wrap

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from models import offline
from models.entry import LLAVA, QWEN_PLACE, QWEN_TOKENS
from models.test_real_shape import LLAVA_15_7B, QWEN_25_VL_7B, reduced

RESULTS = Path(__file__).parent / "results"
MATRIX = 8192  # side of the matrices whose product gives the device's rate
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16
LOOP = 16  # samples of the loop


def main() -> None:
    """Measure one model and write ``bench/results/accelerator-MODEL.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="llava-1.5-7b", choices=list(MODELS))
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    vlm = MODELS[options.model]()
    report = measured(vlm, pictures(options.samples), options.batch_size, options.rounds)
    text = json.dumps({"model": options.model, **report}, indent=2)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"accelerator-{options.model}.json").write_text(text + "\n")


def llava() -> kg.VLM:
    """LLaVA-1.5-7B's shape."""
    return _llava(LLAVA_15_7B)


def qwen() -> kg.VLM:
    """Qwen2.5-VL-7B's shape."""
    tokenizer = offline.tokenizer_with(QWEN_TOKENS)
    template = offline.WITH_SYSTEM.replace("IMAGE", QWEN_PLACE)
    processor = offline.real_processor("qwen2_5_vl", tokenizer, {}, {}, template)
    config = reduced(QWEN_25_VL_7B, {}, {}, tokenizer.convert_tokens_to_ids("<|image_pad|>"))
    return wrap(random_model(config), processor, "Qwen2.5-VL-7B, random weights")


def reduced_llava() -> kg.VLM:
    """LLaVA-1.5 with two heads, to try the script."""
    config = reduced(
        LLAVA_15_7B,
        {
            "hidden_size": 256,
            "intermediate_size": 256,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "num_hidden_layers": 4,
        },
        {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2},
        32000,
    )
    return _llava(config)


def _llava(config: Any) -> kg.VLM:
    tokenizer = offline.tokenizer_with({"image_token": "<image>"})
    template = offline.VICUNA.replace("IMAGE", "<image>")
    image = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    processor = offline.real_processor(
        "llava", tokenizer, image, {**LLAVA, "patch_size": 14}, template
    )
    config = reduced(config, {}, {}, tokenizer.convert_tokens_to_ids("<image>"))
    return wrap(random_model(config), processor, "LLaVA-1.5-7B, random weights")


MODELS: dict[str, Callable[[], kg.VLM]] = {
    "llava-1.5-7b": llava,
    "qwen2.5-vl-7b": qwen,
    "reduced": reduced_llava,
}


def random_model(config: Any) -> Any:
    """A model of a configuration, made on the device in half precision."""
    torch.manual_seed(0)
    torch.set_default_dtype(DTYPE)
    try:
        with torch.device(DEVICE):
            return AutoModelForImageTextToText.from_config(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def pictures(count: int) -> kg.SampleSet:
    """Pictures of noise in three shapes, with a question each."""
    sizes = [(640, 480), (480, 640), (512, 512)]
    samples = []
    for number in range(count):
        picture = Image.effect_noise(sizes[number % 3], 80).convert("RGB")
        question = f"What colour is the shape number {number} in the picture?"
        samples.append(Sample(str(number), (picture,), question, image_then_question(question)))
    return InMemory("noise", samples).choose(None)


def measured(vlm: kg.VLM, chosen: kg.SampleSet, size: int, rounds: int) -> dict[str, Any]:
    """Times of bare prefill and extraction in turns, and what they used."""
    prompts = [
        vlm.prompter([chosen.sample(n) for n in range(first, min(first + size, len(chosen)))])
        for first in range(0, len(chosen), size)
    ]
    batches = [vlm.inputs_of(prompt) for prompt in prompts]
    tokens = sum(len(labels) for prompt in prompts for labels in prompt.labels)

    def bare() -> None:
        with torch.inference_mode():
            for inputs in batches:
                vlm.model(**inputs, use_cache=False, logits_to_keep=1)

    bares, extractions, thirds, loops, peaks, bytes_on_disk = [], [], [], [], [], 0
    bare()
    third = len(chosen) // 3
    extracted(vlm, chosen[:size], size)  # the self-check of batches is done once
    for _ in range(rounds):
        bares.append(seconds_of(bare))
        thirds.append(extracted(vlm, chosen[:third], size)[0])
        _reset_peak()
        seconds, bytes_on_disk = extracted(vlm, chosen, size)
        extractions.append(seconds)
        peaks.append(torch.cuda.max_memory_allocated() if DEVICE == "cuda" else 0)
        loops.append(seconds_of(lambda: hook_loop(vlm, chosen[:LOOP])))
    weights = sum(parameter.numel() for parameter in vlm.decoder.parameters())
    rate = matrix_rate()
    return {
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
        "dtype": str(DTYPE).removeprefix("torch."),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers")},
        },
        "samples": len(chosen),
        "batch_size": size,
        "tokens_per_sample": tokens / len(chosen),
        "bare_seconds": bares,
        "extraction_seconds": extractions,
        "extraction_of_a_third_seconds": thirds,
        "loop_seconds": loops,
        "loop_samples": len(chosen[:LOOP]),
        "extraction_over_bare": median(
            own / bare for own, bare in zip(extractions, bares, strict=True)
        ),
        "steady_over_bare": median(
            (own - first) / (bare * (1 - third / len(chosen)))
            for own, first, bare in zip(extractions, thirds, bares, strict=True)
        ),
        "loop_over_extraction": median(
            (loop / len(chosen[:LOOP])) / (own / len(chosen))
            for loop, own in zip(loops, extractions, strict=True)
        ),
        "tokens_per_second": tokens / median(extractions),
        "share_of_matrix_rate": 2 * weights * tokens / median(extractions) / rate,
        "matrix_rate": rate,
        "peak_bytes": max(peaks),
        "bytes_per_sample": bytes_on_disk / len(chosen),
    }


def extracted(vlm: kg.VLM, chosen: kg.SampleSet, size: int) -> tuple[float, int]:
    """Seconds and bytes of an extraction of ``k_proj`` at all layers."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        seconds = seconds_of(lambda: kg.extract(vlm, chosen, out, layers=["all"], batch_size=size))
        return seconds, sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def hook_loop(vlm: kg.VLM, chosen: kg.SampleSet) -> None:
    """Read ``k_proj`` at all layers one prompt at a time, and store nothing."""
    kept: list[torch.Tensor] = []
    handles = [
        layer.projections["k_proj"].module.register_forward_hook(
            lambda module, arguments, output: kept.append(output.float().cpu())
        )
        for layer in vlm.layers
    ]
    with torch.inference_mode():
        for number in range(len(chosen)):
            vlm.model(**vlm.inputs_of(vlm.prompter([chosen.sample(number)])))
            kept.clear()
    for handle in handles:
        handle.remove()


def matrix_rate() -> float:
    """Floating-point operations in a second of a product of large matrices."""
    side = MATRIX if DEVICE == "cuda" else 512
    one = torch.randn(side, side, device=DEVICE, dtype=DTYPE)
    repeats = 20

    def product() -> None:
        for _ in range(repeats):
            one @ one

    product()
    return 2 * side**3 * repeats / seconds_of(product)


def _reset_peak() -> None:
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
