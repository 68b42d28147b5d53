"""The smaller statistics, each against a number known beforehand."""

import tracemalloc

import numpy as np
import pytest
from planted import tokens
from scipy import linalg, stats

from keygap import gap
from keygap.gap.frechet import gaussian_frechet


def sides(seed, samples=50, d=6, rho=0.3, shift=0.0, scale=1.0, counts=(10, 4)):
    rng = np.random.default_rng(seed)
    x, groups_x = tokens(rng, np.full(samples, counts[0]), d, rho)
    y, groups_y = tokens(rng, np.full(samples, counts[1]), d, rho)
    y = y * scale
    y[:, 0] += shift
    return x, y, groups_x, groups_y


def test_frechet_of_known_gaussians():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 5))
    cov_a, cov_b = a @ a.T, b @ b.T
    means, covariances = gaussian_frechet(np.ones(5), cov_a, np.zeros(5), cov_b)
    direct = np.trace(cov_a + cov_b - 2 * linalg.sqrtm(cov_a @ cov_b).real)
    assert means == pytest.approx(5.0)
    assert covariances == pytest.approx(direct, rel=1e-8)
    # Diagonal covariances: sum of (sd_x - sd_y)^2.
    assert gaussian_frechet(np.zeros(2), np.diag([4.0, 0.0]), np.zeros(2), np.diag([1.0, 0.0]))[
        1
    ] == pytest.approx(1.0)


def test_frechet_beside_its_null():
    large = gap.frechet(*sides(1, samples=200, rho=0.0, shift=2.0, scale=1.5, counts=(50, 50)))
    assert large.distance == pytest.approx(4.0 + 6 * 0.25, rel=0.05)
    assert large.distance == pytest.approx(large.from_means + large.from_covariances)
    assert large.p_value == pytest.approx(1 / 21)
    none = gap.frechet(*sides(2))
    assert none.distance == pytest.approx(none.null, rel=0.6)  # all bias, no gap


def test_mir_by_hand():
    rng = np.random.default_rng(3)
    image, text = rng.normal(size=(400, 3)) + 4, rng.normal(size=(300, 3))
    image[7] = 1000.0
    result = gap.mir([(image, text), (2 * image, 2 * text)])
    assert result.by_layer[0] == pytest.approx(result.by_layer[1])  # free of scale
    assert result.mir == pytest.approx(np.log10(sum(result.by_layer)))
    assert result.replaced_image[0] == 1
    scale = np.linalg.norm(text, axis=1).mean()
    clean = image.copy()
    clean[7] = np.median(image, axis=0)
    shift = clean.mean(0) - text.mean(0)
    assert result.by_layer[0] == pytest.approx((shift @ shift) / scale**2, rel=0.05)


def test_modality_gap_by_hand():
    x, y, groups_x, groups_y = sides(4, shift=3.0, counts=(4, 4))
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y)]
    result = gap.modality_gap(x, y, groups_x, groups_y)
    assert result.gap == pytest.approx(np.linalg.norm(unit[0].mean(0) - unit[1].mean(0)))
    assert result.ci[0] < result.unbiased < result.ci[1]
    assert result.p_value == pytest.approx(1 / 1001)
    null = gap.modality_gap(*sides(5, counts=(4, 4)))
    assert null.gap > 0.0
    assert null.gap == pytest.approx(null.null, rel=0.6)
    scaled = gap.modality_gap(7 * x, y, groups_x, groups_y)
    assert scaled.gap == pytest.approx(result.gap)


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
    x, y, groups_x, groups_y = sides(10, samples=12, d=5, shift=1.0, scale=1.5)
    groups_y = groups_y if paired else groups_y + 12

    def ratios(keep_x, keep_y):
        found = gap.spread(x[keep_x], y[keep_y], groups_x[keep_x], groups_y[keep_y])
        return found.spread_ratio, found.dimension_ratio, found.separation

    order = np.random.default_rng(0)  # unpaired sides lose a random sample each, by the seed
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


def test_holm():
    # Worked by hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, then 0.04 raised to the one before.
    np.testing.assert_allclose(gap.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(gap.holm([0.9, 0.8]), [1.0, 1.0])
    assert len(gap.holm([])) == 0


def test_spread_holds_few_matrices():
    """Twenty parts of two sides, each d x d, were 5 GB of a model's 4,096 columns."""
    x, y, groups_x, groups_y = sides(11, samples=40, d=600)
    tracemalloc.start()
    gap.spread(x, y, groups_x, groups_y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 600 * 600 * 8
