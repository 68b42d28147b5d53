"""Width and effective dimension of known shapes, and a jackknife done for real."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from keygap import gap, random_streams
from keygap.errors import UserError

from .made_sides import sides


def test_ball_and_cloud():
    rng = np.random.default_rng(8)
    groups = np.repeat(np.arange(100), 20)
    ball = rng.normal(size=(2000, 10))
    line = np.outer(3 * rng.normal(size=2000), np.eye(10)[0]) + 0.01 * rng.normal(size=(2000, 10))
    result = gap.spread(ball, line + 5.0, groups, groups)
    assert result.spread_x == pytest.approx(np.sqrt(10), rel=0.03)
    assert result.spread_y == pytest.approx(3.0, rel=0.05)
    assert result.effective_dimension_x == pytest.approx(10.0, rel=0.03)
    assert result.effective_dimension_y == pytest.approx(1.0, abs=0.01)
    assert result.spread_ratio_ci[0] < np.sqrt(10) / 3 < result.spread_ratio_ci[1]
    assert result.separation == pytest.approx(5 * np.sqrt(10) / np.sqrt(9.5), rel=0.05)
    low, high = result.separation_ci
    assert low < result.separation < high


@pytest.mark.parametrize("paired", [True, False])
def test_spread_leaves_samples_out_for_real(paired):
    x, y, groups_x, groups_y = sides(10, samples=12, d=5, shift=1.0, scale=1.5, counts=(6, 6))
    groups_y = groups_y if paired else groups_y + 12

    def ratios(keep_x, keep_y):
        found = gap.spread(x[keep_x], y[keep_y], groups_x[keep_x], groups_y[keep_y])
        return found.spread_ratio, found.dimension_ratio, found.separation

    order = random_streams.generator(
        0, "spread", "samples left out"
    )  # unpaired sides lose a random sample each, by the seed
    lost_x = order.permutation(np.arange(12) % 12)
    lost_y = lost_x if paired else order.permutation(np.arange(12) % 12)
    logs = np.log(
        [ratios(lost_x[groups_x] != part, lost_y[groups_y % 12] != part) for part in range(12)]
    )
    half = stats.t.ppf(0.975, 11) * np.sqrt(11 * logs.var(axis=0))
    found = gap.spread(x, y, groups_x, groups_y, seed=0)
    for value, ci, width in zip(
        (found.spread_ratio, found.dimension_ratio, found.separation),
        (found.spread_ratio_ci, found.dimension_ratio_ci, found.separation_ci),
        half,
        strict=True,
    ):
        assert ci == pytest.approx((value * np.exp(-width), value * np.exp(width)))


def test_sides_of_unequal_numbers_have_the_dimension_of_equal_ones():
    """One distribution: with all vectors of both sides the ratio reads 1.6."""
    rng = np.random.default_rng(0)
    ids = np.arange(50)
    x, y = rng.normal(size=(50 * 64, 512)), rng.normal(size=(50 * 8, 512))
    found = gap.spread(x, y, np.repeat(ids, 64), np.repeat(ids, 8))
    assert found.dimension_ratio_ci[0] < 1.0 < found.dimension_ratio_ci[1]
    assert found.dimension_ratio == pytest.approx(1.0, abs=0.03)


def test_spread_holds_few_matrices():
    """Twenty parts of two sides, each d x d, were 5 GB of a model's 4,096 columns."""
    x, y, groups_x, groups_y = sides(11, samples=40, d=600)
    tracemalloc.start()
    gap.spread(x, y, groups_x, groups_y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 600 * 600 * 8


def test_a_constant_side_is_one_clear_line():
    x, y, groups_x, groups_y = sides(0)
    with pytest.raises(UserError, match="all vectors of y are equal"):
        gap.spread(x, np.ones_like(y), groups_x, groups_y)


@pytest.mark.filterwarnings("error")
def test_what_is_lost_with_some_samples_has_an_interval_without_bounds():
    """The logarithm of a ratio does not exist without a spread or a distance."""
    everything = (0.0, np.inf)
    x, _, groups, _ = sides(12, samples=20)
    same = gap.spread(x, x, groups, groups)
    assert (same.separation, same.separation_ci) == (0.0, everything)
    assert same.spread_ratio_ci == pytest.approx((1.0, 1.0))
    shuffled = np.random.default_rng(0).permutation(len(x))
    assert gap.spread(x, x[shuffled]).separation_ci == everything
    alone = np.where(groups[:, None] == 7, x, x[0])  # one sample varies
    for pair, spreads in (((x + 1, alone), (1, 0)), ((alone, x + 1), (0, 1))):
        found = gap.spread(*pair, groups, groups)
        assert found.spread_ratio_ci == found.dimension_ratio_ci == everything
        assert [found.spread_x, found.spread_y][spreads[1]] > 0
        low, high = found.separation_ci
        assert 0 < low < found.separation < high < np.inf
    far = gap.spread(1e-3 * x, 1e-3 * alone + 1e4, groups, groups)
    assert far.dimension_ratio_ci == everything
