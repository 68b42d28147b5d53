"""Is the gap a shift of the means, a difference of covariances, or more? Shares of MMD^2.

Three MMD^2 with the same bandwidths, which are those of the vectors as given:

    as given                  total
    both sides centred        what is left without the difference of the means
    both sides centred and given the pooled within-side covariance
                              what is left without first and second moments

    mean = total - centred,  covariance = centred - matched,  higher = matched

The order matters: the means are removed first, so what means and covariances share counts as mean.
The shares are computed in the leading principal components of both sides, which are found without
labels, because a covariance can be matched only if there are enough vectors to estimate it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy import linalg

from keygap.errors import UserError
from keygap.gap.core import kernels
from keygap.gap.core.cautions import cautions
from keygap.gap.core.components import pooled_components
from keygap.gap.core.described import Described
from keygap.gap.core.gaussian import gaussian_totals
from keygap.gap.core.inputs import Array, CheckedSides, Groups, two_sides
from keygap.gap.core.median import median_distance
from keygap.gap.core.reading import Reading
from keygap.gap.core.statistic import Statistic
from keygap.gap.core.weights import weighted_moments

_SINGULAR = 1e-8  # smallest share of the pooled variance in any direction of a side
_ENOUGH = 1e-3  # the same if the number of components is chosen here
_MOST = 50  # components, if their number is chosen here

Covariance = Float[np.ndarray, "k k"]


@dataclass(frozen=True, repr=False)
class MomentsResult(Described, title="Parts of a gap by moment"):
    """MMD^2 of the three stages, and the shares of the first one.

    The shares add up to 1. They are None if the total is not positive, as there is no gap to share.

    Attributes:
        mmd2_total: MMD^2 of the vectors as given.
        mmd2_centred: MMD^2 after centring both sides.
        mmd2_matched: MMD^2 after centring them and matching their covariances.
        mean: Share that is due to the means.
        covariance: Share that is due to the covariances.
        higher: Share that is left.
        bandwidths: Sigma of each kernel, in units of the vectors.
        dims: Number of principal components.
        explained: Share of the pooled variance in these components.
        paired: Whether both sides hold the same samples.
        seed: Seed of the median distance's pairs.
        cautions: What makes interval or p-value doubtful (see ``core.cautions``).
    """

    mmd2_total: float
    mmd2_centred: float
    mmd2_matched: float
    mean: float | None
    covariance: float | None
    higher: float | None
    bandwidths: tuple[float, ...]
    dims: int
    explained: float
    paired: bool
    seed: int
    cautions: tuple[str, ...] = ()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The three shares."""
        return (
            Reading(
                "share_mean",
                self.mean,
                "share of MMD squared that centring both sides removes",
                dims=self.dims,
            ),
            Reading(
                "share_covariance",
                self.covariance,
                "further share that equal covariances remove",
                dims=self.dims,
            ),
            Reading(
                "share_higher",
                self.higher,
                "share of MMD squared that remains after both",
                dims=self.dims,
            ),
        )


def moments(
    x: Array,
    y: Array,
    groups_x: Groups = None,
    groups_y: Groups = None,
    *,
    dims: int | None = None,
    paired: bool | None = None,
    seed: int = 0,
) -> MomentsResult:
    """Shares of the gap between two sides that are due to means, covariances and the rest.

    Its cost is three passes over the kernel, O(3 (n + m)^2 dims / 2).

    Args:
        x: Vectors of the first side, shape (n, d), numpy or torch.
        y: Vectors of the second side, shape (m, d).
        groups_x: Sample id of each row of ``x``; None: every row is a sample of its own.
        groups_y: Sample id of each row of ``y``.
        dims: Number of principal components. None: at most 50, and at most those in which each side
            has a thousandth of the pooled variance in every direction. Text keys of a first layer
            are one vector for each word and have fewer.
        paired: Whether both sides hold the same samples; None: decided by the ids, as in ``mmd``.
        seed: Seed of the median distance's pairs.

    Returns:
        MMD^2 of each stage and the shares.

    Raises:
        UserError: Bad vectors or ids (see ``core.inputs.two_sides``), ``dims`` beyond what the
            vectors have, or a side that does not vary in every direction of the components, because
            it has too few vectors or constant columns.
    """
    given = two_sides(x, y, groups_x, groups_y, paired)
    limit = min(_MOST, given.x.shape[1], len(given.pooled) - 1)
    found = pooled_components(given, limit if dims is None else dims, allow_fewer=dims is None)
    used = _usable(_with_vectors(given, found.scores), found.available, choose=dims is None)
    scores = (found.scores * np.sqrt(found.variance))[:, :used]  # in units of the vectors
    sides = _with_vectors(given, scores)
    sigmas = kernels.grid_around(median_distance(sides, seed))
    total, centred, matched = (_mmd2(stage, sigmas) for stage in _stages(sides))
    mean, covariance, higher = _shares(total, centred, matched)
    return MomentsResult(
        cautions=cautions(given),
        mmd2_total=total,
        mmd2_centred=centred,
        mmd2_matched=matched,
        mean=mean,
        covariance=covariance,
        higher=higher,
        bandwidths=sigmas,
        dims=used,
        explained=float(found.explained[:used].sum()),
        paired=sides.paired,
        seed=seed,
    )


