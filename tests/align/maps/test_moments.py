"""Mean shift, mean and variance, and norms: what they promise of the moved vectors."""

from __future__ import annotations

import numpy as np
import pytest

from keygap.align.maps.mean_shift import mean_shift
from keygap.align.maps.mean_variance import mean_variance
from keygap.align.maps.norms import norms
from keygap.errors import UserError

from ..made_vectors import context_of
from .test_optimal_transport import sides

IMAGE, TEXT = sides(0)
CONTEXT = context_of(IMAGE, TEXT)


def test_mean_shift_moves_the_mean_and_nothing_else():
    own = mean_shift(IMAGE, TEXT, CONTEXT)
    assert own.scale is own.matrix is None
    np.testing.assert_allclose((IMAGE + own.shift).mean(0), TEXT.mean(0), atol=1e-12)


def test_mean_variance_matches_every_dimension_and_keeps_correlations():
    own = mean_variance(IMAGE, TEXT, CONTEXT)
    moved = IMAGE * own.scale + own.shift
    np.testing.assert_allclose(moved.mean(0), TEXT.mean(0), atol=1e-12)
    np.testing.assert_allclose(moved.std(0), TEXT.std(0), atol=1e-12)
    np.testing.assert_allclose(np.corrcoef(moved.T), np.corrcoef(IMAGE.T), atol=1e-12)


def test_a_dimension_that_does_not_vary_cannot_be_scaled():
    constant = IMAGE.copy()
    constant[:, 2] = 1.0
    with pytest.raises(UserError, match="400 image tokens do not vary in dimension 2"):
        mean_variance(constant, TEXT, CONTEXT)


def test_norms_are_those_of_text_and_directions_stay():
    own = norms(IMAGE, TEXT, CONTEXT)
    moved = IMAGE * own.scale + own.shift
    lengths = [np.sqrt((side**2).sum(1)) for side in (moved, TEXT, IMAGE)]
    assert lengths[0].mean() == pytest.approx(lengths[1].mean())
    np.testing.assert_allclose(moved / lengths[0][:, None], IMAGE / lengths[2][:, None])
    with pytest.raises(UserError, match="all image vectors are zero"):
        norms(np.zeros((5, 6)), TEXT, CONTEXT)
