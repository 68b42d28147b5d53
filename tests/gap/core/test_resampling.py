"""Quadratic forms over samples equal resampling the vectors for real."""

import itertools
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from keygap import gap
from keygap.gap.core import resampling
from keygap.gap.core.inputs import two_sides
from keygap.gap.core.kernels import gaussian_means
from keygap.gap.core.resampling import (
    PairSums,
    PairTotals,
    central_band,
    log_jackknife_interval,
    multiplicities,
    p_value,
)
from keygap.gap.core.swaps import swap_labels

from ..made_sides import unequal_sides


def products(rows: np.ndarray) -> float:
    """Mean product of two different rows."""
    return float(np.mean([a @ b for a, b in itertools.permutations(rows, 2)]))


def squared_distance(x: np.ndarray, y: np.ndarray, paired: bool) -> float:
    if paired:
        return products(x - y)
    return products(x) + products(y) - 2 * float(np.mean([a @ b for a in x for b in y]))


@pytest.mark.parametrize("paired", [True, False])
def test_sums_of_the_linear_kernel_need_no_matrix(paired):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 4)) + 3.0, rng.normal(size=(9 if paired else 7, 4))
    totals = PairTotals.of_means(x, y, paired)
    assert totals.statistic() == pytest.approx(squared_distance(x, y, paired))
    for side, values in enumerate(totals.without()):
        rest = []
        for n in range(len(values)):
            own_x = np.delete(x, n, 0) if paired or side == 0 else x
            own_y = np.delete(y, n, 0) if paired or side == 1 else y
            rest.append(squared_distance(own_x, own_y, paired))
        np.testing.assert_allclose(np.diff(values), np.diff(rest))


@pytest.mark.parametrize("paired", [True, False])
def test_swaps_bootstraps_and_jackknife_equal_recomputation(paired):
    sides = two_sides(*unequal_sides(5, samples=8, paired=paired))
    means, _ = gaussian_means(sides, (2.0,))
    sums = PairSums.from_cells(means, sides)

    def mmd2(these):
        return PairSums.from_cells(gaussian_means(these, (2.0,))[0], these).totals.statistic()

    # Swaps: the set of recomputed values is among the quadratic form's.
    null = sums.swapped(20_000, np.random.default_rng(0))
    for seed in range(5):
        swapped = mmd2(swap_labels(sides, np.random.default_rng(seed)))
        assert np.abs(null - swapped).min() < (1e-6 if paired else 1e-4)
    assert abs(null.mean()) < 4 * null.std() / np.sqrt(len(null))

    # Interval: Student quantile times the standard error from leaving out samples for real.
    variances = []
    for side in ("x", "y"):
        values = []
        for s in range(8):
            keep_x = sides.sample_x != s if paired or side == "x" else np.ones(len(sides.x), bool)
            keep_y = sides.sample_y != s if paired or side == "y" else np.ones(len(sides.y), bool)
            ids_y = sides.sample_y if paired else sides.sample_y + 100
            rest = two_sides(
                sides.x[keep_x], sides.y[keep_y], sides.sample_x[keep_x], ids_y[keep_y]
            )
            values.append(mmd2(rest))
        variances.append(7 * np.var(values))
        if paired:
            break
    degrees = 7 if paired else sum(variances) ** 2 / sum(v**2 / 7 for v in variances)
    half = stats.t.ppf(0.975, degrees) * np.sqrt(sum(variances))
    low, high = sums.totals.interval(0.95)
    assert (high - low) / 2 == pytest.approx(half, rel=1e-3)

    # Bootstraps: without repeated samples nothing changes; their centre is the statistic.
    bootstraps = sums.bootstraps(4000, np.random.default_rng(0))
    centre = sums.totals.statistic()
    assert bootstraps.mean() == pytest.approx(centre, abs=4 * bootstraps.std() / 60)


@pytest.mark.parametrize("paired", [True, False])
def test_swaps_in_chunks_are_the_same_swaps(paired, monkeypatch):
    x, y, groups_x, groups_y = unequal_sides(3, paired=paired)
    options = {"paired": paired, "n_permutations": 500, "n_bootstraps": 0}
    at_once = gap.mmd(x, y, groups_x, groups_y, **options)
    monkeypatch.setattr(resampling, "_CHUNK", 24 * 64)
    in_chunks = gap.mmd(x, y, groups_x, groups_y, **options)
    np.testing.assert_allclose(in_chunks.null, at_once.null)
    assert len(gap.mmd(x, y, groups_x, groups_y, **options | {"n_permutations": 0}).null) == 0


def test_swaps_of_a_byte_are_turned_to_numbers_a_few_at_a_time():
    """40,000 swaps of 10,000 samples were 3.3 GB at once."""
    rng = np.random.default_rng(0)
    means_x, means_y = rng.normal(size=(2, 500, 3))
    totals = PairTotals.of_means(means_x, means_y, paired=False)
    swaps = rng.permuted(np.repeat([[1, 0]], 500, axis=1).repeat(20_000, 0), axis=1).astype(np.int8)
    quadratic = rng.normal(size=20_000)
    tracemalloc.start()
    found = totals.under(swaps, quadratic)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6
    few = swaps[::997].astype(np.float64)
    np.testing.assert_allclose(found[::997], totals.under(few, quadratic[::997]), atol=1e-12)
    assert len(totals.under(swaps[:0], quadratic[:0])) == 0


def test_p_counts_ties_and_is_never_zero():
    assert p_value(2.0, np.array([1.0, 2.0, 3.0])) == pytest.approx(3 / 4)
    assert p_value(9.0, np.array([1.0, 2.0, 3.0])) == pytest.approx(1 / 4)
    assert p_value(0.3, np.array([0.1 + 0.2 - 1e-15])) == 1.0  # equal up to rounding
    assert p_value(9.0, np.array([])) == 1.0


def test_central_band_by_hand():
    assert central_band(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))
    assert np.isnan(central_band(np.empty(0), 0.9)).all()


def test_multiplicities_draw_at_least_two_samples():
    draws = multiplicities(2, 500, np.random.default_rng(0))
    assert (draws == 1).all()  # of two samples, one is never drawn twice
    draws = multiplicities(5, 500, np.random.default_rng(0))
    assert (draws.sum(1) == 5).all()
    assert draws.mean(0) == pytest.approx(np.ones(5), abs=0.15)


def test_log_jackknife_of_one_number_and_of_several():
    left_out = np.array([[1.9, 5.0], [2.1, 5.0], [2.0, 5.0]])
    low, high = log_jackknife_interval(np.array([2.0, 5.0]), left_out, 0.95)
    logs = np.log(left_out[:, 0])
    half = stats.t.ppf(0.975, 2) * np.sqrt(2 / 3 * ((logs - logs.mean()) ** 2).sum())
    assert (low[0], high[0]) == pytest.approx((2.0 * np.exp(-half), 2.0 * np.exp(half)))
    assert (low[1], high[1]) == pytest.approx((5.0, 5.0))  # nothing varies
    assert log_jackknife_interval(2.0, left_out[:, 0], 0.95)[0] == pytest.approx(low[0])
