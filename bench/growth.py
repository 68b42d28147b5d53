"""How time and memory grow with the number of samples, for extraction and for measuring.

Each extraction (``k_proj`` at all layers, the default tokens) and each measurement (its middle
layer) runs in a process of its own, which reports its time and the peak of its memory. The smaller
number of samples runs before and after the larger one, because the speed of a machine drifts. The
self-check, which costs the same for any number of samples, is done before the time begins. It needs
Linux.

    python bench/growth.py [--model micro:linear] [--samples 500 5000]
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from measuring import peak_mb
from timing import seconds_of

import keygap as kg

RESULTS = Path(__file__).parent / "results" / "growth.json"
WARM = 8  # samples of the extraction that has the self-check
STEPS = ("extract", "measure")


def main() -> None:
    """Run each step with each number of samples; print the rows and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="micro:linear")
    parser.add_argument("--samples", type=int, nargs=2, default=[500, 5000])
    parser.add_argument("--step", choices=STEPS, help="only do this, and print what it took")
    parser.add_argument("--folder", type=Path, help="of the step")
    options = parser.parse_args()
    if options.step == "measure":
        print(json.dumps(measured(options.folder)))
    elif options.step == "extract":
        print(json.dumps(extracted(options.model, options.samples[0], options.folder)))
    else:
        report = report_of(options.model, *options.samples)
        print(json.dumps(report, indent=2))
        RESULTS.write_text(json.dumps(report, indent=2) + "\n")


def extracted(model: str, samples: int, folder: Path) -> dict[str, float]:
    """Seconds of an extraction, and the peak of memory in MB."""
    vlm = kg.load(model)
    bench = kg.benchmark("easy-vqa", split="test")
    with tempfile.TemporaryDirectory() as place:
        kg.extract(vlm, bench.choose(WARM), Path(place) / "run", layers=("all",))
    chosen = bench.choose(samples)
    seconds = seconds_of(lambda: kg.extract(vlm, chosen, folder, layers=("all",)))
    return {"seconds": seconds, "peak_mb": peak_mb()}


def measured(folder: Path) -> dict[str, float]:
    """Seconds of measuring the middle layer of an extraction, and the peak of memory in MB."""
    store = kg.Store(folder)
    layers = [layer for _, layer in store.site_layers()]
    seconds = seconds_of(lambda: kg.measure(store, layers=[layers[len(layers) // 2]]))
    return {"seconds": seconds, "peak_mb": peak_mb()}


def report_of(model: str, few: int, many: int) -> dict[str, Any]:
    """What each step took, and the larger number of samples over the smaller one."""
    rows = []
    for number in (few, many, few):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "run"
            rows += [
                {"samples": number, "step": step, **_run(step, model, number, folder)}
                for step in STEPS
            ]
    return {
        "model": model,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": version("torch")},
        "rows": rows,
        "ratios": {step: _ratios([row for row in rows if row["step"] == step]) for step in STEPS},
    }


def _run(step: str, model: str, samples: int, folder: Path) -> dict[str, float]:
    """A step in a process of its own."""
    options = ["--model", model, "--samples", str(samples), str(samples), "--folder", str(folder)]
    command = [sys.executable, __file__, "--step", step, *options]
    found: dict[str, float] = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    )
    return found


def _ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Peak memory and time of a sample, each over the mean of the rows before and after."""
    before, many, after = rows
    each = [row["seconds"] / row["samples"] for row in rows]
    return {
        "memory": 2 * many["peak_mb"] / (before["peak_mb"] + after["peak_mb"]),
        "time of a sample": 2 * each[1] / (each[0] + each[2]),
    }


if __name__ == "__main__":
    main()
