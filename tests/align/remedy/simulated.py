"""Answers with planted effects: what a model would say under candidates of known worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from keygap.align.causes.points import Point
from keygap.align.remedy.comparing import Answers

PHRASINGS = ("said", "heard")


@dataclass(frozen=True)
class Planted:
    """What a candidate truly does.

    Attributes:
        follows_less: share of the answers to the hint that no longer follow it.
        loses: share of the samples whose right answer without the hint becomes wrong.
        churns: share of answers that change at random, in both directions alike.
    """

    follows_less: float = 0.0
    loses: float = 0.0
    churns: float = 0.1


@dataclass
class Simulated:
    """A model of which 80 % of the answers are right and 60 % follow the hint.

    Attributes:
        seed: of everything.
        planted: by the id of a point; the others are noise.
        n: samples of a stage.
        asked: what was measured, in order.
    """

    seed: int
    planted: Mapping[str, Planted] = field(default_factory=dict)
    n: int = 150
    asked: list[tuple[str, str]] = field(default_factory=list)

    def measure(self, stage: str, point: Point) -> Answers:
        self.asked.append((stage, point.id))
        base = np.random.default_rng([self.seed, len(stage)])
        correct = base.random(self.n) < 0.8
        prone = base.random(self.n)  # of a sample, so its phrasings go together
        followed = {each: prone + 0.3 * base.normal(size=self.n) < 0.6 for each in PHRASINGS}
        margin = base.normal(1, 1, self.n)
        if point.kind != "none":
            own = np.random.default_rng([self.seed, len(stage), *point.id.encode()])
            what = self.planted.get(point.id, Planted())
            correct = self._changed(correct, what.churns, what.loses, own)
            for name, hits in followed.items():
                followed[name] = self._changed(hits, what.churns, what.follows_less, own)
            margin = margin + own.normal(0, 0.3, self.n)
        frames = [
            pd.DataFrame(
                {
                    "sample_id": [f"{stage} {number}" for number in range(self.n)],
                    "variant": name,
                    "correct": correct,
                    "followed": hits,
                    "correct_conflict": ~hits & correct,
                    "margin": margin,
                    "hint_margin": np.where(hits, 1.0, -1.0),
                    "hint_effect": np.where(hits, 2.0, 0.0),
                }
            )
            for name, hits in followed.items()
        ]
        layers = {"none": 0, "early": 2}.get(point.layers or "none", 6)
        return Answers(pd.concat(frames, ignore_index=True), layers, 32 * layers)

    @staticmethod
    def _changed(hits: np.ndarray, churns: float, loses: float, rng: np.random.Generator):
        """Swap some hits with as many misses, and turn further hits into misses."""
        share = max(hits.mean(), 1e-9)
        chance = np.where(hits, churns / 2 / share, churns / 2 / max(1 - share, 1e-9))
        swapped = hits ^ (rng.random(len(hits)) < chance)
        return swapped & ~(rng.random(len(hits)) < loses / share * hits)
