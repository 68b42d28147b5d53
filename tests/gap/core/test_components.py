"""Components against a plain decomposition, and what the vectors do not have."""

import numpy as np
import pytest

from keygap import gap
from keygap.errors import UserError
from keygap.gap.core import components
from keygap.gap.core.components import pooled_components
from keygap.gap.core.inputs import two_sides

from ..made_sides import sides as made

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5))
Y = RNG.normal(size=(12, 5))
GX, GY = np.repeat(np.arange(6), 4), np.repeat(np.arange(6), 2)


def test_equal_to_a_singular_value_decomposition():
    scale = np.array([3.0, 2.0, 1.0, 0.5, 0.2])
    sides = two_sides(X * scale, Y * scale, GX, GY)
    found = pooled_components(sides, 3)
    pooled = np.concatenate([X * scale, Y * scale])
    values = np.linalg.svd(pooled - pooled.mean(0), compute_uv=False) ** 2 / len(pooled)
    np.testing.assert_allclose(found.variance, values[:3])
    np.testing.assert_allclose(found.explained, values[:3] / values.sum())
    np.testing.assert_allclose((found.scores**2).mean(0), 1.0)
    np.testing.assert_allclose(found.scores.mean(0), 0.0, atol=1e-12)


def test_few_components_of_wide_vectors_equal_those_of_all(monkeypatch):
    sides = two_sides(*made(0, d=60, shift=3.0))
    whole = pooled_components(sides, 4)
    monkeypatch.setattr(components, "_LANCZOS_FROM", 10)
    few = pooled_components(sides, 4)
    np.testing.assert_allclose(few.variance, whole.variance)
    np.testing.assert_allclose(np.abs(few.scores), np.abs(whole.scores), atol=1e-8)


def test_constant_columns():
    """They do not matter to distances, but there are fewer components to ask for."""
    still = np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    assert gap.jsd(X * still, Y * still, GX, GY).dims == 3
    assert np.isfinite(gap.mmd(X * still, Y * still, GX, GY).mmd2)
    sides = two_sides(X * still, Y * still, GX, GY)
    assert pooled_components(sides, 5, allow_fewer=True).available == 3
    with pytest.raises(UserError, match="vary in 3 directions only"):
        gap.jsd(X * still, Y * still, GX, GY, dims=5)


def test_few_vectors_for_the_components():
    wide = RNG.normal(size=(16, 40))
    with pytest.raises(UserError, match="20 components from 16 vectors: ask for at most 15"):
        gap.jsd(wide[:8], wide[8:], np.arange(8), np.arange(8), dims=20)
