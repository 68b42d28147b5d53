"""What an extraction costs, store on disk included, as a ratio to a bare batched forward pass.

Rows, over the same questions in the same process:

- bare: batches of 8, inputs made beforehand, the whole model with its head, nothing kept;
- keygap: ``kg.extract`` of ``k_proj``, from the benchmark's files to a finished store;
- hooks, one by one: a plain loop of one prompt at a time with forward hooks, inputs made in the
  loop and vectors kept in memory, as somebody who follows a paper would write it;
- nnsight, one by one: a trace of each prompt that saves the same outputs. Left out, and the table
  says so, if nnsight is not installed.

    python bench/extraction.py [--model micro:linear] [--samples 500] [--rounds 3]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from timing import ratios_to_bare, rounds_of

import keygap as kg
from keygap.models.batch import Batch

RESULTS = Path(__file__).parent / "results" / "extraction.json"
BATCH = 8
SOME = ("first", "middle")


def main() -> None:
    """Time the variants, print their ratios and write them to ``bench/results``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="micro:linear")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    vlm = kg.load(options.model)
    chosen = kg.benchmark("easy-vqa", split="test").choose(options.samples)
    with tempfile.TemporaryDirectory() as folder:
        rounds = rounds_of(variants_of(vlm, chosen, Path(folder)), options.rounds)
        size = sum(p.stat().st_size for p in (Path(folder) / "all").rglob("*") if p.is_file())
    report = report_of(vlm, len(chosen), rounds, size)
    for name, row in report["ratios"].items():
        print(f"{name:40} {row['median']:.3f}   ({row['min']:.3f} to {row['max']:.3f})")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


def variants_of(vlm: kg.VLM, chosen: kg.SampleSet, folder: Path) -> dict[str, Callable[[], object]]:
    """What is timed; bare passes are first and last."""
    samples = [chosen.sample(number) for number in range(len(chosen))]
    batches = [
        vlm.inputs_of(vlm.prompter(samples[first : first + BATCH]))
        for first in range(0, len(samples), BATCH)
    ]

    def bare() -> None:
        with torch.inference_mode():
            for inputs in batches:
                vlm.model(**inputs, use_cache=False)

    def extracted(name: str, layers: tuple[str, ...]) -> Callable[[], None]:
        def run() -> None:
            shutil.rmtree(folder / name, ignore_errors=True)
            kg.extract(vlm, chosen, folder / name, layers=layers, batch_size=BATCH, tokens="all")

        return run

    found: dict[str, Callable[[], object]] = {
        "bare": bare,
        "keygap, all layers": extracted("all", ("all",)),
        "keygap, first and middle": extracted("some", SOME),
        "hooks, one by one": lambda: one_by_one(vlm, chosen),
    }
    if importlib.util.find_spec("nnsight"):
        # a model of its own: nnsight changes the modules that it wraps
        found["nnsight, one by one"] = traced(kg.load(vlm.name), chosen)
    return {**found, "bare again": bare}


def one_by_one(vlm: kg.VLM, chosen: kg.SampleSet) -> list[torch.Tensor]:
    """One prompt at a time, with a hook on every ``k_proj``."""
    kept: list[torch.Tensor] = []
    hooks = [
        layer.attention.k_proj.register_forward_hook(
            lambda module, inputs, output: kept.append(output.detach().cpu())
        )
        for layer in vlm.layers
    ]
    with torch.inference_mode():
        for number in range(len(chosen)):
            inputs = vlm.inputs_of(vlm.prompter([chosen.sample(number)]))
            vlm.model(**inputs, use_cache=False)
    for hook in hooks:
        hook.remove()
    return kept


def traced(vlm: kg.VLM, chosen: kg.SampleSet) -> Callable[[], object]:
    """One prompt at a time, in a trace of nnsight that saves every ``k_proj``."""
    import nnsight

    model = nnsight.NNsight(vlm.model)
    names = {module: name for name, module in vlm.model.named_modules()}
    paths = [names[layer.attention.k_proj].split(".") for layer in vlm.layers]

    def envoy(path: list[str]) -> Any:
        found: Any = model
        for part in path:
            found = found[int(part)] if part.isdecimal() else getattr(found, part)
        return found

    projections = [envoy(path) for path in paths]

    def run() -> list[Any]:
        kept: list[Any] = []
        with torch.inference_mode():
            for number in range(len(chosen)):
                batch: Batch = vlm.prompter([chosen.sample(number)])
                with model.trace(**vlm.inputs_of(batch), use_cache=False):
                    saved = nnsight.save([])
                    for projection in projections:
                        saved.append(projection.output)
                kept += saved
        assert len(kept) == len(chosen) * len(projections)
        return kept

    return run


def report_of(
    vlm: kg.VLM, samples: int, rounds: list[dict[str, float]], size: int
) -> dict[str, Any]:
    """Medians and ranges of the ratios of one run, and what they were measured on."""
    bare, ratios = ratios_to_bare(rounds)
    packages = ["torch", "transformers"]
    packages += ["nnsight"] if "nnsight, one by one" in ratios else []
    return {
        "model": vlm.name,
        "samples": samples,
        "layers": len(vlm.layers),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "rounds": len(rounds),
        "bare_seconds_per_sample": bare / samples,
        "bytes_per_sample": size / samples,
        "ratios": ratios,
    }


if __name__ == "__main__":
    main()
