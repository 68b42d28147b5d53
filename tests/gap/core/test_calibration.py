"""Calibration recovers a known scale and gives nothing to log-odds that point the wrong way."""

import numpy as np
import pytest

from keygap.gap.core.calibration import LN2, Calibration, bound_terms


@pytest.fixture(scope="module")
def known():
    """True log-odds, labels drawn from them, and unequal weights that carry no information."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=1.5, size=40_000)
    label = rng.random(len(logits)) < 1 / (1 + np.exp(-logits))
    return logits, label, rng.uniform(0.5, 1.5, len(logits))


def test_a_wrong_scale_and_offset_are_undone(known):
    logits, label, weight = known
    distorted = np.column_stack([logits / 7, 3 * logits - 2.0])
    found = Calibration.fit(distorted, label, weight).apply(distorted)
    for column in found.T:
        np.testing.assert_allclose(column, logits, atol=0.2)


def test_log_odds_that_point_the_wrong_way_count_for_nothing(known):
    logits, label, weight = known
    found = Calibration.fit(-logits[:, None], label, weight).apply(-logits[:, None])
    assert not found.any()
    assert bound_terms(found[:, 0], label) == pytest.approx(np.zeros(len(label)))


def test_separable_sides_cost_little():
    label = np.arange(200) < 100
    log_odds = np.where(label, 50.0, -50.0)[:, None]
    found = Calibration.fit(log_odds, label, np.ones(200)).apply(log_odds)
    assert bound_terms(found[:, 0], label).mean() == pytest.approx(LN2, abs=0.001)


def test_terms_by_hand():
    logits, label = np.array([0.0, 1.0, -2.0]), np.array([True, False, False])
    p = 1 / (1 + np.exp(-logits))
    expected = np.log(2) + np.log([p[0], 1 - p[1], 1 - p[2]])
    np.testing.assert_allclose(bound_terms(logits, label), expected)
