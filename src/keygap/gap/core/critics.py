"""Critics: classifiers whose held-out log-odds estimate log p(x) / q(x).

A divergence estimated by a classifier is as good as the classifier, and a study asks for hundreds
of them, so these are few, fast and complementary. All work on whitened components (pooled variance
1), and all but the linear one in the basis where the two covariances differ most: with pooled
within-side covariance I, C_x = I + D and C_y = I - D share the eigenvectors of D (the directions
of sliced average variance estimation, Cook and Weisberg 1991).

    linear     logistic regression: exact for equal covariances
    quadratic  Gaussian log-odds with regularised covariances (Friedman 1989): eigenvalues of D
               within tau of their mean are set to it; tau on a short grid, chosen with the critic
    spline     logistic regression on cubic splines of the mean direction and of the five
               directions with the largest |eigenvalue|: mixtures, XOR, heavy tails
    boosted    gradient-boosted trees on the same directions: sees what is not additive there, at
               twenty times the time, so it takes part only when asked for

A critic is fit(z, label, weight) and gives a function from new rows to log-odds (n, variants).
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

Rows = Float[np.ndarray, "n k"]
LogOdds = Callable[[Rows], Float[np.ndarray, "n variants"]]

TAUS = (0.0, 0.1, 0.2, 0.35, 2.0)  # |eigenvalue| <= 1, so 2 keeps their mean alone
N_DIRECTIONS = 5
_N_KNOTS = 7
_RIDGE = 1e-3  # added to a covariance of unit scale


@dataclass(frozen=True)
class Critic:
    """A named classifier; `variants` of it compete with each other under one name."""

    name: str
    variants: int
    fit: Callable[[Rows, Bool[np.ndarray, " n"], Float[np.ndarray, " n"]], LogOdds]


def fit_linear(z: Rows, label: np.ndarray, weight: np.ndarray) -> LogOdds:
    """Logistic regression, all components."""
    model = LogisticRegression(solver="newton-cholesky").fit(z, label, weight)
    return lambda new: model.decision_function(new)[:, None]


def fit_quadratic(z: Rows, label: np.ndarray, weight: np.ndarray) -> LogOdds:
    """Gaussian log-odds, one column for each tau."""
    basis = _Basis.fit(z, label, weight)
    centre = basis.eigenvalues.mean()
    variants = [
        np.clip(
            np.where(np.abs(basis.eigenvalues - centre) > tau, basis.eigenvalues, centre),
            -0.99,
            0.99,
        )
        for tau in TAUS
    ]
    precision_x = np.stack([1.0 / (1.0 + values) for values in variants], axis=1)
    precision_y = np.stack([1.0 / (1.0 - values) for values in variants], axis=1)
    constant = np.log(precision_x / precision_y).sum(0)

    def log_odds(new: Rows) -> Float[np.ndarray, "n variants"]:
        scores = new @ basis.axes
        from_x, from_y = scores - basis.mean_x, scores - basis.mean_y
        return 0.5 * ((from_y**2) @ precision_y - (from_x**2) @ precision_x + constant)

    return log_odds


def fit_spline(z: Rows, label: np.ndarray, weight: np.ndarray) -> LogOdds:
    """Additive cubic splines with knots at quantiles, constant beyond them, in a logistic model."""
    directions = _Basis.fit(z, label, weight).directions()
    scores = z @ directions
    knots = np.quantile(scores, np.linspace(0.0, 1.0, _N_KNOTS), axis=0)
    # Repeated vectors put several quantiles on one value: knots must rise.
    knots += 1e-3 * (1.0 + np.ptp(scores, axis=0)) * np.arange(_N_KNOTS)[:, None]
    model = make_pipeline(
        SplineTransformer(knots=knots, extrapolation="constant"),
        LogisticRegression(solver="newton-cholesky"),
    )
    model.fit(scores, label, logisticregression__sample_weight=weight)
    return lambda new: model.decision_function(new @ directions)[:, None]


def fit_boosted(z: Rows, label: np.ndarray, weight: np.ndarray) -> LogOdds:
    """Histogram gradient boosting (LightGBM's algorithm, in scikit-learn)."""
    directions = _Basis.fit(z, label, weight).directions()
    model = HistGradientBoostingClassifier(
        max_iter=60, learning_rate=0.15, max_leaf_nodes=12, early_stopping=False, random_state=0
    ).fit(z @ directions, label, weight)
    return lambda new: model.decision_function(new @ directions)[:, None]


@dataclass(frozen=True)
class _Basis:
    axes: Float[np.ndarray, "k k"]  # within-side covariance I, difference diagonal
    eigenvalues: Float[np.ndarray, " k"]  # of D, each in [-1, 1]
    mean_x: Float[np.ndarray, " k"]  # on the axes
    mean_y: Float[np.ndarray, " k"]

    @classmethod
    def fit(cls, z: Rows, label: np.ndarray, weight: np.ndarray) -> _Basis:
        mean_x, cov_x = _moments(z[label], weight[label])
        mean_y, cov_y = _moments(z[~label], weight[~label])
        within = 0.5 * (cov_x + cov_y) + _RIDGE * np.eye(z.shape[1])
        # Generalised problem D v = lambda W v: one call whitens W and diagonalises D.
        values, axes = linalg.eigh(0.5 * (cov_x - cov_y), within)
        return cls(axes, values, mean_x @ axes, mean_y @ axes)

    def directions(self) -> Float[np.ndarray, "k r"]:
        """The mean direction, then those of the largest |eigenvalue|; all axes if they are few."""
        if len(self.eigenvalues) <= N_DIRECTIONS:
            return self.axes
        largest = np.argsort(-np.abs(self.eigenvalues - self.eigenvalues.mean()))[:N_DIRECTIONS]
        shift = self.axes @ (self.mean_x - self.mean_y)
        shift /= max(float(np.linalg.norm(self.mean_x - self.mean_y)), 1e-12)
        return np.column_stack([shift, self.axes[:, largest]])


def _moments(z: Rows, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    share = weight / weight.sum()
    mean = share @ z
    centred = z - mean
    return mean, centred.T @ (centred * share[:, None])


CRITICS = {
    critic.name: critic
    for critic in (
        Critic("linear", 1, fit_linear),
        Critic("quadratic", len(TAUS), fit_quadratic),
        Critic("spline", 1, fit_spline),
        Critic("boosted", 1, fit_boosted),
    )
}
