"""The median distance against all pairs, written as loops, and its variation between seeds."""

from __future__ import annotations

import numpy as np
import pytest

from keygap.gap.core.inputs import two_sides
from keygap.gap.core.median import median_distance


def of_all_pairs(x, y, groups_x, groups_y, paired: bool = False) -> float:
    """The distance at which half of the weight of all pairs of two samples is reached."""
    found: list[tuple[float, float]] = []
    for a, b, of_a, of_b, share in (
        (x, x, groups_x, groups_x, 0.25),
        (y, y, groups_y, groups_y, 0.25),
        (x, y, groups_x, groups_y, 0.5),
    ):
        pairs = []
        for i in range(len(a)):
            for j in range(i + 1 if a is b else 0, len(b)):
                if of_a[i] == of_b[j] and (a is b or paired):
                    continue
                weight = 1 / (of_a.count(of_a[i]) * of_b.count(of_b[j]))
                pairs.append((float(np.linalg.norm(a[i] - b[j])), weight))
        total = sum(weight for _, weight in pairs)
        found += [(distance, share * weight / total) for distance, weight in pairs]
    reached = 0.0
    for distance, weight in sorted(found):
        reached += weight
        if reached >= 0.5 - 1e-9:
            return distance
    raise AssertionError("half of the weight is not reached")


def drawn(sizes_x: list[int], sizes_y: list[int], dims: int = 6, seed: int = 3):
    """Two sides whose long samples lie apart, so that weights matter."""
    rng = np.random.default_rng(seed)
    sides = []
    for sizes, shift in ((sizes_x, 0.0), (sizes_y, 1.0)):
        groups = [n for n, size in enumerate(sizes) for _ in range(size)]
        centres = rng.normal(size=(len(sizes), dims)) + np.asarray(sizes)[:, None] / 5
        sides.append((centres[groups] + shift + rng.normal(size=(len(groups), dims)), groups))
    (x, groups_x), (y, groups_y) = sides
    return x, y, groups_x, groups_y


@pytest.mark.parametrize(
    "sizes", [([1, 5, 2, 9], [3, 3, 8, 2]), ([1] * 6, [1] * 6), ([40, 1, 2, 3], [30] * 5)]
)
def test_of_few_vectors_it_is_that_of_all_pairs(sizes) -> None:
    x, y, groups_x, groups_y = drawn(*sizes)
    sides = two_sides(x, y, groups_x, groups_y, paired=False)
    for seed in range(3):
        found = median_distance(sides, seed)
        assert found == pytest.approx(of_all_pairs(x, y, groups_x, groups_y), rel=1e-9)


def test_pairs_of_one_sample_do_not_count_on_two_sides_either() -> None:
    x, y, groups_x, groups_y = drawn([3, 4, 2, 5], [2, 6, 3, 1])
    found = median_distance(two_sides(x, y, groups_x, groups_y, paired=True), 0)
    assert found == pytest.approx(of_all_pairs(x, y, groups_x, groups_y, paired=True), rel=1e-9)


@pytest.mark.parametrize(
    "sizes", [([8] * 60, [1] * 550), ([1] * 30, [1, 200] * 6), ([400, 1, 2, 3, 300], [60] * 7)]
)
def test_samples_and_sides_weigh_the_same_whatever_their_sizes(sizes) -> None:
    x, y, groups_x, groups_y = drawn(*sizes)
    sides = two_sides(x, y, groups_x, groups_y, paired=False)
    found = [median_distance(sides, seed) for seed in range(12)]
    assert np.mean(found) == pytest.approx(of_all_pairs(x, y, groups_x, groups_y), rel=0.005)
    assert np.std(found) < 0.02 * np.mean(found)


def test_it_differs_little_between_seeds_and_between_parts_of_the_vectors() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3_000, 16)) * rng.gamma(2.0, size=(3_000, 1))
    y = rng.normal(size=(30_000, 16)) * rng.gamma(2.0, size=(30_000, 1)) + 0.5
    whole = [median_distance(two_sides(x, y), seed) for seed in range(4)]
    assert np.std(whole) < 0.003 * np.mean(whole)
    part = median_distance(two_sides(x, y[:15_000]), 0)
    assert part == pytest.approx(np.mean(whole), rel=0.005)


def test_equal_vectors_are_no_distance_apart() -> None:
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(1, 64)) * 1e3, 30, 0)
    y = rng.normal(size=(30, 64)) * 1e3
    x[:8] = y[:8]
    found = median_distance(two_sides(x, y), 0)
    assert 0 < found < np.linalg.norm(y[0] - y[1]) * 2
