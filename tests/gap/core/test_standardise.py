"""Standardising weighs both sides the same, whatever their counts."""

from __future__ import annotations

import numpy as np

from keygap.gap.core.standardise import standardise


def test_standardise_weighs_both_sides_the_same():
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (50, 5)).astype(np.float32)
    y = rng.normal(-1.0, 1.0, (5000, 5)).astype(np.float32)
    a, b = standardise(x, y)
    np.testing.assert_allclose(a.mean(0) + b.mean(0), 0, atol=1e-5)
    second = (a.astype(np.float64) ** 2).mean(0) + (b.astype(np.float64) ** 2).mean(0)
    np.testing.assert_allclose(second, 2, rtol=1e-5)


def test_a_constant_column_becomes_zero():
    x = np.ones((10, 2), np.float32)
    a, b = standardise(x, x)
    assert not a.any()
    assert not b.any()
