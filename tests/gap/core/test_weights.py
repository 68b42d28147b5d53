"""Means of samples and weighted moments, computed by hand."""

import numpy as np
import pytest

from keygap.gap.core.weights import (
    mean_by_sample,
    mean_of_present,
    sample_weights,
    weighted_moments,
)

SAMPLE = np.array([1, 0, 1, 1, 2])
VALUES = np.array([1.0, 5.0, 2.0, 3.0, 7.0])


def test_means_of_samples():
    np.testing.assert_allclose(mean_by_sample(VALUES, SAMPLE, 3), [5.0, 2.0, 7.0])
    rows = np.column_stack([VALUES, -VALUES])
    np.testing.assert_allclose(mean_by_sample(rows, SAMPLE, 3)[:, 1], [-5.0, -2.0, -7.0])
    np.testing.assert_allclose(mean_of_present(VALUES[:4], SAMPLE[:4] + 3), [5.0, 2.0])


def test_a_weighted_mean_is_the_mean_of_sample_means():
    assert sample_weights(SAMPLE, 3) @ VALUES == pytest.approx((5.0 + 2.0 + 7.0) / 3)


def test_moments_with_whole_weights_equal_repeated_vectors():
    values = np.random.default_rng(0).normal(size=(4, 3))
    repeats = np.array([1, 3, 2, 2])
    mean, covariance = weighted_moments(values, repeats / repeats.sum())
    repeated = np.repeat(values, repeats, axis=0)
    np.testing.assert_allclose(mean, repeated.mean(0))
    np.testing.assert_allclose(covariance, np.cov(repeated.T, bias=True))
