"""Which contrast a ratio refers to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keygap.gap import mmd
from keygap.measurement.ratio import Comparison, ratio_to_highest


def comparison(shift: float, name: str, *, ids: str = "s", **key: Any) -> Comparison:
    """A comparison of 20 samples whose sides are ``shift`` apart in every dimension."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 200, 4))
    samples = [f"{ids}{number % 20}" for number in range(200)]
    result = mmd(x + shift, y, samples, samples, n_permutations=0, n_bootstraps=0)
    where = {"contrast": name, "rung": "kind", "confound": "", "head": "all"}
    return Comparison(where | key, result)


@pytest.fixture
def gap() -> Comparison:
    return comparison(1.0, "image_text", rung="between")


def test_it_is_the_largest_of_kind(gap):
    small, large = comparison(0.3, "small"), comparison(0.6, "large")
    found = ratio_to_highest(gap, [gap, small, large])
    assert found.value == pytest.approx(gap.mmd.mmd2 / large.mmd.mmd2)
    assert found.settings["highest"] == "large"
    assert found.ci[0] < found.value < found.ci[1]


@pytest.mark.parametrize(
    "other",
    [
        {"rung": "single"},
        {"rung": "same"},
        {"rung": "own"},
        {"rung": "between"},
        {"head": "1"},
        {"confound": "equal_counts"},
        {"ids": "t"},  # no sample in common
    ],
)
def test_other_rungs_heads_confounds_and_samples_do_not_count(gap, other):
    assert ratio_to_highest(gap, [gap, comparison(0.6, "other", **other)]) is None


def test_there_is_no_ratio_without_a_gap(gap):
    flat = comparison(0.0, "image_text", rung="between")
    other = comparison(0.6, "other")
    assert flat.mmd.mmd2 <= 0
    assert ratio_to_highest(flat, [flat, other]) is None
    assert ratio_to_highest(gap, [comparison(0.0, "flat")]) is None
