"""Critics: classifiers whose held-out log-odds estimate log p(x) / q(x).

A divergence that is estimated by a classifier is as good as the classifier, and a study needs
hundreds of estimates. So the critics are few, fast and complementary. All of them work on whitened
components (pooled variance 1). All but the linear one work in the basis in which the covariances of
the two sides differ most: if the pooled within-side covariance is I, then C_x = I + D and
C_y = I - D share the eigenvectors of D. These are the directions of sliced average variance
estimation (Cook and Weisberg 1991).

    linear     logistic regression; exact for Gaussians of equal covariance
    quadratic  Gaussian log-odds with regularised covariances (Friedman 1989): eigenvalues of D
               within tau of their mean are replaced by it. Each tau of a short grid is a variant
    spline     logistic regression on cubic splines of the mean direction and of the five
               directions with the largest |eigenvalue|; for mixtures, XOR and heavy tails
    boosted    gradient-boosted trees on the same directions; for what is not additive there.
               It takes twenty times as long and competes only on request
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import linalg
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer

from keygap.gap.core.weights import weighted_moments

Rows = Float[np.ndarray, "n k"]
Labels = Bool[np.ndarray, " n"]
Weights = Float[np.ndarray, " n"]
LogOdds = Callable[[Rows], Float[np.ndarray, "n variants"]]

TAUS = (0.0, 0.1, 0.2, 0.35, 2.0)  # |eigenvalue| <= 1, so 2 keeps only their mean
N_DIRECTIONS = 5
_N_KNOTS = 7
_RIDGE = 1e-3  # added to a covariance of unit scale


@dataclass(frozen=True)
class Critic:
    """A named classifier.

    Attributes:
        name: Its name.
        variants: Number of log-odds it predicts; they compete with each other under one name.
        fit: Function of rows (n, k), labels (True: side x) and weights. It returns a function from
            new rows to log-odds of shape (n, variants).
    """

    name: str
    variants: int
    fit: Callable[[Rows, Labels, Weights], LogOdds]


def fit_linear(z: Rows, label: Labels, weight: Weights) -> LogOdds:
    """Fit logistic regression on all components."""
    model = LogisticRegression(solver="newton-cholesky").fit(z, label, weight)
    return lambda new: model.decision_function(new)[:, None]


def fit_quadratic(z: Rows, label: Labels, weight: Weights) -> LogOdds:
    """Fit Gaussian log-odds, one variant for each tau."""
    basis = _Basis.fit(z, label, weight)
    centre = basis.eigenvalues.mean()
    far = np.abs(basis.eigenvalues - centre)
    variants = [
        np.clip(np.where(far > tau, basis.eigenvalues, centre), -0.99, 0.99) for tau in TAUS
    ]
    precision_x = np.stack([1.0 / (1.0 + values) for values in variants], axis=1)
    precision_y = np.stack([1.0 / (1.0 - values) for values in variants], axis=1)
    constant = np.log(precision_x / precision_y).sum(0)

    def log_odds(new: Rows) -> Float[np.ndarray, "n variants"]:
        scores = new @ basis.axes
        from_x, from_y = scores - basis.mean_x, scores - basis.mean_y
        return 0.5 * ((from_y**2) @ precision_y - (from_x**2) @ precision_x + constant)

    return log_odds


def fit_spline(z: Rows, label: Labels, weight: Weights) -> LogOdds:
    """Fit a logistic model of additive cubic splines, knots at quantiles, constant beyond them."""
    directions = _Basis.fit(z, label, weight).directions()
    scores = z @ directions
    knots = np.quantile(scores, np.linspace(0.0, 1.0, _N_KNOTS), axis=0)
    # Repeated vectors make several quantiles equal, and knots have to increase.
    knots += 1e-3 * (1.0 + np.ptp(scores, axis=0)) * np.arange(_N_KNOTS)[:, None]
    model = make_pipeline(
        SplineTransformer(knots=knots, extrapolation="constant"),
        LogisticRegression(solver="newton-cholesky"),
    )
    model.fit(scores, label, logisticregression__sample_weight=weight)
    return lambda new: model.decision_function(new @ directions)[:, None]


def fit_boosted(z: Rows, label: Labels, weight: Weights) -> LogOdds:
    """Fit histogram gradient boosting (LightGBM's algorithm, in scikit-learn)."""
    directions = _Basis.fit(z, label, weight).directions()
    model = HistGradientBoostingClassifier(
        max_iter=60, learning_rate=0.15, max_leaf_nodes=12, early_stopping=False, random_state=0
    ).fit(z @ directions, label, weight)
    return lambda new: model.decision_function(new @ directions)[:, None]


@dataclass(frozen=True)
class _Basis:
    """Axes with within-side covariance I on which the difference D of covariances is diagonal."""

    axes: Float[np.ndarray, "k k"]
    eigenvalues: Float[np.ndarray, " k"]  # of D, each in [-1, 1]
    mean_x: Float[np.ndarray, " k"]  # on the axes
    mean_y: Float[np.ndarray, " k"]

    @classmethod
    def fit(cls, z: Rows, label: Labels, weight: Weights) -> _Basis:
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


CRITICS = {
    critic.name: critic
    for critic in (
        Critic("linear", 1, fit_linear),
        Critic("quadratic", len(TAUS), fit_quadratic),
        Critic("spline", 1, fit_spline),
        Critic("boosted", 1, fit_boosted),
    )
}
