"""Platt's calibration of log-odds, and what calibrated log-odds say of the JSD.

A classifier's log-odds have the right order but often the wrong scale, and a bound of a divergence
needs probabilities. A logistic regression on one score per classifier sets the scale (Platt 1999).
Log-odds that point the wrong way get slope 0, and their bound is then 0 and not negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

LN2 = float(np.log(2.0))
SATURATION = 0.95  # share of ln 2 beyond which the rest of the scale is estimation error
_MAX_SCORE = 10.0  # in units of the root mean square
_MAX_LOGIT = 8.0  # costs 0.0003 nats where the sides are perfectly separable
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
        scale = np.sqrt(share @ log_odds**2) + 1e-12
        scores = np.clip(log_odds / scale, -_MAX_SCORE, _MAX_SCORE)
        slope, intercept = np.zeros(scores.shape[1]), np.zeros(scores.shape[1])
        for _ in range(25):
            step_a, step_b = _newton_step(scores, slope, intercept, label, share)
            slope -= np.clip(step_a, -2.0, 2.0)
            intercept -= np.clip(step_b, -2.0, 2.0)
            if max(np.abs(step_a).max(), np.abs(step_b).max()) < 1e-4:
                break
        wrong = slope <= 0.0
        return cls(scale, np.where(wrong, 0.0, slope), np.where(wrong, 0.0, intercept))

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
    return LN2 - np.logaddexp(0.0, np.where(label, -logits, logits))


def _newton_step(
    scores: Float[np.ndarray, "n c"],
    slope: Float[np.ndarray, " c"],
    intercept: Float[np.ndarray, " c"],
    label: Bool[np.ndarray, " n"],
    share: Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Newton step of slope and intercept under the ridge-regularised logistic loss."""
    p = expit(slope * scores + intercept)
    error = share[:, None] * (p - label[:, None])
    curve = share[:, None] * p * (1.0 - p)
    gradient_a = (error * scores).sum(0) + _RIDGE * slope
    gradient_b = error.sum(0) + _RIDGE * intercept
    aa = (curve * scores**2).sum(0) + _RIDGE
    ab = (curve * scores).sum(0)
    bb = curve.sum(0) + _RIDGE
    determinant = aa * bb - ab**2
    return (
        (bb * gradient_a - ab * gradient_b) / determinant,
        (aa * gradient_b - ab * gradient_a) / determinant,
    )
