"""The gap of means computed by hand."""

import numpy as np
import pytest

from keygap import gap
from keygap.errors import UserError

from .made_sides import sides


def test_modality_gap_by_hand():
    x, y, groups_x, groups_y = sides(4, shift=3.0, counts=(4, 4))
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y)]
    result = gap.modality_gap(x, y, groups_x, groups_y)
    assert result.gap == pytest.approx(np.linalg.norm(unit[0].mean(0) - unit[1].mean(0)))
    assert result.ci[0] < result.unbiased < result.ci[1]
    assert result.p_value == pytest.approx(1 / 1001)
    null = gap.modality_gap(*sides(5, counts=(4, 4)))
    assert null.gap > 0.0
    assert null.gap == pytest.approx(null.null, rel=0.6)
    scaled = gap.modality_gap(7 * x, y, groups_x, groups_y)
    assert scaled.gap == pytest.approx(result.gap)


def test_a_vector_of_length_zero_is_one_clear_line():
    x, y, groups_x, groups_y = sides(0, samples=6, counts=(4, 2))
    with pytest.raises(UserError, match="row 8 of x has length zero"):
        gap.modality_gap(x * (groups_x != 2)[:, None], y, groups_x, groups_y)
