"""The biased MMD squared: its definition pair by pair, its bias in closed form, its test."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from planted import gaussian_mmd2, kernel_of_gaussians, tokens
from scipy import stats
from scipy.spatial.distance import cdist

from keygap import gap
from keygap.errors import UserError
from keygap.gap.core.inputs import two_sides
from keygap.gap.core.kernels import energy_means, gaussian_means

from .made_sides import unequal_sides

BIASED: dict[str, Any] = {"estimator": "biased", "n_permutations": 99, "n_bootstraps": 99}
SIGMAS = (3.0, 1.1)
KERNELS: dict[Any, Any] = {
    "gaussian": lambda a, b: np.mean([np.exp(-((a - b) @ (a - b)) / (2 * s**2)) for s in SIGMAS]),
    "linear": lambda a, b: a @ b,
    "energy": lambda a, b: -math.dist(a, b),
}


def v_statistic(x, y, groups_x, groups_y, kernel):
    """Sum over every two vectors, themselves included, of their signed weights and the kernel."""
    rows = []
    for side, groups, sign in ((x, groups_x, 1.0), (y, groups_y, -1.0)):
        n_samples = len(set(groups.tolist()))
        for vector, group in zip(side, groups, strict=True):
            rows.append((vector, sign / (n_samples * np.sum(groups == group))))
    return sum(p * q * kernel(a, b) for (a, p), (b, q) in itertools.product(rows, rows))


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("name", KERNELS)
def test_equals_a_double_loop_over_all_vectors(name, paired):
    x, y, groups_x, groups_y = unequal_sides(0, samples=7, paired=paired)
    if not paired:
        x, groups_x = x[groups_x < 5], groups_x[groups_x < 5]  # unequal numbers of samples too
    grid = SIGMAS if name == "gaussian" else None
    found = gap.mmd(x, y, groups_x, groups_y, kernel=name, bandwidth=grid, **BIASED)
    expected = v_statistic(x, y, groups_x, groups_y, KERNELS[name])
    assert found.paired is paired
    assert found.estimator == "biased"
    assert found.mmd2 == pytest.approx(expected, rel=1e-6)
    unbiased = gap.mmd(x, y, groups_x, groups_y, kernel=name, bandwidth=grid, n_bootstraps=0)
    assert unbiased.mmd2 < expected - 0.01
    assert unbiased.estimator == "unbiased"


def test_each_bandwidth_equals_a_double_loop():
    x, y, groups_x, groups_y = unequal_sides(1, samples=6)
    found = gap.mmd(x, y, groups_x, groups_y, bandwidth=SIGMAS, **BIASED)
    assert len(found.mmd2_by_bandwidth) == 2
    for sigma, value in zip(SIGMAS, found.mmd2_by_bandwidth, strict=True):

        def kernel(a, b, sigma=sigma):
            return np.exp(-((a - b) @ (a - b)) / (2 * sigma**2))

        expected = v_statistic(x, y, groups_x, groups_y, kernel)
        assert value == pytest.approx(expected, rel=1e-6)
    assert np.mean(found.mmd2_by_bandwidth) == pytest.approx(found.mmd2, rel=1e-6)


def test_rows_without_ids_give_the_textbook_estimator():
    """Gretton et al. 2012, equation 5, and scipy's distances; n and m differ."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(41, 3)) + 0.3

    def textbook(kernel):
        xx, yy, xy = (kernel(cdist(*pair)).mean() for pair in ((x, x), (y, y), (x, y)))
        return xx + yy - 2 * xy

    gaussian = gap.mmd(x, y, bandwidth=1.5, **BIASED)
    assert gaussian.mmd2 == pytest.approx(textbook(lambda r: np.exp(-(r**2) / 4.5)), rel=1e-5)
    energy = gap.mmd(x, y, kernel="energy", **BIASED)
    assert energy.mmd2 == pytest.approx(textbook(np.negative), rel=1e-12)
    linear = gap.mmd(x, y, kernel="linear", **BIASED)
    assert linear.mmd == pytest.approx(np.linalg.norm(x.mean(0) - y.mean(0)), rel=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_equal_sides_are_at_distance_zero_and_no_distance_is_negative(kernel):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 64))
    bandwidth = 1.0 if kernel == "gaussian" else None
    options = BIASED | {"kernel": kernel, "bandwidth": bandwidth, "paired": False}
    assert gap.mmd(x, x, **options).mmd2 == pytest.approx(0.0, abs=1e-6)
    assert gap.mmd(x, rng.normal(size=(40, 64)), **options).null.min() > 0.0


