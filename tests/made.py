"""Small things that tests make: samples, a benchmark of them, a folder's contents."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from keygap.benchmarks import InMemory, Sample, image_then_question

SAMPLES = 24
LAYERS = [0, 15, 29]


def made_sample(name: str, question: str = "what is it?", colour: str = "red") -> Sample:
    """A sample with one plain picture."""
    return Sample(
        id=name,
        images=(Image.new("RGB", (64, 64), colour),),
        question=question,
        prompt=image_then_question(question),
        answer="red",
    )


def bench_of(samples: list[Sample]) -> InMemory:
    return InMemory("made", samples)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder and what is in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
