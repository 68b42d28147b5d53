"""The JSD by nearest neighbours against scikit-learn, loops and integrals, and where it fails."""

import importlib
import math
from collections import Counter

import numpy as np
import pytest
import torch
from planted import tokens
from scipy import stats
from scipy.integrate import quad
from scipy.special import digamma
from sklearn.feature_selection import mutual_info_classif

from keygap import gap
from keygap.errors import UserError

from .made_sides import sides as made_sides
from .made_sides import unequal_sides

LN2 = math.log(2.0)


def looped(x, y, k):
    """Local terms of sides of equal size, by sorting all distances of one vector at a time."""
    both = [(tuple(v), "x") for v in x] + [(tuple(v), "y") for v in y]
    terms = []
    for i, (vector, side) in enumerate(both):
        others = sorted(
            (math.dist(vector, other), of) for j, (other, of) in enumerate(both) if j != i
        )
        of_own = [rank for rank, (_, of) in enumerate(others, start=1) if of == side]
        terms.append(digamma(len(both)) - digamma(len(x)) + digamma(k) - digamma(of_own[k - 1]))
    return np.array(terms)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("n", [20, 500])
def test_equals_scikit_learn_in_one_dimension(n, k):
    rng = np.random.default_rng([n, k])
    x, y = rng.normal(size=(n, 1)), 1.5 * rng.normal(size=(n, 1)) + 1.0
    found = gap.jsd_neighbours(x, y, neighbours=k, n_permutations=0)
    (expected,) = mutual_info_classif(
        np.concatenate([x, y]), np.repeat([0, 1], n), n_neighbors=k, random_state=0
    )
    assert expected > 0.0  # scikit-learn clips at 0
    assert found.raw_nats == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("k", [1, 4])
def test_equals_a_loop_over_the_kept_rows(k, paired):
    """Unequal sides and samples: terms, weights and estimate by hand from the kept rows."""
    x, y, groups_x, groups_y = unequal_sides(0, samples=14, d=3, paired=paired)
    found = gap.jsd_neighbours(x, y, groups_x, groups_y, neighbours=k)
    assert len(x) > len(y) == found.n_each
    np.testing.assert_array_equal(found.kept_y, np.arange(len(y)))
    assert len(set(found.kept_x.tolist())) == found.n_each
    assert (np.diff(found.kept_x) > 0).all()
    expected = looped(x[found.kept_x], y, k)
    np.testing.assert_allclose(found.terms, expected, rtol=1e-12)
    means = []
    for terms, ids in (
        (expected[: found.n_each], groups_x[found.kept_x]),
        (expected[found.n_each :], groups_y),
    ):
        means.append(np.mean([terms[ids == sample].mean() for sample in set(ids.tolist())]))
    assert found.raw_nats == pytest.approx(np.mean(means))
    assert found.nats == pytest.approx(min(max(np.mean(means), 0.0), LN2))
    assert found.bits == pytest.approx(found.nats / LN2)
    assert found.null_bits == pytest.approx(found.null_nats / LN2)
    # Samples take turns: no sample keeps two more vectors than one that still had some to give.
    kept, had = Counter(groups_x[found.kept_x].tolist()), Counter(groups_x.tolist())
    assert kept.keys() == had.keys()
    most = max(kept.values())
    assert all(kept[s] >= min(had[s], most - 1) for s in had)


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_truth_in_one_dimension_by_an_integral(shift):
    def integrand(z):
        p, q = stats.norm.pdf(z), stats.norm.pdf(z, shift)
        middle = (p + q) / 2
        return 0.5 * (p * math.log(p / middle) + q * math.log(q / middle))

    truth, _ = quad(integrand, -8.0, 8.0 + shift)
    rng = np.random.default_rng(int(10 * shift))
    values = [
        gap.jsd_neighbours(
            rng.normal(size=(200, 1)), rng.normal(size=(200, 1)) + shift, n_permutations=0
        ).raw_nats
        for _ in range(40)
    ]
    error = float(np.std(values, ddof=1)) / math.sqrt(40)
    assert np.mean(values) == pytest.approx(truth, abs=4 * error)
    assert error < 0.006