@pytest.mark.parametrize("block", [7, 512])
def test_a_vector_and_itself_are_exact_in_float32_and_far_from_the_origin(block):
    """The product that a distance is computed from is off by 1e-7 of the squared norms."""
    rng = np.random.default_rng(4)
    x, y = 1e3 * rng.normal(size=(20, 128)) + 1e5, 1e3 * rng.normal(size=(20, 128)) + 1e5
    sides = two_sides(x.astype(np.float32), y.astype(np.float32))
    means, _ = gaussian_means(sides, (1.0,), block=block)
    assert (np.diagonal(means) == 1.0).all()
    assert (np.diagonal(energy_means(sides, block=block)) == 0.0).all()
    # At bandwidth 1 no vector has a neighbour: each distance is that of 40 separate points.
    found = gap.mmd(sides.x, sides.y, bandwidth=1.0, **BIASED)
    assert found.mmd2 == pytest.approx(1 / 20 + 1 / 20, rel=1e-12)


def test_the_origin_does_not_matter():
    x, y, groups_x, groups_y = unequal_sides(5)
    for kernel in KERNELS:
        options = BIASED | {"kernel": kernel, "bandwidth": 2.0 if kernel == "gaussian" else None}
        base = gap.mmd(x, y, groups_x, groups_y, **options)
        moved = gap.mmd(x + 50.0, y + 50.0, groups_x, groups_y, **options)
        assert moved.mmd2 == pytest.approx(base.mmd2, rel=1e-6)
        assert moved.ci == pytest.approx(base.ci, rel=1e-5)


def mean_norm2(n_tokens, rho, d, kernel):
    """E |mean embedding of a sample|^2 less E k of two samples: the bias, times the samples."""
    if kernel == "linear":
        return d * (1 + (n_tokens - 1) * rho) / n_tokens
    if kernel == "energy":
        apart = 2 * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))  # E |X - X'|
        return apart - (n_tokens - 1) / n_tokens * math.sqrt(1 - rho) * apart
    one = np.ones(d)
    within = kernel_of_gaussians(0.0, 2 * (1 - rho) * one, SIGMAS)
    apart = kernel_of_gaussians(0.0, 2 * one, SIGMAS)
    return 1 / n_tokens + (1 - 1 / n_tokens) * within - apart


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("kernel", KERNELS)
def test_expectation_without_a_difference_is_the_bias(kernel, paired):
    """The mean of 200 draws; the bias is 5 to 20 times the tolerance of four standard errors."""
    d, rho, s, t = 4, 0.4, 12, 12 if paired else 20
    bandwidth = SIGMAS if kernel == "gaussian" else None
    options = BIASED | {"kernel": kernel, "bandwidth": bandwidth, "n_permutations": 20}
    rng = np.random.default_rng(6)
    values, nulls = [], []
    for _ in range(200):
        x, groups_x = tokens(rng, np.full(s, 5), d, rho)
        y, groups_y = tokens(rng, np.full(t, 2), d, rho)
        found = gap.mmd(x, y, groups_x, groups_y if paired else groups_y + s, **options)
        values.append(found.mmd2)
        nulls.append(found.null.mean())
    bias = mean_norm2(5, rho, d, kernel) / s + mean_norm2(2, rho, d, kernel) / t
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values) - bias) < 4 * error < 0.2 * bias
    if paired:  # swaps keep the diagonal, which is the bias
        assert np.mean(nulls) == pytest.approx(bias, abs=4 * error)


