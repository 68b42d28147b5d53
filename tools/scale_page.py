"""Writes the tables of docs/scale.md from what ``bench/`` measured.

Every number in that page's tables comes from here. The text between ``<!-- table NAME -->`` and
``<!-- end -->`` is replaced; what is around it is written by hand.

    python tools/scale_page.py [--page docs/scale.md] [--rate 400e12]
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from keygap.defaults import IMAGE_TOKENS
from keygap.reporting.papers import markdown

RESULTS = Path(__file__).parents[1] / "bench" / "results"
SAMPLES = (500, 1_000_000)
GPUS = (1, 64)
HALF = 2  # bytes of a number in bfloat16 or float16


@dataclass(frozen=True)
class Shape:
    """What decides how long a pass takes and how much is kept of it.

    Attributes:
        name: of the model.
        weights: of the text stack.
        layers: of the text stack.
        key_width: key heads times the width of a head.
        image_tokens: of a prompt with one image.
        text_tokens: of a prompt.
        together: GPUs of 80 GB that hold one copy in bfloat16.
    """

    name: str
    weights: float
    layers: int
    key_width: int
    image_tokens: int
    text_tokens: int
    together: int

    @property
    def operations(self) -> float:
        """Floating-point operations of a prefill: two for each weight and token."""
        return 2 * self.weights * (self.image_tokens + self.text_tokens)

    def stored(self, image_tokens: int, size: int = HALF) -> float:
        """Bytes of k_proj at all layers of one sample."""
        kept = min(image_tokens, self.image_tokens) + self.text_tokens
        return self.layers * kept * self.key_width * size


SHAPES = (
    Shape("LLaVA-1.5-7B", 6.6e9, 32, 32 * 128, 576, 60, 1),
    Shape("Qwen2.5-VL-7B", 7.1e9, 28, 4 * 128, 1000, 60, 1),
    Shape("Qwen2.5-VL-72B", 71e9, 80, 8 * 128, 1000, 60, 4),
)


def measured() -> str:
    """The rows of ``bench/extraction.py``."""
    report = _read("extraction")
    rows = [
        {"row": name, "time over the bare pass": f"{row['median']:.2f}",
         "range": f"{row['min']:.2f} to {row['max']:.2f}"}
        for name, row in report["ratios"].items()
    ]  # fmt: skip
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    return (
        f"{report['model']}, {report['samples']} samples of easy-VQA, {report['layers']} layers, "
        f"{report['dtype']}, {report['device']} with {report['threads']} threads, "
        f"{report['rounds']} rounds in one process ({versions}); a bare pass takes "
        f"{1000 * report['bare_seconds_per_sample']:.0f} ms a sample, and a sample "
        f"{report['bytes_per_sample'] / 1e6:.2f} MB on disk:\n\n{markdown(pd.DataFrame(rows))}"
    )


def measuring() -> str:
    """The rows of ``bench/measuring.py``."""
    report = _read("measuring")
    rows = [
        {"samples": row["samples"],
         "time over the bare passes of its samples": f"{row['ratio']:.2f}",
         "peak memory of the process, MB": f"{row['peak_mb']:.0f}"}
        for row in report["rows"]
    ]  # fmt: skip
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    return (
        f"{report['model']}, easy-VQA, k_proj at the middle layer, cpu with {report['threads']} "
        f"threads ({versions}):\n\n{markdown(pd.DataFrame(rows))}"
    )


def growth() -> str:
    """The ratios of ``bench/growth.py``."""
    report = _read("growth")
    few, many = (report["rows"][number]["samples"] for number in (0, 2))
    rows = [
        {"step": step, f"memory, {many:,} over {few:,} samples": f"{row['memory']:.2f}",
         f"time of a sample, {many:,} over {few:,}": f"{row['time of a sample']:.2f}"}
        for step, row in report["ratios"].items()
    ]  # fmt: skip
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    table = markdown(pd.DataFrame(rows))
    return (
        f"{report['model']}, easy-VQA, k_proj, extraction at all layers and measuring at the "
        f"middle one, cpu with {report['threads']} threads ({versions}):\n\n{table}"
    )


def accelerators() -> str:
    """The results of ``bench/accelerator.py``, or that there are none."""
    paths = sorted(RESULTS.glob("accelerator-*.json"))
    reports = [json.loads(path.read_text()) for path in paths]
    if not reports:
        return (
            "Not measured: no accelerator was at hand. `python bench/accelerator.py` measures it."
        )
    rows = [
        {
            "model": report["model"],
            "device": report["device"],
            "samples": report["samples"],
            "tokens a second": f"{report['tokens_per_second']:,.0f}",
            "over bare prefill": f"{report['extraction_over_bare']:.2f}",
            "the same, once running": f"{report['steady_over_bare']:.2f}",
            "hook loop over keygap": f"{report['loop_over_extraction']:.1f}",
            "share of the matrix rate": f"{report['share_of_matrix_rate']:.0%}",
            "peak memory, GB": f"{report['peak_bytes'] / 1e9:.1f}",
            "MB a sample on disk": f"{report['bytes_per_sample'] / 1e6:.1f}",
        }
        for report in reports
    ]
    return markdown(pd.DataFrame(rows))


def disk() -> str:
    """Bytes of a store, from the shapes."""
    rows = []
    for shape in SHAPES:
        kept, every = shape.stored(IMAGE_TOKENS), shape.stored(shape.image_tokens, 4)
        rows.append(
            {
                "model": shape.name,
                "MB a sample": f"{kept / 1e6:.1f}",
                "of all tokens in float32": f"{kept / every:.1%}",
                **{f"{count:,} samples": _bytes(count * kept) for count in SAMPLES},
            }
        )
    return markdown(pd.DataFrame(rows))


def hours(rate: float) -> str:
    """Time of extraction, from the shapes and an assumed rate."""
    rows = []
    for shape in SHAPES:
        for gpus in GPUS:
            used = max(gpus, shape.together)
            seconds = shape.operations / (rate * used)
            rows.append(
                {
                    "model": shape.name,
                    "GPUs": used,
                    "prefill of a sample": f"{1000 * seconds * used / shape.together:.0f} ms",
                    **{f"{count:,} samples": _duration(count * seconds) for count in SAMPLES},
                }
            )
    return (
        f"With {rate / 1e12:.0f} TFLOP/s sustained on each GPU, which is an assumption and not a "
        f"measurement:\n\n{markdown(pd.DataFrame(rows))}"
    )


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, default=Path("docs/scale.md"))
    parser.add_argument("--rate", type=float, default=400e12)
    options = parser.parse_args()
    tables = {
        "measured": measured(),
        "measuring": measuring(),
        "growth": growth(),
        "accelerators": accelerators(),
        "disk": disk(),
        "hours": hours(options.rate),
    }
    text = options.page.read_text()
    for name, made in tables.items():
        pattern = rf"(<!-- table {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, rf"\g<1>{made}\n\g<2>", text, flags=re.DOTALL)
    options.page.write_text(text)


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def _bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 4 * 86400 else f"{seconds / 86400:.0f} days"


if __name__ == "__main__":
    main()
