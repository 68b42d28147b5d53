"""Intervals: closed forms, extremes, and how often they hold the truth in simulations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from keygap.bias.intervals import mean, paired_proportions, proportion, wilson


@pytest.mark.parametrize(("hits", "n"), [(0, 120), (1, 120), (60, 120), (120, 120), (3, 7)])
def test_a_proportion_has_the_interval_that_scipy_gives(hits, n):
    found = proportion([True] * hits + [False] * (n - hits))
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert (found.value, found.n) == (hits / n, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_nothing_at_all_has_no_proportion():
    assert np.isnan(proportion([]).value)


def test_one_observation_of_each_cluster_is_an_independent_one():
    hits = [True, False, True, True]
    assert proportion(hits, list("abcd")) == proportion(hits)


def test_copies_of_an_observation_add_nothing():
    hits = np.array([True, False, True, True, False, False, True, False])
    once = proportion(hits)
    many = proportion(np.repeat(hits, 10), np.repeat(np.arange(8), 10))
    # n / (n - 1) of the variance between clusters is all that differs
    assert many.high - many.low == pytest.approx(once.high - once.low, rel=0.08)
    assert many.high - many.low >= once.high - once.low


def test_where_all_agree_each_cluster_counts_once():
    found = proportion([False] * 960, np.repeat(np.arange(120), 8))
    assert found.high == pytest.approx(binomtest(0, 120).proportion_ci(method="wilson").high)


def test_clustered_intervals_hold_the_truth():
    rng = np.random.default_rng(3)
    held = []
    for _ in range(600):
        chance = rng.beta(0.6, 1.4, size=60)  # of each cluster; mean 0.3
        hits = rng.random((60, 8)) < chance[:, None]
        found = proportion(hits.ravel(), np.repeat(np.arange(60), 8))
        held.append(found.low <= 0.3 <= found.high)
    assert 0.92 <= np.mean(held) <= 0.98


@pytest.mark.parametrize(
    ("share", "correlation"), [(0.01, 0.6), (0.02, 1 / 3), (0.02, 0.6), (0.02, 0.0), (0.98, 0.6)]
)
def test_intervals_of_rare_outcomes_hold_the_truth(share, correlation):
    """A design effect that is estimated from a few clusters is often far too small."""
    rng = np.random.default_rng(17)
    size = 1 / correlation - 1 if correlation else np.inf
    ids, held = np.repeat(np.arange(120), 8), []
    for _ in range(500):
        chance = rng.beta(share * size, (1 - share) * size, (120, 1)) if correlation else share
        found = proportion((rng.random((120, 8)) < chance).ravel(), ids)
        held.append(found.low <= share <= found.high)
    assert np.mean(held) >= 0.94


def spread(*hits: int) -> np.ndarray:
    """120 samples of eight answers each, the first with so many hits."""
    answers = np.zeros((120, 8), dtype=bool)
    for row, count in zip(answers, hits, strict=False):
        row[:count] = True
    return answers.ravel()


def test_one_more_hit_does_not_make_an_interval_much_tighter():
    ids = np.repeat(np.arange(120), 8)
    for shape in [(1,) * number for number in range(15)], [(number,) for number in range(9)]:
        ends = [proportion(spread(*hits), ids).high for hits in shape]
        assert ends[0] == pytest.approx(0.0310, abs=5e-5)
        steps = np.array(ends[1:]) / np.array(ends[:-1])
        assert (steps > 0.8).all()
        misses = [proportion(~spread(*hits), ids).low for hits in shape]
        assert misses == pytest.approx([1 - end for end in ends])


@pytest.mark.parametrize("clusters", [3, 10, 60])
def test_the_design_effect_counts_as_far_as_clusters_have_the_rarer_outcome(clusters):
    hits = spread(*[1] * clusters)
    share = clusters / 960
    variance = share * (1 - share) / 960
    between = clusters * (1 - 8 * share) ** 2 + (120 - clusters) * (8 * share) ** 2
    estimated = 960 * variance / (between / 960**2 * 120 / 119)
    known = min(1.0, clusters / 10)
    size = 1 / (known / min(estimated, 960) + (1 - known) / 120)
    found = proportion(hits, np.repeat(np.arange(120), 8))
    assert (found.low, found.high) == pytest.approx(wilson(share, size), abs=1e-12)


def test_the_difference_of_paired_proportions_is_newcombes():
    # table III of Newcombe (1998), method 10: cells 36, 12, 2, 0 of 50
    one = np.array([True] * 36 + [True] * 12 + [False] * 2)
    other = np.array([True] * 36 + [False] * 12 + [True] * 2)
    found = paired_proportions(one, other)
    assert found.value == pytest.approx(0.2)
    assert 0.05 < found.low < 0.08
    assert 0.31 < found.high < 0.35


def test_paired_differences_hold_the_truth():
    rng = np.random.default_rng(5)
    held = []
    for _ in range(800):
        base = rng.random(80)
        one, other = base < 0.9, (base + 0.2 * rng.random(80)) < 0.9
        truth = 0.9 - (0.9 - 0.1)  # P(base + u < 0.9), u uniform on 0 to 0.2, is 0.8
        found = paired_proportions(one, other)
        held.append(found.low <= truth <= found.high)
    assert 0.93 <= np.mean(held) <= 0.99


def test_a_paired_difference_of_nothing_has_width():
    same = np.ones(120, dtype=bool)
    found = paired_proportions(same, same)
    assert found.value == 0
    assert found.low < -0.02
    assert found.high > 0.02


def test_a_paired_difference_of_one_observation_each_has_clusters_of_one():
    rng = np.random.default_rng(11)
    one, other = rng.random(90) < 0.6, rng.random(90) < 0.4
    found, plain = paired_proportions(one, other, np.arange(90)), paired_proportions(one, other)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1e-12)


def test_copies_of_a_paired_difference_add_nothing():
    rng = np.random.default_rng(12)
    one, other = rng.random(90) < 0.6, rng.random(90) < 0.4
    once = paired_proportions(one, other)
    ids = np.tile([f"s{number}" for number in range(90)], 4)
    many = paired_proportions(np.tile(one, 4), np.tile(other, 4), ids)
    assert many.value == pytest.approx(once.value)
    assert many.high - many.low == pytest.approx(once.high - once.low, rel=0.02)
    assert many.high - many.low >= once.high - once.low


@pytest.mark.parametrize("moves", [0.03, 0.2])
def test_clustered_paired_differences_hold_the_truth(moves):
    """Each sample has its own chance of a hit, and of a hit that is lost."""
    rng = np.random.default_rng(13)
    held = []
    for _ in range(600):
        chance = rng.beta(1.2, 0.8, size=(80, 1))  # mean 0.6
        before = rng.random((80, 3)) < chance
        lost, gained = rng.random((2, 80, 3))
        after = np.where(before, lost >= 2 * moves * (chance > 0.6), gained < moves)
        expected = moves * (1 - chance) - 2 * moves * chance * (chance > 0.6)
        found = paired_proportions(after.ravel(), before.ravel(), np.repeat(np.arange(80), 3))
        held.append((found.low, found.high, expected.mean()))
    low, high, truth = np.transpose(held)
    inside = np.mean((low <= truth.mean()) & (truth.mean() <= high))
    assert 0.92 <= inside <= 0.985


def test_means_are_over_samples():
    rng = np.random.default_rng(7)
    held = []
    for trial in range(300):
        own = rng.normal(size=40)
        values = np.repeat(own, 5) + 0.1 * rng.normal(size=200)
        found = mean(values, np.repeat(np.arange(40), 5), 300, trial)
        held.append(found.low <= 0 <= found.high)
    assert 0.9 <= np.mean(held) <= 0.98
    missing = mean(np.array([1.0, np.nan, 3.0, np.inf, -np.inf]), None, 50, 0)
    assert (missing.value, missing.n) == (2.0, 2)
