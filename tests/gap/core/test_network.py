"""The network sees planted shapes, learns from the training rows alone, and repeats by seed."""

import numpy as np
import pytest
import torch
from shapes import shape

from keygap import gap
from keygap.gap.core.critic import Rows
from keygap.gap.core.independent_axes import independent_axes
from keygap.gap.core.network import network_log_odds

from ..made_sides import classified_sides


def rows_of(name, d, n, seed=0):
    """Rows of a shape with unit variance, each of them a sample."""
    x, y = shape(name, d).draw(np.random.default_rng(seed), n)
    return Rows(np.concatenate([x, y]), np.arange(2 * n) < n, np.ones(2 * n), np.arange(2 * n))


def test_labels_outside_a_training_set_have_no_effect():
    rows = rows_of("ring", 3, 300)
    trains = np.stack([np.arange(600) % 3 != k for k in range(2)])
    flipped = Rows(rows.z, rows.label ^ (np.arange(600) % 3 == 0), rows.weight, rows.unit)
    before, after = network_log_odds(rows, trains), network_log_odds(flipped, trains)
    np.testing.assert_allclose(before[0], after[0], atol=1e-5)
    assert not np.allclose(before[1], after[1], atol=1e-2)


def test_too_few_samples_have_no_opinion():
    rows = rows_of("ring", 2, 100)
    few = Rows(rows.z, rows.label, rows.weight, np.arange(200) % 7)
    assert not network_log_odds(few, np.ones((1, 200), dtype=bool)).any()


def test_it_trains_in_inference_mode_and_repeats():
    rows, train = rows_of("ring", 2, 200), np.ones((1, 400), dtype=bool)
    first = network_log_odds(rows, train)
    with torch.inference_mode():
        again = network_log_odds(rows, train)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("name", ["ring", "one axis"])
def test_independent_axes_find_the_plane_of_a_shape(name):
    """Axes come in order, so the first ones span what was planted before the rotation."""
    planted = shape(name, 10)
    x, y = planted.draw(np.random.default_rng(1), 5000)
    z = np.concatenate([x, y])
    axes, strength = independent_axes(z)
    np.testing.assert_allclose(axes.T @ axes, np.eye(10), atol=1e-5)
    assert (np.diff(strength) <= 0).all()
    k = {"ring": 2, "one axis": 1}[name]
    rest = z @ axes
    rest[:, :k] = 0.0
    # Without the axes that were found, nothing of the planted log ratio is left.
    assert np.std(planted.log_ratio(rest @ axes.T)) < 0.2 * np.std(planted.log_ratio(z))


def test_it_does_not_compete_where_another_critic_saturates():
    found = gap.jsd(*classified_sides(0, shift=60.0), n_permutations=0)
    assert "network" not in found.nats_by_critic
    assert found.estimator != "network"


@pytest.mark.parametrize("groups", [20, 1])
def test_ring_around_a_blob(groups):
    """Equal means and covariances: no other critic sees it in ten dimensions."""
    planted = shape("ring", 10)
    x, y = planted.draw(np.random.default_rng(0), 4000)
    ids = np.arange(4000) // groups
    found = gap.jsd(x, y, ids, ids, n_permutations=0)
    truth = planted.jsd(50_000)
    assert 0.8 * truth < found.nats < truth + 0.02
    assert found.estimator == "network"
    assert found.nats_by_critic["quadratic"] < 0.02