def test_null_bootstraps_and_left_out_samples_are_those_of_the_same_estimator():
    """All three against the vectors taken again, through the double loop."""
    samples = 5
    x, y, groups_x, groups_y = unequal_sides(7, samples=samples)
    found = gap.mmd(x, y, groups_x, groups_y, kernel="linear", **BIASED)

    def again(keep_x, keep_y, ids_x=groups_x, ids_y=groups_y):
        return v_statistic(x[keep_x], y[keep_y], ids_x[keep_x], ids_y[keep_y], KERNELS["linear"])

    for left_out, value in found.without.items():
        assert value == pytest.approx(again(groups_x != left_out, groups_y != left_out))

    possible = []
    for swapped in itertools.product([False, True], repeat=samples):
        swap_x, swap_y = np.array(swapped)[groups_x], np.array(swapped)[groups_y]
        to_x = np.concatenate([x[~swap_x], y[swap_y]])
        to_y = np.concatenate([y[~swap_y], x[swap_x]])
        ids_x = np.concatenate([groups_x[~swap_x], groups_y[swap_y]])
        ids_y = np.concatenate([groups_y[~swap_y], groups_x[swap_x]])
        possible.append(v_statistic(to_x, to_y, ids_x, ids_y, KERNELS["linear"]))
    distance = np.abs(found.null[:, None] - np.array(possible)).min(1)
    np.testing.assert_allclose(distance, 0.0, atol=1e-12)
    assert len(np.unique(found.null.round(9))) == 2 ** (samples - 1)  # all of them occur

    differences = np.stack([x[groups_x == s].mean(0) - y[groups_y == s].mean(0) for s in range(5)])
    drawn = [
        np.sum(differences[list(draw)].mean(0) ** 2)
        for draw in itertools.product(range(samples), repeat=samples)
    ]
    distance = np.abs(found.bootstraps[:, None] - np.array(drawn)).min(1)
    np.testing.assert_allclose(distance, 0.0, atol=1e-12)
    many = gap.mmd(x, y, groups_x, groups_y, kernel="linear", **BIASED | {"n_bootstraps": 20_000})
    error = many.bootstraps.std() / math.sqrt(20_000)
    assert many.bootstraps.mean() == pytest.approx(np.mean(drawn), abs=5 * error)


def test_unpaired_resamples_are_those_of_the_same_estimator():
    x, y, groups_x, groups_y = unequal_sides(8, samples=4, paired=False)
    found = gap.mmd(x, y, groups_x, groups_y, kernel="energy", **BIASED)
    vectors, ids = np.concatenate([x, y]), np.concatenate([groups_x, groups_y])
    possible = []
    for chosen in itertools.combinations(range(8), 4):
        on_x = np.isin(ids, chosen)
        possible.append(
            v_statistic(vectors[on_x], vectors[~on_x], ids[on_x], ids[~on_x], KERNELS["energy"])
        )
    distance = np.abs(found.null[:, None] - np.array(possible)).min(1)
    np.testing.assert_allclose(distance, 0.0, atol=1e-12)
    # The interval, from leaving each sample of each side out for real.
    variances = []
    for side in ((0, 1, 2, 3), (4, 5, 6, 7)):
        left = []
        for out in side:
            keep_x, keep_y = groups_x != out, groups_y != out
            left.append(
                v_statistic(
                    x[keep_x], y[keep_y], groups_x[keep_x], groups_y[keep_y], KERNELS["energy"]
                )
            )
        variances.append(3 * np.var(left))
    assert sum(found.ci) / 2 == pytest.approx(found.mmd2)
    degrees = sum(variances) ** 2 / sum(v**2 / 3 for v in variances)
    half = stats.t.ppf(0.975, degrees) * math.sqrt(sum(variances))
    assert (found.ci[1] - found.ci[0]) / 2 == pytest.approx(half)


def test_the_jackknife_estimate_of_the_bias_leads_to_the_unbiased_estimate():
    """A closed form: S V - (S - 1) mean of V without each sample is the U-statistic."""
    sides = unequal_sides(9, samples=15)
    for kernel in KERNELS:
        options: dict[str, Any] = {
            "kernel": kernel,
            "bandwidth": 2.0 if kernel == "gaussian" else None,
        }
        biased = gap.mmd(*sides, **BIASED | options)
        corrected = 15 * biased.mmd2 - 14 * np.mean(list(biased.without.values()))
        assert corrected == pytest.approx(gap.mmd(*sides, **options).mmd2, abs=1e-6)


@pytest.mark.parametrize("paired", [True, False])
def test_p_value_is_that_of_the_unbiased_estimator_for_equal_numbers_of_samples(paired):
    for seed in range(20):
        sides = unequal_sides(seed, samples=15, shift=0.4, paired=paired)
        options: dict[str, Any] = {
            "n_permutations": 199,
            "n_bootstraps": 0,
            "bandwidth": 2.0,
            "seed": seed,
        }
        biased = gap.mmd(*sides, estimator="biased", **options)
        unbiased = gap.mmd(*sides, **options)
        assert biased.p_value == pytest.approx(unbiased.p_value, abs=0.0051)  # one tie at most
        assert biased.mmd2 > unbiased.mmd2


