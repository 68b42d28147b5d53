"""A tiny model, a benchmark that it can answer, and a search of few candidates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from align.made_models import pictures
from keygap.benchmarks import InMemory
from keygap.benchmarks.sample import Entry

COLOURS = ("red", "blue", "green")
FEW: dict[str, Any] = {
    "maps": ("mean-shift",), "layers": ("all", "early"), "strengths": (-0.5, 0.5), "biases": (1.0,),
    "samples": 8, "fit_samples": 6, "batch_size": 4, "n_bootstraps": 50,
}  # fmt: skip


@dataclass(frozen=True)
class Closed(InMemory):
    """Questions with a closed set of answers, two on each image."""

    @property
    def answers(self) -> tuple[str, ...]:
        return COLOURS

    def index(self) -> list[Entry]:
        return [
            Entry(item.id, item.subject, image_key=f"image {number // 2}")
            for number, item in enumerate(self.samples)
        ]


def colours(name: str = "colours", count: int = 24) -> Closed:
    rng = np.random.default_rng(1)
    answers = rng.choice(COLOURS, count)
    made = pictures(count)
    samples = [
        replace(each, answer=str(answer), images=made[number // 2 * 2].images)
        for number, (each, answer) in enumerate(zip(made, answers, strict=True))
    ]
    return Closed(name, samples)
