"""What tests share: the embedded model with its real weights, and one small extraction of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import keygap as kg
from keygap.benchmarks import InMemory, Sample, image_then_question

SAMPLES = 24
LAYERS = [0, 15, 29]


@pytest.fixture(scope="session")
def vlm() -> kg.VLM:
    return kg.load("micro:linear")


@pytest.fixture(scope="session")
def easy_vqa():
    return kg.benchmark("easy-vqa", split="test")


@pytest.fixture(scope="session")
def store(vlm, easy_vqa, tmp_path_factory) -> kg.Store:
    out = tmp_path_factory.mktemp("runs") / "store"
    return kg.extract(
        vlm, easy_vqa, out, layers=["first", "middle", "last"], samples=SAMPLES, batch_size=8
    )


@pytest.fixture(scope="session")
def table(store) -> kg.GapTable:
    return kg.measure(store, n_permutations=200, n_bootstraps=200)


def made_sample(name: str, question: str = "what is it?", colour: str = "red") -> Sample:
    """A sample with one plain picture."""
    return Sample(
        id=name,
        images=(Image.new("RGB", (64, 64), colour),),
        question=question,
        prompt=image_then_question(question),
        answer="red",
    )


@pytest.fixture
def good_samples() -> list[Sample]:
    colours = ("red", "blue", "green", "black", "yellow", "gray", "teal", "brown")
    return [made_sample(f"s{n}", f"is it {c}?", c) for n, c in enumerate(colours)]


def bench_of(samples: list[Sample]) -> InMemory:
    return InMemory("made", samples)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder and what is in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
