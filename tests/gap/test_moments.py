"""Shares of the gap against planted differences of each kind."""

import numpy as np
import pytest

from keygap import gap
from keygap.errors import UserError

from .made_sides import sides


@pytest.mark.parametrize("paired", [True, False])
def test_moments_find_what_was_planted(paired):
    def shares(**options):
        x, y, groups_x, groups_y = sides(6, samples=100, rho=0.0, **options, counts=(10, 10), d=4)
        result = gap.moments(x, y, groups_x, groups_y if paired else groups_y + 100)
        assert result.mean + result.covariance + result.higher == pytest.approx(1.0)
        return result

    assert shares(shift=1.0).mean > 0.95
    assert shares(scale=2.0).covariance > 0.95
    both = shares(shift=1.0, scale=1.6)
    assert both.mean > 0.15
    assert both.covariance > 0.15

    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 2))
    y = rng.choice([-1.0, 1.0], (2000, 2)) + 0.01 * x  # mean 0, covariance I: all higher order
    groups = np.repeat(np.arange(100), 20)
    result = gap.moments(x, y, groups, groups if paired else groups + 100)
    assert result.higher > 0.9


def test_moments_stay_where_both_sides_vary():
    """Keys of a first layer are one vector for each word: a covariance of those has few axes."""
    x, y, groups_x, groups_y = sides(9, samples=60, d=8, shift=1.0, counts=(10, 10))
    words = y[:4][np.random.default_rng(0).integers(0, 4, len(y))]  # four points span three axes
    result = gap.moments(x, words, groups_x, groups_y)
    assert result.dims <= 3
    assert result.mean + result.covariance + result.higher == pytest.approx(1.0)
    assert gap.moments(x, y, groups_x, groups_y).dims == 8


def test_moments_without_a_gap_have_no_shares():
    results = [gap.moments(*sides(seed, samples=10)) for seed in range(8)]
    negative = [result for result in results if result.mmd2_total <= 0]
    assert negative
    assert all(result.mean is None for result in negative)


def test_a_side_that_does_not_vary_is_one_clear_line():
    x, y, groups_x, groups_y = sides(0, samples=6, d=5)
    with pytest.raises(UserError, match="y does not vary in all of the 5"):
        gap.moments(x, y * [1, 1, 1, 1, 0], groups_x, groups_y, dims=5)
    with pytest.raises(UserError, match="at least 1"):
        gap.moments(x, y, groups_x, groups_y, dims=0)
