"""Logistic regression by Newton's method, for several fits at once.

One estimate of the JSD fits some thirty logistic regressions to a few thousand rows, and a layer
needs an estimate for every head. At that size, what counts is the number of passes over the
features. So a fit starts at the optimum of an eighth of its rows, and computes a Hessian again only
where the last one does not shrink the steps well. Features are stored one row for each feature, so
that the vectors run along contiguous memory. The objective is the same as that of
``sklearn.linear_model.LogisticRegression``.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_MAX_STEPS = 100
_TOLERANCE = 1e-4  # of a coefficient; the steps shrink fast
_LEAST = 1e-30  # probability
_GOLDEN = 0.6180339887498949  # whose multiples are spread over [0, 1) most evenly
_FLAT = 1e-9  # added to the diagonal of the Hessian, which is nearly 0 if the sides are separable
_SLOW = 0.2  # a step this many times as long as the one before asks for a new Hessian
SHARE = 1 / 8  # a fit to this share of the rows gives the start
_FEWEST = 20  # rows of that fit for each feature; fewer say too little

Coefficients = Float[Tensor, "fits k"]


def logistic_regression(
    features: Float[Tensor, "fits k n"],
    label: Float[Tensor, "fits n"],
    weight: Float[Tensor, "fits n"],
    ridge: float = 1.0,
    *,
    start: Coefficients | None = None,
) -> Coefficients:
    """Coefficients that minimise sum(weight * log loss) + ridge / 2 * |coefficients|^2.

    A fit does not depend on the others in the batch. Features, and sums over the vectors, are
    float32.

    Args:
        features: Features of each fit in float32, vectors along the last axis. The last feature is
            1 for the intercept, which has no penalty.
        label: 1 where a vector is on side x, else 0.
        weight: Weight of each vector; 0 leaves it out.
        ridge: Penalty.
        start: Where to start; None: at 0, or at the optimum of some of the rows if they are many.

    Returns:
        The coefficient of each feature in float64.
    """
    penalty = features.new_full((features.shape[1],), ridge, dtype=torch.float64)
    penalty[-1] = 0.0
    whole = _Loss(features, label, weight, penalty)
    if start is not None:
        return _minimum(whole, start)
    start = features.new_zeros(features.shape[:2], dtype=torch.float64)
    if features.shape[2] >= _FEWEST * features.shape[1] / SHARE:
        few = torch.from_numpy(a_share_of(features.shape[2]))
        some = weight[:, few]
        some = some * (weight.sum(1, keepdim=True) / some.sum(1, keepdim=True).clamp_min(_LEAST))
        of_few = _minimum(_Loss(features[..., few], label[:, few], some, penalty), start)
        better = whole.at(of_few)[0] < whole.at(start)[0]  # few rows may lack a side
        start = torch.where(better, of_few, start)
    return _minimum(whole, start)


def a_share_of(n: int) -> Int[np.ndarray, " few"]:
    """Indices of an eighth of n rows, spread evenly and without a period.

    Rows of a sample may come at equal distances, so every eighth row could miss whole samples.

    Args:
        n: Number of rows.
    """
    return np.flatnonzero(np.arange(n) * _GOLDEN % 1.0 < SHARE)


class _Loss:
    """Penalised loss of each fit of a batch."""

    def __init__(self, features: Tensor, label: Tensor, weight: Tensor, penalty: Tensor) -> None:
        self._features, self._label, self._weight = features, label, weight
        self._penalty = penalty
        self._p = label

    def at(self, found: Coefficients) -> tuple[Float[Tensor, "fits 1"], Coefficients]:
        """The loss and its gradient."""
        self._p = torch.sigmoid(torch.bmm(found.float()[:, None], self._features)[:, 0])
        error = self._p - self._label
        right = error.abs().neg_().add_(1.0).clamp_min_(_LEAST)  # probability of the true side
        loss = right.log_().mul_(self._weight).sum(1, keepdim=True, dtype=torch.float64).neg_()
        loss += 0.5 * (self._penalty * found**2).sum(1, keepdim=True)
        gradient = torch.bmm(self._features, error.mul_(self._weight)[..., None])[..., 0]
        return loss, gradient.double() + self._penalty * found

    def factor(self) -> Float[Tensor, "fits k k"]:
        """Cholesky factor of the Hessian where the loss was last computed."""
        curve = self._weight * self._p * (1.0 - self._p)
        scaled = self._features * curve[:, None]
        hessian = torch.bmm(scaled, self._features.transpose(1, 2)).double()
        hessian.diagonal(dim1=1, dim2=2).add_(self._penalty + _FLAT)
        return torch.linalg.cholesky(hessian)


def _minimum(loss: _Loss, found: Coefficients) -> Coefficients:
    """Newton's method; a step that raises the loss is halved."""
    step, length = torch.zeros_like(found), found.new_full((len(found), 1), torch.inf)
    least, active, stale = torch.full_like(length, torch.inf), _true(length), _true(length)
    factor: Tensor | None = None
    for _ in range(_MAX_STEPS):
        now, gradient = loss.at(found)
        too_long = now > least + 1e-6 * least.abs()
        if factor is None:
            factor = loss.factor()
        elif (refresh := stale & active & ~too_long).any():
            factor = torch.where(refresh[..., None], loss.factor(), factor)
        newton = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
        step = torch.where(too_long, -0.5 * step, newton)  # half of the way back
        found = torch.where(active, found - step, found)
        step = torch.where(too_long, -step, step)
        least = torch.where(too_long, least, now)
        before, length = length, step.abs().amax(1, keepdim=True)
        stale = too_long | (length > _SLOW * before)
        active &= too_long | (length >= _TOLERANCE)
        if not active.any():
            break
    return found


def _true(like: Tensor) -> Bool[Tensor, "fits 1"]:
    return torch.ones_like(like, dtype=torch.bool)
