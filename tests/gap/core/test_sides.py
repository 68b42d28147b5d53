"""The coordinates of two sides, each computed once."""

import numpy as np
import pytest

from keygap import gap
from keygap.errors import UserError

from ..made_sides import sides as made


@pytest.fixture(scope="module")
def sides():
    x, y, groups_x, groups_y = made(0, samples=30, d=64, counts=(5, 4))
    return gap.Sides(x * np.linspace(1, 9, 64), y + 0.5, groups_x, groups_y)


def test_standardised_by_hand(sides):
    pooled = np.concatenate([sides.x, sides.y])
    weight = np.repeat([0.5 / len(sides.x), 0.5 / len(sides.y)], [len(sides.x), len(sides.y)])
    centred = pooled - weight @ pooled
    scaled = centred / np.sqrt(weight @ centred**2)
    np.testing.assert_allclose(np.concatenate(sides.standardised), scaled, atol=1e-5)
    assert sides.standardised[0].dtype == np.float32


def test_components_keep_distances(sides):
    """All components of few columns are a rotation of the standardised vectors."""
    few = gap.Sides(sides.x[:, :8], sides.y[:, :8], *sides.groups)
    apart = [
        np.linalg.norm(pair[0][:, None] - pair[1], axis=2)
        for pair in (few.standardised, few.components)
    ]
    np.testing.assert_allclose(apart[0], apart[1], rtol=1e-4)
    assert sides.components[0].shape == (len(sides.x), 50)


def test_each_is_computed_once(sides):
    assert sides.standardised is sides.standardised
    assert sides.components is sides.components
    assert sides.raw[0] is sides.x


def test_equal_vectors_have_no_components():
    groups = np.arange(6)
    with pytest.raises(UserError, match="all vectors are equal"):
        _ = gap.Sides(np.ones((6, 3)), np.ones((6, 3)), groups, groups).components