def test_sides_that_never_overlap_in_closed_form():
    """Every neighbour is of the own side, so each term is psi(2 n) - psi(n), just above ln 2."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 4)) + 50.0
    found = gap.jsd_neighbours(x, y)
    harmonic = sum(1.0 / i for i in range(30, 60))  # psi(60) - psi(30)
    np.testing.assert_allclose(found.terms, harmonic, rtol=1e-12)
    assert found.raw_nats == pytest.approx(harmonic)
    assert harmonic > LN2
    assert found.nats == LN2
    assert found.bits == 1.0
    assert found.p_value == pytest.approx(1 / 21)


def test_a_known_layout_by_hand():
    """Four vectors of each side on a line: the ranks are counted by eye."""
    x = np.array([[0.0], [1.0], [3.0], [7.0]])
    y = np.array([[0.4], [2.2], [4.5], [5.9]])
    # The nearest of the own side: 0 to 1, 1 to 0, 3 to 1, 7 to 3, 0.4 to 2.2, 2.2 to 0.4, ...
    ranks = np.array([2, 2, 3, 3, 3, 3, 1, 2])
    found = gap.jsd_neighbours(x, y, neighbours=1, n_permutations=0)
    np.testing.assert_allclose(
        found.terms, digamma(8) - digamma(4) + digamma(1) - digamma(ranks), rtol=1e-12
    )


@pytest.mark.parametrize(("listed", "block"), [(1, 512), (2, 7), (10_000, 64)])
def test_lists_and_blocks_do_not_matter(listed, block, monkeypatch):
    """One side is wide, so many of its vectors have no neighbour of their own side in the list."""
    x, y, groups_x, groups_y = made_sides(2, samples=20, d=8, scale=1.6, counts=(7, 5))
    base = gap.jsd_neighbours(x, y, groups_x, groups_y)
    module = importlib.import_module("keygap.gap.jsd_neighbours")  # the package has the function
    monkeypatch.setattr(module, "_LISTED", listed)
    monkeypatch.setattr(module, "_BLOCK", block)
    again = gap.jsd_neighbours(x, y, groups_x, groups_y)
    np.testing.assert_array_equal(again.terms, base.terms)
    assert again == base


@pytest.mark.parametrize("k", [1, 5])
def test_copies_are_ranked_at_random(k):
    """All vectors are one of four points, with equal shares on both sides at first."""
    rng = np.random.default_rng(3)
    points = rng.normal(size=(4, 6))
    values = []
    for seed in range(60):
        x, y = points[rng.integers(0, 4, 80)], points[rng.integers(0, 4, 80)]
        values.append(gap.jsd_neighbours(x, y, neighbours=k, n_permutations=0, seed=seed).raw_nats)
    error = np.std(values, ddof=1) / math.sqrt(60)
    assert abs(np.mean(values)) < 4 * error < 0.05
    # Unequal shares: the truth is that of two discrete distributions.
    p, q = np.array([0.4, 0.4, 0.1, 0.1]), np.array([0.1, 0.1, 0.4, 0.4])
    truth = 0.5 * (stats.entropy(p, (p + q) / 2) + stats.entropy(q, (p + q) / 2))
    x, y = (np.repeat(points, (500 * share).astype(int), axis=0) for share in (p, q))
    found = gap.jsd_neighbours(x, y, neighbours=k, n_permutations=0)
    assert found.raw_nats == pytest.approx(truth, abs=0.06)


def test_order_origin_rotation_units_and_names_do_not_matter():
    rng = np.random.default_rng(4)
    x, y, groups_x, groups_y = made_sides(4, samples=12, d=5, shift=0.7, counts=(4, 4))
    base = gap.jsd_neighbours(x, y, groups_x, groups_y)
    order = rng.permutation(len(x))
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    moved = gap.jsd_neighbours(
        3.0 * x[order] @ turn + 100.0,
        3.0 * y @ turn + 100.0,
        [f"sample {g:02d}" for g in groups_x[order]],
        [f"sample {g:02d}" for g in groups_y],
    )
    n = len(x)
    np.testing.assert_allclose(moved.terms[:n], base.terms[order], rtol=1e-12)
    np.testing.assert_allclose(moved.terms[n:], base.terms[n:], rtol=1e-12)
    assert moved.raw_nats == pytest.approx(base.raw_nats)
    back = gap.jsd_neighbours(y, x, groups_y, groups_x)
    np.testing.assert_allclose(back.terms, np.roll(base.terms, n), rtol=1e-12)
    single = gap.jsd_neighbours(
        torch.tensor(x).float(), torch.tensor(y).float(), torch.tensor(groups_x), groups_y
    )
    assert single.raw_nats == pytest.approx(base.raw_nats, abs=0.01)
    assert gap.jsd_neighbours(x, y, groups_x, groups_y) == base


def test_the_larger_side_may_have_more_samples_than_the_smaller_has_vectors():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(90, 2)), rng.normal(size=(25, 2))
    for groups in ((None, None), (np.arange(90), np.repeat(np.arange(100, 105), 5))):
        found = gap.jsd_neighbours(x, y, *groups, neighbours=3, seed=1)
        assert found.n_each == len(found.kept_x) == 25
        np.testing.assert_allclose(found.terms, looped(x[found.kept_x], y, 3), rtol=1e-12)
        assert found.raw_nats == pytest.approx(
            0.5 * (found.terms[:25].mean() + found.terms[25:].mean())
        )
        assert not np.array_equal(
            found.kept_x, gap.jsd_neighbours(x, y, *groups, neighbours=3, seed=2).kept_x
        )


@pytest.mark.parametrize("paired", [True, False])
def test_swaps_equal_moving_the_samples(paired):
    """Equal counts, so a swap needs no thinning: the null is that of sides swapped by hand."""
    x, y, groups_x, groups_y = made_sides(6, samples=4, d=2, shift=1.0, counts=(3, 3))
    both = np.concatenate([x, y])
    ids = np.concatenate([groups_x, groups_y + 4])
    possible = []
    for code in range(2**8):
        on_x = np.array([code >> s & 1 for s in range(8)], dtype=bool)
        if on_x.sum() != 4 or (paired and (on_x[:4] == on_x[4:]).any()):
            continue
        terms = looped(both[on_x[ids]], both[~on_x[ids]], 2)
        possible.append(min(max(terms.mean(), 0.0), LN2))
    nulls = [
        gap.jsd_neighbours(
            x, y, groups_x, groups_y if paired else groups_y + 4,
            neighbours=2, n_permutations=1, seed=seed,
        ).null_nats
        for seed in range(150)
    ]  # fmt: skip
    assert np.abs(np.array(nulls)[:, None] - np.array(possible)).min(1).max() < 1e-12
    distinct = len(np.unique(np.round(possible, 10)))
    assert len(np.unique(np.round(nulls, 10))) > 0.6 * distinct > 2


def test_swapped_sides_have_equal_numbers_again():
    """Every sample of a side is a cluster apart, so the estimate is psi(2 n) - psi(n) at any n.

    That falls with n. A swap changes how many vectors the sides have, and the smaller has at most
    as many as before, so no value under swaps is below the observed one.
    """
    rng = np.random.default_rng(10)
    few_many = np.array([2, 6] * 3)
    (x, groups_x), (y, groups_y) = (tokens(rng, counts, 3, 0.0) for counts in
                                    (few_many, few_many[::-1]))  # fmt: skip
    x += 100.0 * groups_x[:, None]
    y += 100.0 * groups_y[:, None] + 1000.0
    for seed in range(20):
        found = gap.jsd_neighbours(x, y, groups_x, groups_y, neighbours=1, seed=seed)
        assert found.raw_nats == pytest.approx(digamma(48) - digamma(24))
        assert found.p_value == 1.0


@pytest.mark.parametrize("paired", [True, False])
def test_type_one_error(paired):
    rejected = []
    for seed in range(200):
        rng = np.random.default_rng([seed, paired])
        x, groups_x = tokens(rng, rng.choice([1, 9], 12), 3, 0.3)
        y, groups_y = tokens(rng, rng.choice([1, 9], 12), 3, 0.3)
        groups_y = groups_y if paired else groups_y + 12
        found = gap.jsd_neighbours(
            x, y, groups_x, groups_y, neighbours=3, n_permutations=19, seed=seed
        )
        rejected.append(found.p_value <= 0.05)
    assert 0.004 <= np.mean(rejected) <= 0.096  # three standard errors of 200 simulations


def test_vectors_of_one_sample_raise_it_and_its_null():
    """Without a difference the nearest vectors are of the same sample, and so of the same side."""
    x, y, groups_x, groups_y = made_sides(7, samples=40, d=10, rho=0.9, counts=(8, 8))
    found = gap.jsd_neighbours(x, y, groups_x, groups_y)
    assert found.nats > 0.6
    assert found.null_nats == pytest.approx(found.nats, abs=0.02)
    assert found.p_value > 0.05


def test_bias_in_many_dimensions():
    """As the docstring states: a side twice as wide in 50 dimensions reads less than nothing."""
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(300, 50)), 2.0 * rng.normal(size=(300, 50))
    found = gap.jsd_neighbours(x, y)
    assert found.raw_nats < -0.5  # the truth is 0.69
    assert found.nats == 0.0
    assert found.p_value == 1.0
    assert gap.jsd_neighbours(x[:, :2], y[:, :2]).raw_nats == pytest.approx(0.17, abs=0.06)


def test_reading_and_no_swaps():
    sides = unequal_sides(9, shift=3.0)
    found = gap.jsd_neighbours(*sides)
    (reading,) = found.readings
    assert (reading.name, reading.value) == ("jsd_neighbours", found.nats)
    assert (reading.null, reading.p_value) == (found.null_nats, found.p_value)
    assert reading.settings == {"neighbours": 5, "n_each": found.n_each}
    without = gap.jsd_neighbours(*sides, n_permutations=0)
    assert without.raw_nats == found.raw_nats  # whatever the number of swaps
    assert (without.null_nats, without.p_value) == (0.0, 1.0)
    assert (without.readings[0].null, without.readings[0].p_value) == (None, None)


X = np.random.default_rng(0).normal(size=(10, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gap.jsd_neighbours(X, X, neighbours=0), "neighbours is 0: give at least 1"),
        (
            lambda: gap.jsd_neighbours(X, X[:5]),
            "5 neighbours on a side of 5 vectors: ask for at most 4, or give more vectors",
        ),
        (lambda: gap.jsd_neighbours(X, X[:, :2]), "x has 3 columns and y has 2"),
        (lambda: gap.jsd_neighbours(np.ones((9, 2)), np.ones((9, 2))), "all vectors are equal"),
        (lambda: gap.jsd_neighbours(X, X[:3]), "3 samples"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
