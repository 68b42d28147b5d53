"""Links that were planted are found with the right intervals, and none where none was planted."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from keygap import gap
from keygap.bias.link_statistics import chain_estimates, independent, smallest_detectable

ENDS = ("separation", "answer")


def planted(rng, n: int, m: int, strengths=(-0.6, 0.7, 0.5), confounder: float = 0.0):
    """Gaussian chains of m units: each quantity is the last one times a strength, and noise."""
    cause = rng.normal(size=(n, 1))
    values = [confounder * cause + np.sqrt(1 - confounder**2) * rng.normal(size=(n, m))]
    for strength in strengths:
        noise = confounder * cause + np.sqrt(1 - confounder**2) * rng.normal(size=(n, m))
        values.append(strength * values[-1] + np.sqrt(1 - strength**2) * noise)
    return values, cause


def paths_of(values: list[np.ndarray]) -> list[float]:
    """Coefficients of the previous quantity in regressions of standardised ranks, by lstsq."""
    ranks = [stats.zscore(stats.rankdata(value)) for value in values]
    return [
        float(np.linalg.lstsq(np.stack(ranks[: k + 1], 1), ranks[k + 1], rcond=None)[0][k])
        for k in range(len(values) - 1)
    ]


def by_name(estimates):
    return {(one.link, one.measure): one for one in estimates}


def test_numbers_are_those_of_sorted_ranks():
    rng = np.random.default_rng(1)
    values, cause = planted(rng, 80, 4, confounder=0.4)
    values = [np.round(value, 1) for value in values]  # with ties
    values[3] = values[3][:, :1]
    covariates = np.concatenate([cause, rng.normal(size=(80, 1))], axis=1)
    found = by_name(chain_estimates(values, covariates, n_bootstraps=5))
    for unit in range(4):
        own = [value[:, min(unit, value.shape[1] - 1)] for value in values]
        plain = found[("separation", "similarity"), "spearman"]
        expected = stats.spearmanr(own[0], own[1])
        assert plain.value[unit] == pytest.approx(expected.statistic, abs=1e-6)
        assert plain.p_value[unit] == pytest.approx(expected.pvalue, rel=1e-3)
        inverse = np.linalg.inv(stats.spearmanr(np.column_stack([*covariates.T, *own[2:]]))[0])
        partial = -inverse[2, 3] / np.sqrt(inverse[2, 2] * inverse[3, 3])
        assert found[("attention", "answer"), "partial"].value[unit] == pytest.approx(
            partial, abs=1e-5
        )
        bare = by_name(chain_estimates([v[:, None] for v in own], n_bootstraps=2))
        assert bare[ENDS, "indirect"].value[0] == pytest.approx(np.prod(paths_of(own)), abs=1e-5)


def test_an_interval_is_that_of_resampled_rows():
    rng = np.random.default_rng(2)
    values, _ = planted(rng, 60, 1)
    found = by_name(chain_estimates(values, n_bootstraps=2000, seed=3))
    drawn = []
    for _ in range(1000):
        rows = rng.integers(60, size=60)
        drawn.append(np.prod(paths_of([value[rows, 0] for value in values])))
    low, high = np.quantile(drawn, [0.025, 0.975])
    indirect = found[ENDS, "indirect"]
    assert (indirect.low[0], indirect.high[0]) == pytest.approx((low, high), abs=0.02)


@pytest.mark.parametrize(
    "strengths", [(-0.6, 0.7, 0.5), pytest.param((-0.3, 0.8, 0.3), marks=pytest.mark.slow)]
)
def test_a_planted_chain_is_within_its_interval(strengths):
    """Coverage over 600 simulations, each a unit; the truth is that of a million samples."""
    rng = np.random.default_rng(4)
    large, _ = planted(rng, 1_000_000, 1, strengths)
    paths = paths_of([value[:, 0] for value in large])
    values, _ = planted(rng, 150, 600, strengths)
    found = by_name(chain_estimates(values, n_bootstraps=500))
    truths = {
        (("separation", "similarity"), "spearman"): paths[0],
        (("similarity", "attention"), "path"): paths[1],
        (("attention", "answer"), "path"): paths[2],
        (ENDS, "indirect"): np.prod(paths),
    }
    for name, truth in truths.items():
        one = found[name]
        covered = np.mean((one.low <= truth) & (truth <= one.high))
        assert 0.915 < covered < 0.975, name  # binomial error: 0.009


@pytest.mark.parametrize("severed", [0, 1, 2])
def test_a_planted_absence_is_called_absence(severed):
    """No chain is found where one of its links is missing, over 1,000 simulations."""
    rng = np.random.default_rng(5 + severed)
    strengths = [0.6, 0.6, 0.6]
    strengths[severed] = 0.0
    values, _ = planted(rng, 120, 1000, strengths)
    found = by_name(chain_estimates(values, n_bootstraps=200))
    indirect = found[ENDS, "indirect"]
    called = (indirect.p_value <= 0.05) & ((indirect.low > 0) | (indirect.high < 0))
    assert called.mean() <= 0.05 + 0.014  # two binomial errors


def test_holm_errs_in_one_family_of_twenty():
    rng = np.random.default_rng(8)
    families, heads = 800, 16
    values, _ = planted(rng, 100, families * heads, (0.0, 0.0, 0.0))
    found = by_name(chain_estimates(values, n_bootstraps=1))
    for name in ((("attention", "answer"), "spearman"), (("attention", "answer"), "path")):
        p = found[name].p_value.reshape(families, heads)
        wrong = np.mean([gap.holm(family).min() <= 0.05 for family in p])
        assert 0.02 < wrong < 0.05 + 0.016
    p = found[ENDS, "indirect"].p_value.reshape(families, heads)
    assert np.mean([gap.holm(family).min() <= 0.05 for family in p]) < 0.01


def test_what_a_covariate_explains_is_no_link():
    rng = np.random.default_rng(9)
    values, cause = planted(rng, 300, 300, (0.0, 0.0, 0.0), confounder=0.7)
    found = by_name(chain_estimates(values, cause, n_bootstraps=1))
    link = ("similarity", "attention")
    assert (found[link, "spearman"].p_value < 0.05).mean() > 0.9
    assert abs(found[link, "partial"].value.mean()) < 0.03
    assert (found[link, "partial"].p_value < 0.05).mean() < 0.12  # ranks explain ranks not quite


@pytest.mark.parametrize(("n", "tests", "held"), [(200, 1024, 0), (80, 9, 3), (500, 1, 0)])
def test_the_smallest_detectable_correlation_is_found_in_four_of_five(n, tests, held):
    rng = np.random.default_rng(10)
    r = smallest_detectable(n, tests, held=held)
    pearson = 2 * np.sin(np.pi * r / 6)  # of a Gaussian pair whose rank correlation is r
    values, _ = planted(rng, n, 2000, (pearson, 0.0, 0.0))
    covariates = rng.normal(size=(n, held))
    found = by_name(chain_estimates(values, covariates, n_bootstraps=1))
    p = found[("separation", "similarity"), "partial"].p_value
    assert np.mean(p <= 0.05 / tests) == pytest.approx(0.8, abs=0.05)


def test_the_smallest_detectable_correlation_of_a_chain_is_larger():
    assert smallest_detectable(200, 10, links=3) > smallest_detectable(200, 10)
    assert smallest_detectable(100, 1) == pytest.approx(0.278, abs=0.01)  # a textbook's 0.277
    assert np.isnan(smallest_detectable(4, 1, held=3))


def test_constant_and_unknown_quantities_have_no_numbers():
    rng = np.random.default_rng(11)
    values, _ = planted(rng, 40, 3)
    values[1][:, 0] = 1.0
    values[1][7, 1] = np.nan
    found = by_name(chain_estimates(values, n_bootstraps=50))
    assert np.isnan(found[("separation", "similarity"), "spearman"].value).tolist() == [1, 1, 0]
    assert np.isnan(found[ENDS, "indirect"].p_value).tolist() == [1, 1, 0]
    assert np.isfinite(found[("attention", "answer"), "spearman"].low).all()


def test_covariates_that_say_the_same_are_held_fixed_once():
    rng = np.random.default_rng(12)
    count = rng.integers(5, 20, 60).astype(float)
    other = rng.normal(size=60)
    given = np.stack([np.full(60, 16.0), count, 2 * count + 3, other], axis=1)
    assert independent(given) == [1, 3]


@pytest.mark.slow
def test_a_thousand_heads_take_a_minute():
    rng = np.random.default_rng(13)
    values, _ = planted(rng, 200, 1024)
    began = time.process_time()
    chain_estimates([*values[:3], values[3][:, :1]], rng.normal(size=(200, 2)), n_bootstraps=100)
    assert time.process_time() - began < 6
