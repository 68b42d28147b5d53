"""Platt's calibration of log-odds, and what calibrated log-odds say of the JSD.

A classifier's log-odds have the right order but often the wrong scale, and a bound of a divergence
needs probabilities. A logistic regression on one score per classifier sets the scale (Platt 1999).
Log-odds that point the wrong way get slope 0, and their bound is then 0 and not negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from keygap.gap.core.logistic import a_share_of

LN2 = float(np.log(2.0))
SATURATION = 0.95  # share of ln 2 beyond which the rest of the scale is estimation error
_MAX_SCORE = 10.0  # in units of the root mean square
_MAX_LOGIT = 8.0  # costs 0.0003 nats where the sides are perfectly separable
_FEWEST = 200  # rows of the fit that gives the start; fewer say too little
_MOST = 80.0  # logit; the exponential of more overflows in float32
_RIDGE = 1e-4  # bounds the slope where the sides are separable


@dataclass(frozen=True)
class Calibration:
    """Map from log-odds to calibrated logits, one for each column of log-odds.

    Attributes:
        scale: Root mean square of the log-odds.
        slope: Factor of the scaled log-odds.
        intercept: Constant that is added.
    """

    scale: Float[np.ndarray, " c"]
    slope: Float[np.ndarray, " c"]
    intercept: Float[np.ndarray, " c"]

    @classmethod
    def fit(
        cls,
        log_odds: Float[np.ndarray, "n c"],
        label: Bool[np.ndarray, " n"],
        weight: Float[np.ndarray, " n"],
    ) -> Calibration:
        """Fit every column at once by Newton's method.

        Args:
            log_odds: Log-odds of c classifiers.
            label: Whether each row is on side x.
            weight: Weight of each row.

        Returns:
            The calibration. Log-odds that point the wrong way have slope and intercept 0.
        """
        share = weight / weight.sum()
        scale = np.sqrt(share @ np.square(log_odds, dtype=np.float64)) + 1e-12
        # Steps are steered by sums of float32, which round a slope by about 1e-6.
        scores = np.clip((log_odds / scale).T, -_MAX_SCORE, _MAX_SCORE).astype(np.float32)
        of_row = label.astype(np.float32), share.astype(np.float32)
        found = np.zeros((2, len(scores)))
        few = a_share_of(len(share))
        if len(few) >= _FEWEST and share[few].any():
            found = _minimum(found, *(values[..., few] for values in (scores, *of_row)))
        found = _minimum(found, scores, *of_row)
        slope, intercept = np.where(found[0] <= 0.0, 0.0, found)
        return cls(scale, slope, intercept)

    def apply(self, log_odds: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        """Calibrated logits, at most 8 in absolute value.

        Args:
            log_odds: Log-odds of the same classifiers.

        Returns:
            One logit of side x for each value.
        """
        scores = np.clip(log_odds / self.scale, -_MAX_SCORE, _MAX_SCORE)
        return np.clip(self.slope * scores + self.intercept, -_MAX_LOGIT, _MAX_LOGIT)


def bound_terms(
    logits: Float[np.ndarray, "n ..."], label: Bool[np.ndarray, "n ..."]
) -> Float[np.ndarray, "n ..."]:
    """Terms whose balanced mean is the lower bound of the JSD: ln 2 + log p(true side), in nats.

    Args:
        logits: Calibrated logits of side x.
        label: Whether each row is on side x.

    Returns:
        One term for each logit, at most ln 2.
    """
    wrong = np.where(label, -logits, logits)
    return LN2 - np.maximum(wrong, 0.0) - np.log1p(np.exp(-np.abs(wrong)))


def _minimum(
    start: Float[np.ndarray, "2 c"],
    scores: Float[np.ndarray, "c n"],
    label: Float[np.ndarray, " n"],
    share: Float[np.ndarray, " n"],
) -> Float[np.ndarray, "2 c"]:
    """Slope and intercept of least loss, by Newton's method."""
    found, share = start.copy(), share / share.sum()
    for _ in range(25):
        step = np.stack(_newton_step(scores, found[0], found[1], label, share))
        found -= np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-4:
            break
    return found


def _newton_step(
    scores: Float[np.ndarray, "c n"],
    slope: Float[np.ndarray, " c"],
    intercept: Float[np.ndarray, " c"],
    label: Float[np.ndarray, " n"],
    share: Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Newton step of slope and intercept under the ridge-regularised logistic loss."""
    p = scores * -slope.astype(np.float32)[:, None]
    p -= intercept.astype(np.float32)[:, None]
    np.minimum(p, _MOST, out=p)
    np.exp(p, out=p)
    p += 1.0
    np.reciprocal(p, out=p)
    error = (p - label) * share
    curve = (p - p * p) * share
    of_score = curve * scores
    gradient_a = np.einsum("cn,cn->c", error, scores) + _RIDGE * slope
    gradient_b = error.sum(1) + _RIDGE * intercept
    aa = np.einsum("cn,cn->c", of_score, scores) + _RIDGE
    ab = of_score.sum(1)
    bb = curve.sum(1) + _RIDGE
    determinant = aa * bb - ab**2
    return (
        (bb * gradient_a - ab * gradient_b) / determinant,
        (aa * gradient_b - ab * gradient_a) / determinant,
    )
