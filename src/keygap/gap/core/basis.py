"""The basis in which the means and covariances of two sides differ most plainly.

If the pooled within-side covariance is I, then C_x = I + D and C_y = I - D share the eigenvectors
of D. They are the directions of sliced average variance estimation (Cook and Weisberg 1991).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import linalg

from keygap.gap.core.critic import Labels, Vectors, Weights
from keygap.gap.core.weights import weighted_moments

N_DIRECTIONS = 5
_RIDGE = 1e-3  # added to a covariance of unit scale


@dataclass(frozen=True)
class Basis:
    """Axes with within-side covariance I on which the difference D of covariances is diagonal.

    Attributes:
        axes: The axes as columns.
        eigenvalues: Of D, each in [-1, 1].
        mean_x: Mean of side x on the axes.
        mean_y: Mean of side y on the axes.
    """

    axes: Float[np.ndarray, "k k"]
    eigenvalues: Float[np.ndarray, " k"]
    mean_x: Float[np.ndarray, " k"]
    mean_y: Float[np.ndarray, " k"]

    @classmethod
    def fit(cls, z: Vectors, label: Labels, weight: Weights) -> Basis:
        """Find the axes.

        Args:
            z: Whitened components.
            label: Whether each row is on side x.
            weight: Weight of each row.

        Returns:
            The basis.
        """
        (mean_x, cov_x), (mean_y, cov_y) = (
            weighted_moments(z[side], weight[side] / weight[side].sum()) for side in (label, ~label)
        )
        within = 0.5 * (cov_x + cov_y) + _RIDGE * np.eye(z.shape[1])
        # Generalised problem D v = lambda W v: one call whitens W and diagonalises D.
        values, axes = linalg.eigh(0.5 * (cov_x - cov_y), within)
        return cls(axes, values, mean_x @ axes, mean_y @ axes)

    def directions(self) -> Float[np.ndarray, "k r"]:
        """The mean direction and those of the largest |eigenvalue|; all axes if they are few."""
        if len(self.eigenvalues) <= N_DIRECTIONS:
            return self.axes
        largest = np.argsort(-np.abs(self.eigenvalues - self.eigenvalues.mean()))[:N_DIRECTIONS]
        shift = self.axes @ (self.mean_x - self.mean_y)
        shift /= max(float(np.linalg.norm(self.mean_x - self.mean_y)), 1e-12)
        return np.column_stack([shift, self.axes[:, largest]])
