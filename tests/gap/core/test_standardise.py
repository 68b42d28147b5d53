"""Common units give both sides the same weight."""

import numpy as np
import pytest

from keygap.gap.core.standardise import standardise


@pytest.mark.filterwarnings("error")
def test_sides_weigh_the_same_and_constants_become_zero():
    x, y = np.zeros((2, 2)), np.zeros((200, 2))
    x[:, 0], y[:, 0] = 1.0, 5.0
    x[:, 1] = y[:, 1] = 7.0
    scaled_x, scaled_y = standardise(x, y)
    np.testing.assert_allclose(scaled_x[:, 0], -1.0)
    np.testing.assert_allclose(scaled_y[:, 0], 1.0)
    np.testing.assert_allclose(scaled_x[:, 1], 0.0, atol=1e-12)
    np.testing.assert_allclose(scaled_y[:, 1], 0.0, atol=1e-12)


def test_both_sides_together_have_mean_0_and_deviation_1():
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (50, 5)).astype(np.float32)
    y = rng.normal(-1.0, 1.0, (5000, 5)).astype(np.float32)
    a, b = standardise(x, y)
    np.testing.assert_allclose(a.mean(0) + b.mean(0), 0, atol=1e-5)
    second = (a.astype(np.float64) ** 2).mean(0) + (b.astype(np.float64) ** 2).mean(0)
    np.testing.assert_allclose(second, 2, rtol=1e-5)
