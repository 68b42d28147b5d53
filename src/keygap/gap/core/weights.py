"""Means and moments in which every sample counts the same, whatever its number of vectors.

A sample with many tokens must not outweigh one with few, so a mean over a side is the mean of its
sample means. Everything here is that mean, written as weights of single vectors.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse


def sample_weights(sample: Int[np.ndarray, " n"], n_samples: int) -> Float[np.ndarray, " n"]:
    """Weights of vectors that give every sample the same total.

    Args:
        sample: Sample index of each vector, in [0, n_samples).
        n_samples: Number of samples; each has at least one vector.

    Returns:
        One weight per vector, summing to 1.
    """
    counts = np.bincount(sample, minlength=n_samples)
    return 1.0 / (n_samples * counts[sample])


def mean_by_sample(
    values: Float[np.ndarray, "n ..."], sample: Int[np.ndarray, " n"], n_samples: int
) -> Float[np.ndarray, "samples ..."]:
    """Mean of the values of each sample.

    Args:
        values: One value (n,) or one row (n, d) per vector.
        sample: Sample index of each vector, in [0, n_samples).
        n_samples: Number of samples; each has at least one vector.

    Returns:
        Means in float64, in the order of the sample indices.
    """
    counts = np.bincount(sample, minlength=n_samples)
    rows = (1.0 / counts[sample], (sample, np.arange(len(sample))))
    return sparse.csr_array(rows, shape=(n_samples, len(sample))) @ values


def mean_of_present(
    values: Float[np.ndarray, "n ..."], sample: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "samples ..."]:
    """Mean of the values of each sample that occurs.

    Args:
        values: One value (n,) or one row (n, d) per vector.
        sample: Sample index of each vector; indices may be missing.

    Returns:
        Means in float64, in the order of the indices that occur.
    """
    present, index = np.unique(sample, return_inverse=True)
    return mean_by_sample(values, index, len(present))


def weighted_moments(
    values: Float[np.ndarray, "n d"], weights: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """Weighted mean and covariance (maximum likelihood, not divided by n - 1).

    Args:
        values: Vectors, shape (n, d).
        weights: Weight of each vector; they sum to 1.

    Returns:
        The mean and the covariance, in float64.
    """
    mean = weights @ values.astype(np.float64)
    centred = values - mean
    return mean, centred.T @ (centred * weights[:, None])