def rejections(simulations, samples_x, samples_y, tokens_x, tokens_y, paired):
    rejected = []
    for seed in range(simulations):
        rng = np.random.default_rng([seed, samples_x, samples_y, tokens_x, paired])
        x, groups_x = tokens(rng, np.full(samples_x, tokens_x), 4, 0.5)
        y, groups_y = tokens(rng, np.full(samples_y, tokens_y), 4, 0.5)
        found = gap.mmd(
            x, y, groups_x, groups_y if paired else groups_y + samples_x, bandwidth=2.8,
            estimator="biased", n_permutations=99, n_bootstraps=0, seed=seed,
        )  # fmt: skip
        rejected.append(found.p_value <= 0.05)
    return np.mean(rejected)


CASES = [(20, 20, 6, 2, True), (20, 20, 6, 2, False), (40, 10, 4, 4, False)]


@pytest.mark.parametrize("case", CASES)
def test_type_one_error(case):
    assert 0.017 <= rejections(400, *case) <= 0.083  # three standard errors of 400 simulations


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_type_one_error_closely(case):
    assert 0.035 <= rejections(2000, *case) <= 0.065


def test_level_is_lost_where_one_side_has_fewer_samples_of_fewer_vectors():
    """As the docs state: the bias of the smaller side is larger than under swaps."""
    assert rejections(200, 40, 10, 8, 1, False) > 0.12


def covered(simulations, samples, shift, paired):
    """How often the 95 % interval holds MMD^2 plus the bias, and MMD^2 alone."""
    d, counts, rho = 8, (8, 2), 0.5
    sigmas = (6.0, 3.0)
    one = np.ones(d)
    truth = gaussian_mmd2(shift**2, one, one, sigmas)
    within = kernel_of_gaussians(0.0, 2 * (1 - rho) * one, sigmas)
    apart = kernel_of_gaussians(0.0, 2 * one, sigmas)
    bias = sum((1 / n + (1 - 1 / n) * within - apart) / samples for n in counts)
    held = []
    for seed in range(simulations):
        rng = np.random.default_rng([seed, samples, int(10 * shift), paired])
        x, groups_x = tokens(rng, np.full(samples, counts[0]), d, rho)
        y, groups_y = tokens(rng, np.full(samples, counts[1]), d, rho)
        y[:, 0] += shift
        groups_y = groups_y if paired else groups_y + samples
        ci = gap.mmd(x, y, groups_x, groups_y, bandwidth=sigmas, **BIASED).ci
        held.append([ci[0] <= value <= ci[1] for value in (truth + bias, truth)])
    return np.mean(held, axis=0)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("samples", "shift"), [(20, 0.0), (20, 0.6), (20, 1.5)])
def test_interval_holds_the_expected_value(samples, shift, paired):
    of_expected, of_truth = covered(200, samples, shift, paired)
    assert of_expected >= 0.90
    if shift == 0.0:
        assert of_truth < 0.88  # the interval of the V-statistic is not one of MMD^2


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("samples", "shift"), [(20, 0.6), (20, 1.5), (100, 0.6), (100, 1.5)])
def test_interval_holds_the_expected_value_closely(samples, shift, paired):
    of_expected, of_truth = covered(600, samples, shift, paired)
    assert 0.92 <= of_expected <= 0.995
    assert of_truth <= of_expected


def test_readings_name_the_estimator():
    sides = unequal_sides(10)
    for estimator in ("unbiased", "biased"):
        squared, root = gap.mmd(*sides, **BIASED | {"estimator": estimator}).readings
        assert squared.settings["estimator"] == root.settings["estimator"] == estimator
        assert squared.what.startswith(f"MMD squared, {estimator}:")
        assert squared.ci[0] <= squared.value <= squared.ci[1]


def test_an_unknown_estimator_is_one_clear_line():
    with pytest.raises(UserError) as caught:
        gap.mmd(*unequal_sides(0), estimator="biassed")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "unknown estimator 'biassed'; did you mean 'biased'? known: unbiased, biased"
    )
