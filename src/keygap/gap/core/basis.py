"""The basis in which the means and covariances of two sides differ most plainly.

If the pooled within-side covariance is I, then C_x = I + D and C_y = I - D share the eigenvectors
of D. They are the directions of sliced average variance estimation (Cook and Weisberg 1991).

Training sets of cross-validation overlap, so the moments of the rows that the same sets hold are
added up once, and those of a set are a sum of a few such parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from keygap.gap.core.critic import Rows, Trains

N_DIRECTIONS = 5
_RIDGE = 1e-3  # added to a covariance of unit scale


@dataclass(frozen=True)
class Basis:
    """Axes with within-side covariance I on which the difference D of covariances is diagonal.

    Attributes:
        axes: The axes of each training set as columns.
        eigenvalues: Of D, each in [-1, 1].
        mean_x: Mean of side x on the axes.
        mean_y: Mean of side y on the axes.
    """

    axes: Float[np.ndarray, "*heads sets k k"]
    eigenvalues: Float[np.ndarray, "*heads sets k"]
    mean_x: Float[np.ndarray, "*heads sets k"]
    mean_y: Float[np.ndarray, "*heads sets k"]

    @classmethod
    def fit(cls, rows: Rows, trains: Trains) -> Basis:
        """Find the axes of each training set.

        Args:
            rows: The pooled vectors and what is known of them.
            trains: The rows of each training set.

        Returns:
            The basis of each set, for each head.
        """
        part, held = _parts(trains)
        (mean_x, cov_x), (mean_y, cov_y) = (
            _moments(rows, part, held, side) for side in (rows.label, ~rows.label)
        )
        within = 0.5 * (cov_x + cov_y) + _RIDGE * np.eye(rows.z.shape[-1])
        # The generalised problem D v = lambda W v: whiten W, then diagonalise D.
        whitening = np.linalg.inv(np.linalg.cholesky(within))
        transposed = np.swapaxes(whitening, -1, -2)
        values, axes = np.linalg.eigh(whitening @ (0.5 * (cov_x - cov_y)) @ transposed)
        axes = transposed @ axes
        on_axes = [(mean[..., None, :] @ axes)[..., 0, :] for mean in (mean_x, mean_y)]
        return cls(axes, values, *on_axes)

    def directions(self) -> Float[np.ndarray, "*heads sets k r"]:
        """The mean direction and those of the largest |eigenvalue|; all axes if they are few."""
        if self.eigenvalues.shape[-1] <= N_DIRECTIONS:
            return self.axes
        far = np.abs(self.eigenvalues - self.eigenvalues.mean(-1, keepdims=True))
        largest = np.argsort(-far, axis=-1)[..., None, :N_DIRECTIONS]
        gap = self.mean_x - self.mean_y
        gap = gap / np.maximum(np.linalg.norm(gap, axis=-1, keepdims=True), 1e-12)
        shift = self.axes @ gap[..., None]
        return np.concatenate([shift, np.take_along_axis(self.axes, largest, axis=-1)], axis=-1)


def _parts(trains: Trains) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, "parts sets"]]:
    """Part of each row, and which sets hold each part; rows of a part are in the same sets."""
    codes = np.packbits(trains, axis=0).T
    _, first, part = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    return part.ravel(), trains[:, first].T


def _moments(
    rows: Rows,
    part: Int[np.ndarray, " n"],
    held: Bool[np.ndarray, "parts sets"],
    side: Bool[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, "*heads sets k"], Float[np.ndarray, "*heads sets k k"]]:
    """Weighted mean and covariance of one side of each training set."""
    *heads, _, k = rows.z.shape
    totals = np.zeros(len(held))
    first = np.zeros((*heads, len(held), k))
    second = np.zeros((*heads, len(held), k * k))
    for p in range(len(held)):
        chosen = side & (part == p)
        z, weight = rows.z[..., chosen, :], rows.weight[chosen]
        totals[p] = weight.sum()
        first[..., p, :] = weight @ z
        scaled = np.swapaxes(z * weight[:, None], -1, -2)
        second[..., p, :] = (scaled @ z).reshape(*heads, k * k)
    of_set = held.T / (held.T @ totals)[:, None]
    mean = of_set @ first
    square = (of_set @ second).reshape(*heads, held.shape[1], k, k)
    return mean, square - mean[..., :, None] * mean[..., None, :]
