"""Frechet distance between the Gaussians fitted to two sides.

    |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x^1/2 C_y C_x^1/2)^1/2)

Dowson and Landau 1982. It is in squared units of the vectors, without a root, as FID and MIR use
it. It depends on means and covariances only, and it is biased upward if there are few vectors for
their width, so the result includes its mean under label swaps of whole samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import linalg

from keygap import random_streams
from keygap.gap.core.cautions import cautions
from keygap.gap.core.described import Described
from keygap.gap.core.inputs import Array, CheckedSides, Groups, check_varies, two_sides
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import p_value
from keygap.gap.core.statistic import Statistic
from keygap.gap.core.swaps import swap_labels
from keygap.gap.core.weights import weighted_moments


@dataclass(frozen=True, repr=False)
class FrechetResult(Described, title="Frechet distance of two sides"):
    """Frechet distance, its two parts, and what it reads without a difference.

    Attributes:
        distance: The distance, in squared units of the vectors.
        from_means: Its first term, the squared distance of the means.
        from_covariances: The rest, which is due to the covariances.
        null: Mean distance under label swaps; 0 without permutations.
        p_value: Permutation p-value; 1 without permutations.
        paired: Whether both sides hold the same samples.
        dims: Number of columns.
        n_x: Number of vectors of x.
        n_y: Number of vectors of y.
        n_permutations: Number of label swaps.
        seed: Seed of the swaps.
        cautions: What makes interval or p-value doubtful (see ``core.cautions``).
    """

    distance: float
    from_means: float
    from_covariances: float
    null: float
    p_value: float
    paired: bool
    dims: int
    n_x: int
    n_y: int
    n_permutations: int
    seed: int
    cautions: tuple[str, ...] = ()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The distance and its two parts."""
        return (
            Reading(
                "frechet",
                self.distance,
                "Frechet distance of the Gaussians fitted to the two sides, squared units",
                null=self.null if self.n_permutations else None,
                p_value=self.p_value if self.n_permutations else None,
                dims=self.dims,
                settings={"n_permutations": self.n_permutations},
            ),
            Reading(
                "frechet_from_means",
                self.from_means,
                "part of the Frechet distance due to the means, squared units",
                dims=self.dims,
            ),
            Reading(
                "frechet_from_covariances",
                self.from_covariances,
                "part of the Frechet distance due to the covariances, squared units",
                dims=self.dims,
            ),
        )


def frechet(
    x: Array,
    y: Array,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    paired: bool | None = None,
    n_permutations: int = 20,
    seed: int = 0,
) -> FrechetResult:
    """Frechet distance between two sides, with equal weight for the samples of a side.

    Its cost is O(permutations ((n + m) d^2 + d^3)).

    Args:
        x: Vectors of the first side, shape (n, d), numpy or torch.
        y: Vectors of the second side, shape (m, d).
        groups_x: Sample id of each row of ``x``; None: every row is a sample of its own.
        groups_y: Sample id of each row of ``y``.
        paired: Whether both sides hold the same samples; None: decided by the ids, as in ``mmd``.
        n_permutations: Number of label swaps.
        seed: Seed of the swaps.

    Returns:
        The distance and its null.

    Raises:
        UserError: Bad vectors or ids (see ``core.inputs.two_sides``), or a side whose vectors are
            all equal.
    """
    sides = two_sides(x, y, groups_x, groups_y, paired)
    check_varies(sides, "a Gaussian cannot be fitted")
    from_means, from_covariances = _parts(sides)
    distance = from_means + from_covariances
    rng = random_streams.generator(seed, "frechet", "label swaps")
    null = np.array([sum(_parts(swap_labels(sides, rng))) for _ in range(n_permutations)])
    return FrechetResult(
        cautions=cautions(sides),
        distance=distance,
        from_means=from_means,
        from_covariances=from_covariances,
        null=float(null.mean()) if n_permutations else 0.0,
        p_value=p_value(distance, null),
        paired=sides.paired,
        dims=sides.x.shape[1],
        n_x=len(sides.x),
        n_y=len(sides.y),
        n_permutations=n_permutations,
        seed=seed,
    )


def gaussian_frechet(
    mean_x: Float[np.ndarray, " d"],
    cov_x: Float[np.ndarray, "d d"],
    mean_y: Float[np.ndarray, " d"],
    cov_y: Float[np.ndarray, "d d"],
) -> tuple[float, float]:
    """Frechet distance between two Gaussians. O(d^3).

    It solves symmetric eigenproblems, because the general root of a singular matrix product can be
    complex.

    Args:
        mean_x: Mean of the first Gaussian.
        cov_x: Its covariance.
        mean_y: Mean of the second Gaussian.
        cov_y: Its covariance.

    Returns:
        The part due to the means and the part due to the covariances.
    """
    values, axes = linalg.eigh(cov_x)
    root = (axes * np.sqrt(np.maximum(values, 0.0))) @ axes.T
    cross = np.sqrt(np.maximum(linalg.eigvalsh(root @ cov_y @ root), 0.0)).sum()
    difference = mean_x - mean_y
    covariances = np.trace(cov_x) + np.trace(cov_y) - 2.0 * cross
    return float(difference @ difference), float(max(covariances, 0.0))


def _parts(sides: CheckedSides) -> tuple[float, float]:
    return gaussian_frechet(
        *weighted_moments(sides.x, sides.weights_x), *weighted_moments(sides.y, sides.weights_y)
    )


STATISTIC = Statistic(
    what="Frechet distance of the Gaussians fitted to the two sides",
    compute=lambda x, y, sides: frechet(x, y, *sides.groups, seed=sides.seed),
    coordinates="components",
)
