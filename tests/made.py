"""Small things that tests make: samples, a benchmark of them, a folder's contents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import pandas as pd
from PIL import Image

from keygap.benchmarks import InMemory, Sample, image_then_question
from keygap.engines.ahead import BatchLimit
from keygap.engines.part import ReadPart, read_parts
from keygap.engines.plan import Plan
from keygap.store import LabelledVectors, Store

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


def read_part(plan: Plan, number: int, limit: BatchLimit | None = None) -> ReadPart:
    """One part of a plan, alone."""
    (part,) = read_parts(plan, [number], limit)
    return part


def bench_of(samples: list[Sample]) -> InMemory:
    return InMemory("made", samples)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder and what is in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def without_commits(copy: Path) -> dict[str, bytes]:
    """Every file of a run's copy that the run folder has, too."""
    return {name: data for name, data in files_of(copy).items() if "commits/" not in name}


def as_of_keygap_0_1(folder: Path) -> None:
    """Make a run like one of keygap 0.1, which recorded no checksums."""
    (folder / "checksums.sha256").unlink()
    path = folder / "manifest.json"
    if path.is_file():
        manifest = json.loads(path.read_text())
        del manifest["checksums"]
        path.write_text(json.dumps(manifest, indent=2))


class _MadeStore:
    """What ``measure`` and ``project`` ask of a store, around vectors that a test made."""

    manifest: ClassVar = {"model": "made", "connector": "none", "benchmark": "made"}

    def __init__(self, vectors: LabelledVectors, layers: Sequence[int] = (0,)) -> None:
        self.made, self.layers = vectors, layers

    @property
    def tokens(self) -> pd.DataFrame:
        return self.made.labels

    def site_layers(self, sites: object, layers: object) -> list[tuple[str, int]]:
        return [("k_proj", layer) for layer in self.layers]

    def vectors(self, site: str, layer: int) -> LabelledVectors:
        return self.made

    layer = vectors


def made_store(vectors: LabelledVectors, layers: Sequence[int] = (0,)) -> Store:
    """A store that has the same vectors of ``k_proj`` at each layer, and no files."""
    return cast(Store, _MadeStore(vectors, layers))


def made_vectors(
    samples: int = 24,
    pictures: Sequence[int] = (9,),
    words: int = 6,
    gap: float = 0.0,
    by_position: float = 0.0,
    seed: int = 0,
) -> LabelledVectors:
    """Image tokens, then a question, then one template token: 2 heads of 8, noise of deviation 1.

    Sample n has ``pictures[n]`` image tokens (in turn); ``gap`` is what image tokens have more, and
    ``by_position`` what a position adds. Odd samples are English and of the subject colour.
    """
    rng = np.random.default_rng(seed)
    spelled = ["Ġcircle", "Ġimage", "Ġa", "Ġthe", "Ġin"]
    rows = []
    for sample in range(samples):
        number = pictures[sample % len(pictures)]
        for position in range(number + words + 1):
            image, last = position < number, position == number + words
            word = 999 if last else int(rng.integers(5))
            rows.append(
                {
                    "sample_id": f"s{sample:03d}",
                    "position": position,
                    "modality": "image" if image else "text",
                    "role": "" if image else "template" if last else "question",
                    "token": "<image>" if image else "ass" if last else spelled[word],
                    "token_id": 50 if image else word,
                    "image": 0 if image else -1,
                    "frame": -1,
                    "patch_row": position // 3 if image else -1,
                    "patch_column": position % 3 if image else -1,
                    "attention": 1.0,
                    "subject": "colour" if sample % 2 else "shape",
                    "language": "en" if sample % 2 else "zh",
                }
            )
    labels = pd.DataFrame(rows)
    array = rng.normal(size=(len(labels), 2, 8))
    array += (by_position * labels["position"].to_numpy())[:, None, None]
    array[(labels["modality"] == "image").to_numpy()] += gap
    return LabelledVectors(array.astype(np.float32), labels)
