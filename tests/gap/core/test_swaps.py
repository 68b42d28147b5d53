"""Label swaps move whole samples and reach every arrangement equally often."""

import math
from collections import Counter

import numpy as np
import pytest

from keygap.gap.core.inputs import two_sides
from keygap.gap.core.swaps import dealt, random_signs, swap_labels

from ..made_sides import unequal_sides


def as_sets(sides):
    """The vectors of each sample of each side, as a set of sets."""
    return [
        {frozenset(map(tuple, vectors[sample == s])) for s in range(sample.max() + 1)}
        for vectors, sample in ((sides.x, sides.sample_x), (sides.y, sides.sample_y))
    ]


def test_signs_are_fair_and_independent():
    signs = random_signs(4000, 3, np.random.default_rng(0))
    counts = Counter(map(tuple, signs))
    assert len(counts) == 8
    assert max(abs(count - 500) for count in counts.values()) < 5 * math.sqrt(500)


def test_dealing_is_fair_and_keeps_the_numbers():
    counts = Counter(
        map(tuple, dealt(np.array([1.0, 1.0, 0.0, 0.0]), 3000, np.random.default_rng(0)))
    )
    assert len(counts) == 6
    assert max(abs(count - 500) for count in counts.values()) < 5 * math.sqrt(500)


@pytest.mark.parametrize("paired", [True, False])
def test_a_swap_moves_whole_samples(paired):
    sides = two_sides(*unequal_sides(0, samples=6, paired=paired))
    before_x, before_y = as_sets(sides)
    moved = 0
    for seed in range(20):
        swapped = swap_labels(sides, np.random.default_rng(seed))
        assert (swapped.n_samples_x, swapped.n_samples_y) == (6, 6)
        assert swapped.paired is paired
        x, y = as_sets(swapped)
        assert x | y == before_x | before_y
        assert (len(x), len(y)) == (6, 6)
        moved += len(x - before_x)
    assert 40 < moved < 80  # half of six samples, twenty times


def test_a_paired_swap_keeps_the_two_halves_of_a_sample_apart():
    sides = two_sides(*unequal_sides(0, samples=6))
    swapped = swap_labels(sides, np.random.default_rng(3))
    for s in range(6):
        halves = {frozenset(map(tuple, v[i == s])) for v, i in
                  ((sides.x, sides.sample_x), (sides.y, sides.sample_y))}  # fmt: skip
        again = {frozenset(map(tuple, v[i == s])) for v, i in
                 ((swapped.x, swapped.sample_x), (swapped.y, swapped.sample_y))}  # fmt: skip
        assert halves == again
