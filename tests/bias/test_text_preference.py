"""The text preference ratio against counts made by hand."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

import keygap as kg
from keygap.errors import UserError


def test_counts_and_ratios_by_hand():
    image_only = ["red", "red", "red", "red", "blue", "blue"]
    text_only = ["blue", "blue", "blue", "red", "red", "red"]
    together = [" Blue.", "BLUE", "red", "Red.", "green", "red"]
    found = kg.bias.tpr(image_only, together, text_only)
    assert (found.text, found.image, found.both, found.neither) == (3, 1, 1, 1)
    assert found.tpr.value == 3 / 4
    assert found.coarse.value == 4 / 5
    expected = binomtest(3, 4).proportion_ci(method="wilson")
    assert (found.tpr.low, found.tpr.high) == pytest.approx((expected.low, expected.high))
    assert "3 follow the text" in repr(found)


def test_without_a_decided_case_there_is_no_ratio():
    found = kg.bias.tpr(["a"], ["c"], ["b"])
    assert found.neither == 1
    assert found.tpr.value != found.tpr.value


def test_never_following_has_an_interval_of_the_right_width():
    found = kg.bias.tpr(["a"] * 120, ["a"] * 120, ["b"] * 120)
    assert found.tpr.value == 0
    assert found.tpr.high == pytest.approx(binomtest(0, 120).proportion_ci(method="wilson").high)


def test_intervals_are_over_samples():
    many = kg.bias.tpr(
        ["a"] * 80, ["a", "b"] * 40, ["b"] * 80, sample_ids=[n // 8 for n in range(80)]
    )
    one = kg.bias.tpr(["a"] * 80, ["a", "b"] * 40, ["b"] * 80)
    assert many.tpr.value == one.tpr.value == 0.5
    same = kg.bias.tpr(
        ["a"] * 80, ["a"] * 40 + ["b"] * 40, ["b"] * 80, sample_ids=[n // 8 for n in range(80)]
    )
    assert same.tpr.high - same.tpr.low > 2 * (one.tpr.high - one.tpr.low)


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        (([], [], []), "image_only has no answers"),
        ((["a"], ["a", "b"], ["a"]), "image_and_text has 2"),
        ((["a"], [None], ["a"]), "answer 0 of image_and_text is missing"),
        ((["a"], [float("nan")], ["a"]), "answer 0 of image_and_text is missing"),
        ((["a"], [3], ["a"]), "is 3, which is no text"),
        (("a", ["a"], ["a"]), "image_only is one text"),
    ],
)
def test_wrong_lists_are_refused_in_one_line(lists, said):
    with pytest.raises(UserError, match=said):
        kg.bias.tpr(*lists)
    with pytest.raises(UserError, match="sample_ids"):
        kg.bias.tpr(["a"], ["a"], ["a"], sample_ids=[1, 2])
