"""What measuring one layer costs: its time over that of bare passes of its samples, and its memory.

For each number of samples, the middle layer of a finished extraction is measured in a process of
its own: all contrasts, heads, confounds and intervals. Bare passes of 64 samples run before and
after it with as many threads. The peak of memory is that of the process; it needs Linux.

    python bench/measuring.py [--model micro:linear] [--samples 200 3000]
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from timing import seconds_of

import keygap as kg
from capture import inputs_of

RESULTS = Path(__file__).parent / "results" / "measuring.json"
BATCHES, BATCH = 8, 8


def main() -> None:
    """Time both, print their ratios and write them to ``bench/results/measuring.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="micro:linear")
    parser.add_argument("--samples", type=int, nargs="+", default=[200, 3000])
    parser.add_argument("--measure", type=Path, help="only measure this extraction, as JSON")
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measured(options.measure)))
        return
    report = report_of(kg.load(options.model), options.samples)
    print(json.dumps(report["rows"], indent=2))
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


def measured(folder: Path) -> dict[str, float]:
    """Seconds of measuring an extraction, and the peak of memory in MB."""
    store = kg.Store(folder)
    seconds = seconds_of(lambda: kg.measure(store))
    return {"seconds": seconds, "peak_mb": peak_mb()}


def peak_mb() -> float:
    """The most memory that this process had; ``ru_maxrss`` begins with that of its parent."""
    (peak,) = re.findall(
        r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE
    )
    return int(peak) / 1024


def report_of(vlm: kg.VLM, numbers: list[int]) -> dict[str, Any]:
    """Seconds, and their ratio to bare passes, for each number of samples."""
    inputs = inputs_of(vlm, BATCHES, BATCH)

    def bare() -> None:
        with torch.inference_mode():
            for batch in inputs:
                vlm.model(**batch, use_cache=False)

    bare()
    rows = []
    for number in numbers:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "run"
            chosen = kg.benchmark("easy-vqa", split="test").choose(number)
            kg.extract(vlm, chosen, folder, layers=("middle",))
            before = seconds_of(bare)
            command = [sys.executable, __file__, "--measure", str(folder)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            passes = (before + seconds_of(bare)) / 2 * number / (BATCHES * BATCH)
        rows.append(
            {"samples": number, **found, "bare": passes, "ratio": found["seconds"] / passes}
        )
    return {
        "model": vlm.name,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": version("torch")},
        "rows": rows,
    }


if __name__ == "__main__":
    main()
