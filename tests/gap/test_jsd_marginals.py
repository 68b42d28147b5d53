"""The mean JSD of single columns against numpy, scipy and scikit-learn, and what it cannot see."""

import itertools
import math

import numpy as np
import pytest
import torch
from planted import tokens
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import mutual_info_score

from keygap import gap
from keygap.errors import UserError

from .made_sides import unequal_sides

LN2 = math.log(2.0)


def by_hand(x, y, groups_x, groups_y, bins):
    """JSD of each column from numpy's histograms of each sample, averaged in a loop."""
    values = []
    for column in range(x.shape[1]):
        both = np.concatenate([x[:, column], y[:, column]])
        sides = []
        for side, groups in ((x, groups_x), (y, groups_y)):
            of_samples = []
            for sample in sorted(set(groups.tolist())):
                of_sample = side[groups == sample, column]
                counts, _ = np.histogram(of_sample, bins, range=(both.min(), both.max()))
                of_samples.append(counts / len(of_sample))
            sides.append(np.mean(of_samples, axis=0))
        values.append(jensenshannon(*sides) ** 2)
    return np.array(values)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("bins", [2, 10, 100])
def test_equals_histograms_of_samples_by_hand(bins, paired):
    x, y, groups_x, groups_y = unequal_sides(0, samples=15, paired=paired)
    if not paired:
        x, groups_x = x[groups_x < 9], groups_x[groups_x < 9]
    found = gap.jsd_marginals(x, y, groups_x, groups_y, bins=bins)
    expected = by_hand(x, y, groups_x, groups_y, bins)
    np.testing.assert_allclose(found.by_column, expected, rtol=1e-9, atol=1e-12)
    assert found.nats == pytest.approx(expected.mean())
    assert found.bits == pytest.approx(expected.mean() / LN2)
    assert found.null_bits == pytest.approx(found.null_nats / LN2)
    assert found.paired is paired
    assert found.bins == bins


def test_equals_the_mutual_information_of_bin_and_side():
    """Equal numbers and no ids: scikit-learn's mutual information of two discrete variables."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(150, 3)), rng.normal([0.0, 0.4, 2.0], size=(150, 3))
    side = np.repeat([0, 1], 150)
    found = gap.jsd_marginals(x, y, bins=12)
    for column, value in enumerate(found.by_column):
        both = np.concatenate([x[:, column], y[:, column]])
        edges = np.linspace(both.min(), both.max(), 13)
        assert value == pytest.approx(mutual_info_score(np.digitize(both, edges[1:-1]), side))
    one = gap.jsd_histogram(x[:, 2:], y[:, 2:], dims=1, bins=12)
    assert found.by_column[2] == pytest.approx(one.nats)


def test_it_dilutes_and_constant_columns_count():
    """One column of eight separates the sides, two are constant, and the others are equal."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 8))
    x[:, 5:7] = 3.0
    y = rng.permuted(x, axis=0)
    y[:, 2] = x[:, 2] + 100.0
    found = gap.jsd_marginals(x, y)
    expected = np.zeros(8)
    expected[2] = LN2
    np.testing.assert_allclose(found.by_column, expected, atol=1e-12)
    assert (found.by_column[5:7] == 0.0).all()
    assert found.nats == pytest.approx(LN2 / 8)
    assert found.p_value == pytest.approx(1 / 21)
    narrow = gap.jsd_marginals(x[:, [0, 2, 4]], y[:, [0, 2, 4]])
    assert narrow.nats == pytest.approx(LN2 / 3)


def test_it_misses_dependence():
    """Equal columns on one side, unrelated ones on the other: another JSD sees it at once."""
    rng = np.random.default_rng(3)
    a = rng.normal(size=400)
    x, y = np.stack([a, a], 1), np.stack([a, rng.permutation(a)], 1)
    assert gap.jsd_marginals(x, y).nats == pytest.approx(0.0, abs=1e-12)
    assert gap.jsd_histogram(x, y, dims=2, bins=10).nats > 0.3


def test_expectation_without_a_difference():
    """4 n JSD is the G statistic with bins - 1 degrees of freedom, which is its expectation."""
    rng = np.random.default_rng(4)
    n, bins, columns = 400, 10, 2000
    found = gap.jsd_marginals(
        rng.uniform(size=(n, columns)), rng.uniform(size=(n, columns)), bins=bins
    )
    expected = (bins - 1) / (4 * n)
    error = found.by_column.std() / math.sqrt(columns)
    assert found.nats == pytest.approx(expected, abs=4 * error)
    assert 4 * error < 0.06 * expected
    assert found.null_nats == pytest.approx(expected, abs=4 * error)
    # The variance of chi squared is twice its degrees of freedom.
    assert found.by_column.std() == pytest.approx(math.sqrt(2 * (bins - 1)) / (4 * n), rel=0.1)


