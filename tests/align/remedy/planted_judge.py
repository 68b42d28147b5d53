"""A judge of planted answers: under one intervention the model follows no hint."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from keygap.align.causes.judging import Judged
from keygap.capture.batches import opened


class PlantedJudge:
    """Takes the place of ``Judge``; sees by which intervention the model is steered.

    Attributes:
        cure: what an intervention that works has in its identity.
        measured: the identities of all calls, of all judges.
    """

    cure: dict[str, Any] = {}  # noqa: RUF012
    measured: list[Any] = []  # noqa: RUF012

    def __init__(self, vlm, judged, phrasings, **settings) -> None:
        self.vlm, self.phrasings = vlm, phrasings
        self.samples, _ = opened(judged)
        self.batches = [SimpleNamespace(samples=self.samples[:4])]
        self.left_out: dict[str, str] = {}

    def measure(self, steered: AbstractContextManager[None]) -> Judged:
        with steered:
            applied = self.vlm.interventions.identity
        self.measured.append(applied)
        cured = any(all(one.get(k) == v for k, v in self.cure.items()) for one in applied)
        ids = [sample.id for sample in self.samples for _ in self.phrasings]
        followed = np.full(len(ids), not cured)
        followed[0] = True
        frame = pd.DataFrame(
            {
                "sample_id": ids,
                "variant": self.phrasings * len(self.samples),
                "correct": True,
                "followed": followed,
                "correct_conflict": ~followed,
                "margin": 1.0,
                "hint_margin": np.where(followed, 1.0, -1.0),
                "hint_effect": np.where(followed, 2.0, 0.0),
                "image_attention": np.nan,
                "gap": np.nan,
            }
        )
        return Judged(frame, pd.DataFrame(), {})
