"""Seeds and purposes give unrelated streams, and the same ones on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from contrasts.test_ladder import labels_of
from keygap import random_streams
from keygap.contrasts import CONTRASTS
from keygap.contrasts.sides import Selector
from keygap.store import LabelledVectors


def test_a_stream_is_the_same_everywhere() -> None:
    # Values written down once: NumPy keeps SeedSequence and PCG64 the same across versions.
    assert random_streams.integer(0, "t-SNE") == 2235743795
    drawn = random_streams.generator(7, "mmd", "label swaps").integers(0, 2**32, 3)
    assert drawn.tolist() == [3546760384, 3161590149, 1591838680]


@pytest.mark.parametrize("other", [(1, "mmd"), (0, "jsd"), (0, "mmd", "x"), (0, "mm", "d")])
def test_another_seed_or_purpose_shares_no_draw(other: tuple[Any, ...]) -> None:
    one = random_streams.generator(0, "mmd").integers(0, 2**63 - 1, 1000)
    two = random_streams.generator(*other).integers(0, 2**63 - 1, 1000)
    assert not set(one) & set(two)
    assert abs(np.corrcoef(one.astype(float), two.astype(float))[0, 1]) < 0.12


def test_two_seeds_share_no_split_of_the_vocabulary() -> None:
    labels = labels_of(samples=30)
    vectors = LabelledVectors(np.zeros((len(labels), 1, 2), np.float32), labels)
    contrast = CONTRASTS["text_vocabulary"]

    def splits(seed: int) -> set[frozenset[int]]:
        select = Selector(vectors, ["question"], None, seed)
        cases = [select.case(contrast, draw) for draw in range(contrast.draws)]
        return {frozenset(case.a.labels["token_id"]) for case in cases}

    assert len(splits(0)) == contrast.draws
    assert len(splits(0) & splits(1)) <= 1  # a small vocabulary has few splits
