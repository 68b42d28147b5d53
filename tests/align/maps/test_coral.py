"""CORAL gives image vectors the mean and the covariance of text, by way of white vectors."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from sklearn.covariance import LedoitWolf

from keygap.align.maps.coral import coral, recolouring_matrix

from ..made_vectors import context_of
from .test_optimal_transport import sides


def test_it_has_the_roots_of_the_paper():
    image, text = sides(0)
    own = coral(image, text, context_of(image, text))
    source, target = (LedoitWolf().fit(side).covariance_ for side in (image, text))
    matrix = np.linalg.inv(scipy.linalg.sqrtm(source)) @ scipy.linalg.sqrtm(target)
    np.testing.assert_allclose(own.matrix, matrix, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(image.mean(0) @ matrix + own.shift, text.mean(0), atol=1e-10)


def test_without_shrinkage_mean_and_covariance_are_those_of_text():
    image, text = sides(1)
    matrix = recolouring_matrix(np.cov(image.T), np.cov(text.T))
    np.testing.assert_allclose(np.cov((image @ matrix).T), np.cov(text.T), atol=1e-8)
