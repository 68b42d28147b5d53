"""Vectors are judged by critics that never saw their samples, and chance wins where it should."""

import numpy as np
import pytest

from keygap import gap
from keygap.gap.core.components import pooled_components
from keygap.gap.core.cross_validation import FoldLogOdds, Task
from keygap.gap.core.held_out import _standard_error, balanced_mean, held_out, named_critics
from keygap.gap.core.inputs import two_sides

from ..made_sides import classified_sides, unequal_sides

LINEAR = named_critics(["linear"])


@pytest.mark.parametrize("paired", [True, False])
def test_folds_hold_whole_samples_of_both_sides(paired):
    x, y, groups_x, groups_y = unequal_sides(0, samples=13, paired=paired)
    sides = two_sides(x, y, groups_x, groups_y)
    task = Task.of(sides, sides.pooled, LINEAR, np.random.default_rng(0))
    unit = np.concatenate([groups_x, groups_y])
    for sample in np.unique(unit):
        assert len(set(task.fold[unit == sample])) == 1
    for k in range(5):
        assert set(task.label[task.fold == k]) == {True, False}


def test_log_odds_come_from_fits_without_the_fold_and_without_its_inner_fold():
    """Changing the labels of a fold must not change what is predicted for it."""
    sides = two_sides(*classified_sides(0, shift=1.0))
    task = Task.of(sides, sides.pooled, LINEAR, np.random.default_rng(0))
    found = FoldLogOdds.fit(task)
    flipped = Task(
        sides, task.z, task.critics, task.label ^ (task.fold == 2), task.weight, task.fold, 5
    )
    again = FoldLogOdds.fit(flipped)
    two, three = task.fold == 2, task.fold == 3
    np.testing.assert_array_equal(found.outer[two], again.outer[two])
    np.testing.assert_array_equal(found.inner[3][two], again.inner[3][two])
    np.testing.assert_array_equal(found.inner[2][three], again.inner[2][three])
    assert not np.allclose(found.outer[three], again.outer[three])
    assert np.isnan(found.inner[2][two]).all()


def test_no_critic_wins_by_chance():
    sides = two_sides(*classified_sides(1, rho=0.9))
    z = pooled_components(sides, 4).scores
    found = held_out(sides, z, named_critics(["linear", "quadratic"]), 0, np.random.default_rng(0))
    assert sum(found.wins.values()) == 5
    assert found.winner == "none"
    assert found.p_value == 1.0


def test_p_of_a_difference_and_of_none():
    p = {}
    for shift in (0.0, 2.0):
        sides = two_sides(*classified_sides(2, shift=shift))
        z = pooled_components(sides, 4).scores
        p[shift] = held_out(sides, z, LINEAR, 199, np.random.default_rng(0)).p_value
    assert p[2.0] == pytest.approx(1 / 200)
    assert p[0.0] > 0.05


@pytest.mark.parametrize("paired", [True, False])
def test_balanced_mean_and_its_interval(paired):
    """Samples and sides weigh the same; the interval is that of a mean of sample means."""
    x, y, groups_x, groups_y = unequal_sides(3, samples=60, paired=paired)
    sides = two_sides(x, y, groups_x, groups_y)
    values = sides.pooled[:, 0]
    mean, (low, high) = balanced_mean(values, sides, 4000, 0.95, np.random.default_rng(0))
    of_x = np.array([x[groups_x == s, 0].mean() for s in np.unique(groups_x)])
    of_y = np.array([y[groups_y == s, 0].mean() for s in np.unique(groups_y)])
    assert mean == pytest.approx(0.5 * (of_x.mean() + of_y.mean()))
    spread = np.var(of_x + of_y) if paired else np.var(of_x) + np.var(of_y)
    assert high - low == pytest.approx(2 * 1.96 * 0.5 * np.sqrt(spread / 60), rel=0.07)


@pytest.mark.parametrize(
    "names", [["network", "quadratic", "linear"], ["quadratic", "network", "linear"]]
)
def test_the_place_of_the_network_among_the_critics_changes_nothing(names):
    """Its columns come last, in cross-validation and in the prequential test."""
    sides = two_sides(*classified_sides(4, samples=30, shift=0.4))
    z = pooled_components(sides, 4).scores
    found, default = (
        held_out(sides, z, named_critics(order), 199, np.random.default_rng(0))
        for order in (names, ["quadratic", "linear", "network"])
    )
    assert found.p_value == default.p_value
    assert found.wins == default.wins
    np.testing.assert_array_equal(found.logits, default.logits)
    task = Task.of(sides, z, named_critics(names), np.random.default_rng(0))
    columns = FoldLogOdds.fit(task).names
    assert columns == (*["quadratic"] * 5, "linear", "network")
    early = (task.fold < 2)[None]
    alone = [task.log_odds(early, [name]) for name in dict.fromkeys(columns)]
    np.testing.assert_allclose(task.log_odds(early, columns), np.concatenate(alone, 2), atol=1e-5)


@pytest.mark.parametrize("paired", [True, False])
def test_the_standard_error_counts_a_paired_sample_once(paired):
    x, y, groups_x, groups_y = unequal_sides(5, samples=30, paired=paired)
    sides = two_sides(x, y, groups_x, groups_y)
    effect = np.random.default_rng(0).normal(size=30)  # good for x and bad for y
    terms = sides.pooled[:, 1] + np.concatenate([effect[groups_x], -effect[groups_y % 30]])
    train = np.concatenate([groups_x % 30, groups_y % 30]) < 24
    of_x, of_y = (
        np.array([values[groups % 30 == s].mean() for s in range(24)])
        for values, groups in ((terms[: len(x)], groups_x), (terms[len(x) :], groups_y))
    )
    both = np.var(of_x + of_y, ddof=1)
    apart = np.var(of_x, ddof=1) + np.var(of_y, ddof=1)
    assert both < 0.8 * apart
    expected = 0.5 * np.sqrt((both if paired else apart) / 24)
    assert _standard_error(terms[train], sides, train) == pytest.approx(expected)


def test_effects_of_samples_do_not_hide_a_shift_of_paired_sides():
    """The critic that sees it wins, though samples differ more than sides."""
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(20), 10)
    x, y = 3.0 * rng.normal(size=(20, 4))[ids] + rng.normal(size=(2, 200, 4))
    found = gap.jsd(x, y + 0.9 * np.eye(4)[0], ids, ids, critics=["linear"], n_permutations=0)
    assert found.estimator == "linear"
    assert gap.jsd(x, y, ids, ids, critics=["linear"], n_permutations=0).estimator == "none"
