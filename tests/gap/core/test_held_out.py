"""Vectors are judged by critics that never saw their samples, and chance wins where it should."""

import numpy as np
import pytest

from keygap.gap.core.components import pooled_components
from keygap.gap.core.cross_validation import FoldLogOdds, Task
from keygap.gap.core.held_out import balanced_mean, held_out, named_critics
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
