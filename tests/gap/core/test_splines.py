"""Splines of many columns equal scipy's of each column."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from keygap.gap.core.splines import cubic_splines


@pytest.mark.parametrize("spacing", [0.5, 1e-3])
def test_equals_scipy(spacing):
    rng = np.random.default_rng(0)
    knots = np.cumsum(spacing * rng.uniform(0.5, 2.0, (3, 7)), axis=1)
    values = rng.uniform(knots[:, :1], knots[:, -1:], (3, 200))
    values[:, :7] = knots
    values[:, 7:9] = knots[:, [0, -1]] + [-1.0, 1.0]
    found = cubic_splines(torch.from_numpy(values), torch.from_numpy(knots)).numpy()
    assert found.shape == (3, 9, 200)
    for own, of_column, splines in zip(knots, values, found, strict=True):
        first, last = own[1] - own[0], own[-1] - own[-2]
        every = [own[0] - step * first for step in (3, 2, 1)]
        every += [*own, *(own[-1] + step * last for step in (1, 2, 3))]
        expected = BSpline(np.array(every), np.eye(9), 3)(np.clip(of_column, own[0], own[-1]))
        np.testing.assert_allclose(splines, expected.T, atol=2e-5)
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-5)