def _with_vectors(sides: CheckedSides, pooled: Float[np.ndarray, "n+m k"]) -> CheckedSides:
    n = len(sides.x)
    return replace(sides, x=pooled[:n], y=pooled[n:])


def _usable(sides: CheckedSides, dims: int, *, choose: bool) -> int:
    """Number of leading components in which both sides vary, at most ``dims``.

    The components have pooled variance 1. If their number may not be chosen, a side that does not
    vary in all of them is an error.
    """
    _, of_x = weighted_moments(sides.x, sides.weights_x)
    _, of_y = weighted_moments(sides.y, sides.weights_y)
    while choose and dims > 1 and min(_least(of_x, dims), _least(of_y, dims)) <= _ENOUGH:
        dims -= 1
    for name, covariance in (("x", of_x), ("y", of_y)):
        if _least(covariance, dims) <= _SINGULAR:
            raise UserError(
                f"{name} does not vary in all of the {dims} components (too few vectors, or "
                "constant columns): give fewer dims"
            )
    return dims


def _least(covariance: Covariance, dims: int) -> float:
    """The smallest variance in any direction of the first components."""
    return float(linalg.eigvalsh(covariance[:dims, :dims], subset_by_index=[0, 0])[0])


def _stages(sides: CheckedSides) -> Iterator[CheckedSides]:
    """The sides as given, centred, and with equal covariances."""
    yield sides
    mean_x, cov_x = weighted_moments(sides.x, sides.weights_x)
    mean_y, cov_y = weighted_moments(sides.y, sides.weights_y)
    centred = replace(sides, x=sides.x - mean_x, y=sides.y - mean_y)
    yield centred
    within = 0.5 * (cov_x + cov_y)
    to_x, to_y = _transport(cov_x, within), _transport(cov_y, within)
    yield replace(centred, x=centred.x @ to_x, y=centred.y @ to_y)


def _transport(covariance: Covariance, target: Covariance) -> Covariance:
    """The symmetric map A with A C A = target, which changes the vectors least (Monge)."""
    values, axes = linalg.eigh(target)
    root = (axes * np.sqrt(values)) @ axes.T
    inner, inner_axes = linalg.eigh(root @ covariance @ root)
    return root @ ((inner_axes / np.sqrt(inner)) @ inner_axes.T) @ root


def _mmd2(sides: CheckedSides, sigmas: tuple[float, ...]) -> float:
    return gaussian_totals([sides], [sigmas], [0])[0].totals.statistic()


def _shares(
    total: float, centred: float, matched: float
) -> tuple[float | None, float | None, float | None]:
    """Shares of the total; each stage is clipped to at most the one before and at least 0."""
    if total <= 0.0:
        return None, None, None
    centred = min(max(centred, 0.0), total)
    matched = min(max(matched, 0.0), centred)
    return (total - centred) / total, (centred - matched) / total, matched / total


STATISTIC = Statistic(
    what="shares of MMD squared due to the means, the covariances and higher moments",
    compute=lambda x, y, sides: moments(x, y, *sides.groups, seed=sides.seed),
    coordinates="components",
)
