"""t-SNE keeps neighbours, repeats with its seed and refuses too few points."""

from __future__ import annotations

import numpy as np
import pytest

from keygap.errors import UserError
from keygap.projection import tsne


@pytest.fixture(scope="module")
def clusters():
    """Two clusters of 100 points, far apart in 10 dimensions."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(0, 1, (100, 10)), rng.normal(30, 1, (100, 10))])


@pytest.fixture(scope="module")
def coordinates(clusters):
    return tsne(clusters, perplexity=20, seed=0)


def test_every_nearest_neighbour_is_of_the_same_cluster(coordinates):
    assert coordinates.shape == (200, 2)
    distance = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_array_equal(distance.argmin(1) >= 100, np.arange(200) >= 100)


def test_the_same_seed_gives_the_same_coordinates(clusters, coordinates):
    np.testing.assert_array_equal(coordinates, tsne(clusters, perplexity=20, seed=0))


def test_too_few_points_are_refused_in_one_line():
    with pytest.raises(UserError) as error:
        tsne(np.zeros((90, 3)), perplexity=30)
    assert str(error.value) == (
        "90 tokens are too few for t-SNE with perplexity 30: more than 90 are needed; "
        "raise --tokens, extract more with --samples, or lower the perplexity"
    )
