"""Three samples of different length, and the padded batch of them."""

from __future__ import annotations

import pytest

from keygap import VLM
from keygap.benchmarks import Sample
from keygap.models.batch import Batch
from made import made_sample


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [made_sample(f"s{n}", "is it red? " * (1 + n)) for n in range(3)]


@pytest.fixture(scope="module")
def batch(vlm: VLM, samples: list[Sample]) -> Batch:
    return vlm.prompter(samples)
