"""Principal components recover axes that a test planted."""

from __future__ import annotations

import numpy as np
import pytest

from keygap.projection import principal_components


@pytest.fixture
def planted():
    """Scores (200, 3) with variances 9, 4 and 1, and the vectors (200, 6) that they make."""
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(200, 3))
    scores = np.linalg.qr(raw - raw.mean(0))[0] * np.sqrt(200) * [3.0, 2.0, 1.0]
    axes = np.linalg.qr(rng.normal(size=(6, 3)))[0]
    return scores, scores @ axes.T + rng.normal(size=6)


def test_components_are_the_planted_scores_up_to_sign(planted):
    scores, vectors = planted
    found = principal_components(vectors, 2, seed=0)
    assert found.shape == (200, 2)
    signs = np.sign((found * scores[:, :2]).sum(0))
    np.testing.assert_allclose(found * signs, scores[:, :2], atol=1e-8)


@pytest.mark.parametrize(("shape", "expected"), [((200, 6), 6), ((4, 6), 4)])
def test_there_are_no_more_components_than_columns_or_rows(shape, expected):
    vectors = np.random.default_rng(0).normal(size=shape)
    assert principal_components(vectors, 50, seed=0).shape == (shape[0], expected)
