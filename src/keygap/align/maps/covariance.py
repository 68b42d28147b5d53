"""Covariances of vectors, shrunk, and the powers of them that whitening and colouring need."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from sklearn.covariance import ledoit_wolf

from keygap.errors import UserError


def shrunk_covariance(
    vectors: Float[np.ndarray, "n d"], groups: np.ndarray, side: str
) -> Float[np.ndarray, "d d"]:
    """The covariance of vectors, shrunk towards a multiple of the identity.

    The weight of the identity is that of Ledoit and Wolf 2004, "A well-conditioned estimator for
    large-dimensional covariance matrices" (Journal of Multivariate Analysis 88). It is derived for
    independent vectors. Those of one sample are not, so the covariance is shrunk less than it
    should be.

    Args:
        vectors: at least one more than they have dimensions: the covariance of fewer is singular,
            and its shape would come from the shrinkage alone.
        groups: the sample of each vector.
        side: what the vectors are, for the message: ``image`` or ``text``.

    Raises:
        UserError: there are too few vectors.
    """
    count, dimensions = vectors.shape
    needed = dimensions + 1
    if count < needed:
        samples = len(np.unique(groups))
        raise UserError(
            f"{count} {side} tokens of {samples} samples are too few for a covariance of "
            f"{dimensions} dimensions: {needed} tokens are needed, which is about "
            f"{math.ceil(needed * samples / count)} samples"
        )
    covariance, _ = ledoit_wolf(vectors)
    return covariance


def power(matrix: Float[np.ndarray, "d d"], exponent: float) -> Float[np.ndarray, "d d"]:
    """A real power of a symmetric matrix without negative eigenvalues.

    Args:
        matrix: a covariance, or the product of covariances that is symmetric.
        exponent: such as 0.5; a negative one needs a matrix that is not singular.

    Raises:
        UserError: the exponent is negative and the matrix is singular.
    """
    values, vectors = np.linalg.eigh(matrix)
    values = np.maximum(values, 0.0)  # rounding takes an eigenvalue of 0 below it
    if exponent < 0 and not values[0] > len(values) * np.finfo(values.dtype).eps * values[-1]:
        raise UserError(
            "a covariance is singular, so its vectors cannot be whitened: use mean-shift, or fit "
            "on more samples"
        )
    return (vectors * values**exponent) @ vectors.T
