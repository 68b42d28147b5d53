"""Memory does not grow with the benchmark: 20,000 samples need at most 1.2 times that of 200."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from . import fixtures

# The peak of this process alone: the kernel's high-water mark, which exec resets (ru_maxrss would
# include the parent's).
READ_ALL = """
import re, sys
from keygap.benchmarks import as_rgb, benchmark
from keygap.benchmarks.choosing import choose
name, split, path, samples = sys.argv[1:]
bench = benchmark(name, split or None, path or None)
chosen = choose(bench.index(), int(samples) or None, seed=0)
for number in chosen:
    for image in bench.sample(number).images:
        as_rgb(image)
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(len(chosen), peak)
"""
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells")


def peak(name: str, split: str, path: Path | str, samples: int = 0) -> tuple[int, int]:
    """How many samples a process read, and its peak memory in KiB."""
    command = [sys.executable, "-c", READ_ALL, name, split, str(path), str(samples)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    read, kib = map(int, done.stdout.split())
    return read, kib


def noise(size: int) -> Iterator[bytes]:
    """Different incompressible images of 3 KB."""
    random = Random(0)
    for _ in range(size):
        image = Image.frombytes("RGB", (32, 32), random.randbytes(32 * 32 * 3))
        buffer = io.BytesIO()
        image.save(buffer, "BMP")
        yield buffer.getvalue()


def parquet(path: Path, size: int, group: int = 100) -> Path:
    rows = (
        fixtures.vision_row(f"test_Art_{n}", image=fixtures.cell(data))
        for n, data in enumerate(noise(size))
    )
    return fixtures.write_parquet(path / f"{size}.parquet", rows, fixtures.VISION, group)


def tsv(path: Path, size: int) -> Path:
    rows = (
        fixtures.bench_row(n, image=base64.b64encode(data).decode())
        for n, data in enumerate(noise(size))
    )
    return fixtures.write_bench_tsv(path / f"{size}.tsv", rows)


def jsonl(path: Path, size: int) -> Path:
    (path / "a.png").write_bytes(fixtures.picture())
    rows = ({"image": "a.png", "question": f"What is {n}?"} for n in range(size))
    return fixtures.write_jsonl(path / f"{size}.jsonl", rows)


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write"), [("mmmu-pro-vision", parquet), ("mmbench", tsv), ("jsonl", jsonl)]
)
def test_twenty_thousand_samples_peak_as_two_hundred(
    name: str, write: Callable[[Path, int], Path], tmp_path: Path
) -> None:
    peaks = {}
    for size in (200, 20_000):
        path = write(tmp_path, size)
        named = (f"jsonl:{path}", "", "") if name == "jsonl" else (name, "test", path)
        read, peaks[size] = peak(*named)
        assert read == size
    print(name, {size: f"{kib / 1024:.0f} MiB" for size, kib in peaks.items()})
    assert peaks[20_000] <= 1.2 * peaks[200]


@needs_proc
@pytest.mark.slow
def test_one_large_row_group_is_not_read_whole(tmp_path: Path) -> None:
    # 15 and 60 MB of images: smaller ones would fit into the reader's buffers
    small, large = (parquet(tmp_path, size, size) for size in (5_000, 20_000))
    base = peak("mmmu-pro-vision", "test", small, 3)[1]
    assert peak("mmmu-pro-vision", "test", large, 3)[1] <= 1.2 * base
