"""Is the gap a shift, a shape, or more? Shares of MMD^2 by what removes them.

Three MMD^2 at the same bandwidths, which are those of the vectors as they are:

    as given                  total
    both sides centred        what is left without the means' difference
    both sides centred and given the pooled within-side covariance
                              what is left without first and second moments

    mean = total - centred,  covariance = centred - matched,  higher = matched

in this order: a mean shift is taken off first, so what means and covariances share counts as mean.
Computed in the leading principal components of both sides (found without labels), since a
covariance can be matched only where there are vectors enough to know it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy import linalg

from keygap.errors import UserError
from keygap.gap.core import kernels
from keygap.gap.core.components import pooled_components
from keygap.gap.core.inputs import Groups, TwoSides, Vectors, sample_weights, two_sides
from keygap.gap.core.reading import Reading
from keygap.gap.core.resampling import PairSums
from keygap.gap.core.statistic import Statistic
from keygap.gap.frechet import weighted_moments

_SINGULAR = 1e-8  # variance in some direction on one side, over the pooled variance
_ENOUGH = 1e-3  # the same, where the number of components is ours to choose


@dataclass(frozen=True)
class MomentsResult:
    """MMD^2 of the three stages and the shares, which add up to 1.

    The shares are None where the total is not positive: there is no gap to divide.
    """

    mmd2_total: float
    mmd2_centred: float
    mmd2_matched: float
    mean: float | None
    covariance: float | None
    higher: float | None
    bandwidths: tuple[float, ...]
    dims: int
    explained: float  # share of the pooled variance in these dims
    paired: bool
    seed: int

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The three shares."""
        return (
            Reading("share_mean", self.mean, "of MMD squared: gone with the means", dims=self.dims),
            Reading(
                "share_covariance",
                self.covariance,
                "of MMD squared: gone with the covariances",
                dims=self.dims,
            ),
            Reading("share_higher", self.higher, "of MMD squared: what is left", dims=self.dims),
        )


def moments(
    x: Vectors,
    y: Vectors,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    dims: int | None = None,
    paired: bool | None = None,
    seed: int = 0,
) -> MomentsResult:
    """Shares of the gap between x (n, d) and y (m, d) due to mean, covariance and the rest.

    dims: principal components to work in; None: at most 50, and at most those in whose every
    direction each side has a thousandth of the pooled variance (text keys of a first layer are one
    vector for each word, and have fewer). Raises UserError: bad vectors or ids (see
    `inputs.two_sides`), dims beyond what the vectors have, a side that does not vary in one of the
    components (fewer vectors than dims, or constant columns). Three kernel passes: O(3 (n + m)^2
    dims / 2).
    """
    given = two_sides(x, y, groups_x, groups_y, paired)
    limit = min(50, given.x.shape[1], len(given.pooled) - 1)
    found = pooled_components(given, limit if dims is None else dims, allow_fewer=dims is None)
    n = len(given.x)
    weights_x = sample_weights(given.sample_x, given.n_samples_x)
    weights_y = sample_weights(given.sample_y, given.n_samples_y)
    _, of_x = weighted_moments(found.scores[:n], weights_x)
    _, of_y = weighted_moments(found.scores[n:], weights_y)
    used = found.available if dims is None else dims
    if dims is None:
        while used > 1 and min(_least(of_x, used), _least(of_y, used)) <= _ENOUGH:
            used -= 1
    for name, covariance in (("x", of_x), ("y", of_y)):
        if _least(covariance, used) <= _SINGULAR:
            raise UserError(
                f"{name} does not vary in all of the {used} components (too few vectors, or "
                "constant columns): give fewer dims"
            )
    scores = (found.scores * np.sqrt(found.variance))[:, :used]  # in the units of the vectors
    sides = replace(given, x=scores[:n], y=scores[n:])

    mean_x, cov_x = weighted_moments(sides.x, weights_x)
    mean_y, cov_y = weighted_moments(sides.y, weights_y)
    within = 0.5 * (cov_x + cov_y)
    centred = replace(sides, x=sides.x - mean_x, y=sides.y - mean_y)
    matched = replace(
        centred,
        x=centred.x @ _transport(cov_x, within),
        y=centred.y @ _transport(cov_y, within),
    )
    median = kernels.median_distance(sides, seed)
    sigmas = tuple(median * factor for factor in kernels.GRID)
    total, of_centred, of_matched = (_mmd2(stage, sigmas) for stage in (sides, centred, matched))
    shares: list[float | None] = [None, None, None]
    if total > 0.0:
        left = [total, min(max(of_centred, 0.0), total)]
        left.append(min(max(of_matched, 0.0), left[1]))
        shares = [(left[0] - left[1]) / total, (left[1] - left[2]) / total, left[2] / total]
    return MomentsResult(
        mmd2_total=total,
        mmd2_centred=of_centred,
        mmd2_matched=of_matched,
        mean=shares[0],
        covariance=shares[1],
        higher=shares[2],
        bandwidths=sigmas,
        dims=scores.shape[1],
        explained=float(found.explained[:used].sum()),
        paired=sides.paired,
        seed=seed,
    )


def _mmd2(sides: TwoSides, sigmas: tuple[float, ...]) -> float:
    means, _ = kernels.gaussian_means(sides, sigmas)
    return PairSums.from_cells(means, sides).statistic()


def _least(covariance: Float[np.ndarray, "k k"], dims: int) -> float:
    """The least variance of any direction of the first components."""
    return float(linalg.eigvalsh(covariance[:dims, :dims], subset_by_index=[0, 0])[0])


def _transport(
    covariance: Float[np.ndarray, "k k"], target: Float[np.ndarray, "k k"]
) -> Float[np.ndarray, "k k"]:
    """The symmetric map A with A C A = target: the least that changes the vectors (Monge)."""
    values, axes = linalg.eigh(target)
    root = (axes * np.sqrt(values)) @ axes.T
    inner, inner_axes = linalg.eigh(root @ covariance @ root)
    return root @ ((inner_axes / np.sqrt(inner)) @ inner_axes.T) @ root


STATISTIC = Statistic(
    what="shares of MMD squared due to the means, the covariances and higher moments",
    compute=lambda x, y, sides: moments(x, y, *sides.groups, seed=sides.seed),
    coordinates="components",
)
