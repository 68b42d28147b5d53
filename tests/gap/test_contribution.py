"""Parts of the difference of means add up to the whole."""

import numpy as np
import pytest

from keygap import gap
from keygap.errors import UserError

from .made_sides import sides

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5))
Y = RNG.normal(size=(12, 5))
GX, GY = np.repeat(np.arange(6), 4), np.repeat(np.arange(6), 2)


@pytest.mark.parametrize("paired", [True, False])
def test_contributions_add_up(paired):
    x, y, groups_x, groups_y = sides(7, shift=1.0)
    y[:, 4] += 0.5
    groups_y = groups_y if paired else groups_y + 50
    parts = gap.contribution(x, y, groups_x, groups_y, n_heads=3)
    whole = gap.mmd(x, y, groups_x, groups_y, kernel="linear", n_permutations=9, n_bootstraps=9)
    assert parts.total == pytest.approx(whole.mmd2)
    assert parts.by_head.sum() == pytest.approx(parts.total)
    assert parts.by_head.argmax() == 0
    assert parts.by_dimension[0] == pytest.approx(1.0, abs=0.4)
    assert parts.effect_size[0] == pytest.approx(-1.0, abs=0.25)
    assert parts == gap.contribution(x, y, groups_x, groups_y, n_heads=3)


def test_dimensions_for_half_and_readings():
    x, y, groups_x, groups_y = sides(11, d=6, shift=3.0)
    parts = gap.contribution(x, y, groups_x, groups_y, n_heads=3)
    assert parts.dimensions_for_half == 1
    named = {(reading.name, reading.head): reading.value for reading in parts.readings}
    assert named["mean_difference", None] == parts.total
    assert sum(named["head_share", head] for head in range(3)) == pytest.approx(1.0)
    for seed in range(20):
        none = gap.contribution(*sides(seed, samples=6, d=2))
        if none.total <= 0:
            assert none.dimensions_for_half is None
            assert none.readings[-1].value is None
            return
    raise AssertionError("no seed gave means that are no farther apart than chance")


def test_columns_that_do_not_divide_into_heads():
    with pytest.raises(UserError, match="do not divide"):
        gap.contribution(X, Y, GX, GY, n_heads=2)


def test_constant_columns():
    """One that has the same value on both sides counts for nothing; two values are an error."""
    still = np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    assert gap.contribution(X * still, Y * still, GX, GY).effect_size[3] == 0.0
    apart = X.copy(), Y.copy()
    apart[0][:, 4], apart[1][:, 4] = 1.0, 2.0
    with pytest.raises(UserError, match="column 4 is constant on each side"):
        gap.contribution(*apart, GX, GY)
