"""Frechet distance between the Gaussians fitted to two sides.

    |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x^1/2 C_y C_x^1/2)^1/2)

Dowson and Landau 1982; in squared units of the vectors, not rooted, as FID and MIR use it. It sees
means and covariances only, and it is biased upward where vectors are few for their width, so it
stands beside its own null: the same number under swaps of whole samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import linalg

from keygap.errors import UserError
from keygap.gap.core.inputs import Groups, TwoSides, Vectors, sample_weights, two_sides
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import p_value, swap_labels
from keygap.gap.core.statistic import Statistic


@dataclass(frozen=True)
class FrechetResult:
    """Frechet distance (squared units), its two parts, and what it reads without a gap."""

    distance: float
    from_means: float
    from_covariances: float
    null: float  # mean over label swaps
    p_value: float
    paired: bool
    dims: int
    n_x: int
    n_y: int
    n_permutations: int
    seed: int

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The distance and its two parts."""
        return (
            Reading(
                "frechet",
                self.distance,
                "Frechet distance of the Gaussians fitted to the two sides, squared units",
                null=self.null,
                p_value=self.p_value,
                dims=self.dims,
            ),
            Reading("frechet_from_means", self.from_means, "its part of the means", dims=self.dims),
            Reading(
                "frechet_from_covariances",
                self.from_covariances,
                "its part of the covariances",
                dims=self.dims,
            ),
        )


def frechet(
    x: Vectors,
    y: Vectors,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    paired: bool | None = None,
    n_permutations: int = 20,
    seed: int = 0,
) -> FrechetResult:
    """Frechet distance between x (n, d) and y (m, d), samples of a side weighing the same.

    Raises UserError: bad vectors or ids (see `inputs.two_sides`), a side whose vectors are all
    equal. O(permutations ((n + m) d^2 + d^3)).
    """
    sides = two_sides(x, y, groups_x, groups_y, paired)
    for name, values in (("x", sides.x), ("y", sides.y)):
        if not np.ptp(values, axis=0).any():
            raise UserError(f"all vectors of {name} are equal: a Gaussian cannot be fitted")
    means, covariances = _parts(sides)
    rng = np.random.default_rng(seed)
    null = np.array([sum(_parts(swap_labels(sides, rng))) for _ in range(n_permutations)])
    return FrechetResult(
        distance=means + covariances,
        from_means=means,
        from_covariances=covariances,
        null=float(null.mean()) if n_permutations else 0.0,
        p_value=p_value(means + covariances, null),
        paired=sides.paired,
        dims=sides.x.shape[1],
        n_x=len(sides.x),
        n_y=len(sides.y),
        n_permutations=n_permutations,
        seed=seed,
    )


def _parts(sides: TwoSides) -> tuple[float, float]:
    mean_x, cov_x = weighted_moments(sides.x, sample_weights(sides.sample_x, sides.n_samples_x))
    mean_y, cov_y = weighted_moments(sides.y, sample_weights(sides.sample_y, sides.n_samples_y))
    return gaussian_frechet(mean_x, cov_x, mean_y, cov_y)


def weighted_moments(
    values: Float[np.ndarray, "n d"], weights: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """Mean and covariance (maximum likelihood) under weights that sum to 1."""
    mean = weights @ values.astype(np.float64)
    centred = values - mean
    return mean, centred.T @ (centred * weights[:, None])


def gaussian_frechet(
    mean_x: Float[np.ndarray, " d"],
    cov_x: Float[np.ndarray, "d d"],
    mean_y: Float[np.ndarray, " d"],
    cov_y: Float[np.ndarray, "d d"],
) -> tuple[float, float]:
    """The part of the means and the part of the covariances. O(d^3).

    Through symmetric eigenproblems: the root of a singular product is where a general matrix root
    turns complex.
    """
    values, axes = linalg.eigh(cov_x)
    root = (axes * np.sqrt(np.maximum(values, 0.0))) @ axes.T
    cross = np.sqrt(np.maximum(linalg.eigvalsh(root @ cov_y @ root), 0.0)).sum()
    difference = mean_x - mean_y
    covariances = np.trace(cov_x) + np.trace(cov_y) - 2.0 * cross
    return float(difference @ difference), float(max(covariances, 0.0))


STATISTIC = Statistic(
    what="Frechet distance of the Gaussians fitted to the two sides",
    compute=lambda x, y, sides: frechet(x, y, *sides.groups, seed=sides.seed),
    coordinates="components",
)