@pytest.mark.parametrize("paired", [True, False])
def test_swaps_equal_moving_the_samples(paired):
    """With four samples a side, every possible swap is computed by hand."""
    x, y, groups_x, groups_y = unequal_sides(5, samples=4, paired=False)
    vectors, ids = np.concatenate([x, y]), np.concatenate([groups_x, groups_y])
    if paired:
        chosen = [
            [s + 4 * swap for s, swap in enumerate(swaps)]
            for swaps in itertools.product([0, 1], repeat=4)
        ]
    else:
        chosen = [list(four) for four in itertools.combinations(range(8), 4)]
    possible = []
    for on_x in (np.isin(ids, four) for four in chosen):
        swapped = by_hand(vectors[on_x], vectors[~on_x], ids[on_x], ids[~on_x], 5)
        possible.append(swapped.mean())
    groups_y = groups_y - 4 if paired else groups_y
    nulls, p_values = [], []
    for seed in range(200):
        found = gap.jsd_marginals(x, y, groups_x, groups_y, bins=5, n_permutations=1, seed=seed)
        nulls.append(found.null_nats)
        p_values.append(found.p_value)
    null = np.array(nulls)
    assert np.abs(null[:, None] - np.array(possible)).min(1).max() < 1e-12
    assert len(np.unique(null.round(10))) > 0.75 * len(np.unique(np.round(possible, 10)))
    np.testing.assert_allclose(p_values, np.where(null >= found.nats - 1e-12, 1.0, 0.5))


@pytest.mark.parametrize("paired", [True, False])
def test_type_one_error(paired):
    rejected = []
    for seed in range(300):
        rng = np.random.default_rng([seed, paired])
        x, groups_x = tokens(rng, np.full(12, 6), 5, 0.6)
        y, groups_y = tokens(rng, np.full(12, 3), 5, 0.6)
        groups_y = groups_y if paired else groups_y + 12
        found = gap.jsd_marginals(x, y, groups_x, groups_y, n_permutations=19, seed=seed)
        rejected.append(found.p_value <= 0.05)
    assert 0.01 <= np.mean(rejected) <= 0.09  # three standard errors of 300 simulations


def test_order_names_sides_units_and_types_do_not_matter():
    x, y, groups_x, groups_y = unequal_sides(6, samples=10)
    base = gap.jsd_marginals(x, y, groups_x, groups_y)
    order = np.random.default_rng(0).permutation(len(x))
    moved = gap.jsd_marginals(
        x[order] * [4.0, -1.0, 0.25, 8.0] + 1.0,
        y * [4.0, -1.0, 0.25, 8.0] + 1.0,
        [f"sample {g:02d}" for g in groups_x[order]],
        [f"sample {g:02d}" for g in groups_y],
    )
    np.testing.assert_allclose(moved.by_column, base.by_column, rtol=1e-9)
    assert moved.null_nats == pytest.approx(base.null_nats)
    assert gap.jsd_marginals(y, x, groups_y, groups_x).nats == pytest.approx(base.nats)
    single = gap.jsd_marginals(
        torch.tensor(x).float(), torch.tensor(y).float(), torch.tensor(groups_x), groups_y
    )
    assert single.nats == pytest.approx(base.nats, abs=1e-9)
    assert gap.jsd_marginals(x, y, groups_x, groups_y) == base


def test_a_sample_weighs_the_same_whatever_its_count():
    x, y, groups_x, groups_y = unequal_sides(7)
    again = np.repeat(np.arange(len(x)), np.where(groups_x == 3, 5, 1))
    base = gap.jsd_marginals(x, y, groups_x, groups_y)
    repeated = gap.jsd_marginals(x[again], y, groups_x[again], groups_y)
    np.testing.assert_allclose(repeated.by_column, base.by_column, atol=1e-12)
    assert gap.jsd_marginals(x[again], y, None, None).nats != pytest.approx(base.nats, abs=1e-3)


def test_reading_and_no_swaps():
    sides = unequal_sides(8)
    (reading,) = gap.jsd_marginals(*sides).readings
    found = gap.jsd_marginals(*sides)
    assert (reading.name, reading.value, reading.dims) == ("jsd_marginals", found.nats, 4)
    assert (reading.null, reading.p_value) == (found.null_nats, found.p_value)
    assert reading.settings == {"bins": 10}
    without = gap.jsd_marginals(*sides, n_permutations=0)
    assert (without.null_nats, without.p_value) == (0.0, 1.0)
    assert (without.readings[0].null, without.readings[0].p_value) == (None, None)
    assert found.cautions == ("12 samples, fewer than 20: intervals and p-values are rough",)


X = np.random.default_rng(0).normal(size=(10, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gap.jsd_marginals(X, X, bins=1), "bins is 1: give at least 2"),
        (lambda: gap.jsd_marginals(X, X[:, :2]), "x has 3 columns and y has 2"),
        (lambda: gap.jsd_marginals(np.ones((9, 2)), np.ones((9, 2))), "all vectors are equal"),
        (lambda: gap.jsd_marginals(X, np.full((9, 3), np.nan)), "y"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
