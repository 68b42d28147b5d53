"""What steering costs: the same batches under interventions, as ratios to a bare forward pass.

Each ratio is to the mean of the bare passes before and after it in the same round; the result is
its median over rounds. Keys of all layers are moved by a mean shift: free, with each query's
attention to the image held, and with only that attention changed. With ``--shape`` the model has
the widths, layers and number of image tokens of a published one, and random weights, whose values
do not change what a pass costs.

    python bench/steering.py [--model micro:linear] [--dtype float32] [--rounds 7]
    PYTHONPATH=tests python bench/steering.py --shape LLaVA-1.5-7B --dtype bfloat16
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timing import ratios_to_bare, rounds_of

import keygap as kg
from keygap.align.affine import Affine
from keygap.align.baselines import build
from keygap.align.map import Map
from keygap.benchmarks import Sample, image_then_question

RESULTS = Path(__file__).parent / "results" / "steering.json"
MOST = {"mean shift": 1.05, "attention held": 1.3, "attention alone": 1.3}
SITE = "k_proj"


def samples_of(count: int, side: int) -> list[Sample]:
    """Noisy pictures with questions of different lengths."""
    made = []
    for number in range(count):
        question = "What colour is the shape" + " in the picture" * (number % 3) + "?"
        picture = Image.effect_noise((side, side), 80).convert("RGB")
        made.append(Sample(f"s{number}", (picture,), question, image_then_question(question)))
    return made


def shift_of(vlm: kg.VLM) -> Map:
    """A shift of the keys of all layers, of the size of a key's usual deviation."""
    generator = torch.Generator().manual_seed(0)
    layers = {
        each.index: Affine(torch.randn(each.key_heads, each.head_dim, generator=generator))
        for each in vlm.layers
    }
    return Map("mean-shift", SITE, layers, {})


def variants_of(vlm: kg.VLM, batches: list[Any]) -> dict[str, Callable[[], object]]:
    """What is timed, between two bare passes over the same batches."""
    shift = shift_of(vlm)
    every = vlm.layer_indices(["all"])

    def run(entered: Callable[[], AbstractContextManager[Any]]) -> Callable[[], None]:
        def passes() -> None:
            with torch.inference_mode(), entered():
                for batch in batches:
                    vlm.forward(batch, logits_to_keep=1)

        return passes

    def applied(name: str, **settings: Any) -> AbstractContextManager[None]:
        return vlm.interventions.applied(build(name, layers=every, **settings))

    return {
        "bare": run(nullcontext),
        "mean shift": run(lambda: kg.align.steer(vlm, shift)),
        "attention held": run(lambda: kg.align.steer(vlm, shift, mass="held")),
        "attention alone": run(lambda: kg.align.steer(vlm, shift, mass="only")),
        "bias on image logits": run(lambda: applied("attention-bias", nats=1.0)),
        "PAI, attention part": run(lambda: applied("pai", alpha=0.2, gamma=1.0)),
        "bare again": run(nullcontext),
    }


def shaped(name: str, dtype: torch.dtype, device: str) -> kg.VLM:
    """A model of a published shape with random weights, and a processor that needs no download."""
    from transformers import AutoModelForImageTextToText

    from keygap.models.load import wrap
    from models import offline, test_real_shape  # of the tests
    from models.entry import LLAVA

    if name != "LLaVA-1.5-7B":
        raise SystemExit(f"no shape {name}: LLaVA-1.5-7B is known")
    tokenizer = offline.tokenizer_with({"image_token": "<image>"})
    template = offline.VICUNA.replace("IMAGE", "<image>")
    image = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    arguments = {**LLAVA, "patch_size": 14}
    processor = offline.real_processor("llava", tokenizer, image, arguments, template)
    config = test_real_shape.LLAVA_15_7B
    config.image_token_index = tokenizer.convert_tokens_to_ids("<image>")
    config.image_token_id = config.image_token_index
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa")
    torch.set_default_dtype(before)
    return wrap(model.eval(), processor, name=f"{name}, random weights")


def main() -> None:
    """Time the variants and add their ratios to ``bench/results/steering.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="micro:linear")
    parser.add_argument("--shape")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()

    cuda = torch.cuda.is_available()
    if options.shape:
        device = "cuda" if cuda else "cpu"
        vlm = shaped(options.shape, getattr(torch, options.dtype), device)
    else:
        vlm = kg.load(options.model, dtype=options.dtype)
    made = samples_of(options.batches * options.batch_size, 336 if options.shape else 64)
    size = options.batch_size
    batches = [vlm.prompter(made[start : start + size]) for start in range(0, len(made), size)]
    bare, ratios = ratios_to_bare(rounds_of(variants_of(vlm, batches), options.rounds))
    for name, row in ratios.items():
        limit = MOST.get(name)
        kept = (
            f"(at most {limit}: {'kept' if row['median'] <= limit else 'MISSED'})" if limit else ""
        )
        print(f"{name:24} {row['median']:.3f}   {kept}")
    device = torch.cuda.get_device_name() if cuda else "cpu"
    found = json.loads(options.out.read_text()) if options.out.is_file() else {}
    found[f"{vlm.name}, {options.dtype}, {device}"] = {
        "rounds": options.rounds,
        "batches": options.batches,
        "batch_size": size,
        "tokens_of_a_prompt": int(batches[0].inputs["input_ids"].shape[1]),
        "bare_seconds": bare,
        "ratios": ratios,
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
