"""Critics: classifiers whose held-out log-odds estimate log p(x) / q(x).

A divergence that is estimated by a classifier is as good as the classifier, and a study needs
hundreds of estimates. So the critics are few, fast and complementary. All of them work on whitened
components (pooled variance 1). All but the linear one use the basis in which the covariances of
the two sides differ most (``core.basis``).

    linear     logistic regression; exact for Gaussians of equal covariance
    quadratic  Gaussian log-odds with regularised covariances (Friedman 1989): eigenvalues of D
               within tau of their mean are replaced by it. Each tau of a short grid is a variant
    spline     logistic regression on cubic splines of the mean direction and of the five
               directions with the largest |eigenvalue|; for mixtures, XOR and heavy tails
    network    a small neural network; for every other shape (see ``core.network``). It does not
               compete where another critic already saturates
    boosted    gradient-boosted trees on the directions of the spline critic. They take many times
               as long as the others and compete only on request
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.interpolate import BSpline

from keygap.gap.core.basis import Basis
from keygap.gap.core.critic import Critic, Labels, LogOdds, Rows, Train, Trains, Vectors, Weights
from keygap.gap.core.logistic import logistic_regression

TAUS = (0.0, 0.1, 0.2, 0.35, 2.0)  # |eigenvalue| <= 1, so 2 keeps only their mean
_N_KNOTS = 7
_DEGREE = 3

Predictions = Float[np.ndarray, "n variants"]
Fit = Callable[[Vectors, Labels, Weights, Train], Predictions]


def _set_by_set(fit: Fit) -> Callable[[Rows, Trains], LogOdds]:
    """A critic that is fitted to one training set after the other.

    Args:
        fit: Function of all vectors, and of the labels, weights and places of those to fit to. It
            predicts all vectors.
    """

    def fit_all(rows: Rows, trains: Trains) -> LogOdds:
        found = []
        for train in trains:
            # Weights of mean 1 make a critic's ridge mean the same for any number of rows.
            weight = rows.weight[train] / rows.weight[train].mean()
            found.append(fit(rows.z, rows.label[train], weight, train))
        return np.stack(found)

    return fit_all


def _linear(z: Vectors, label: Labels, weight: Weights, train: Train) -> Predictions:
    """Logistic regression on all components."""
    *coefficients, intercept = logistic_regression(z[train], label, weight)
    return (z @ np.array(coefficients) + intercept)[:, None]


def _quadratic(z: Vectors, label: Labels, weight: Weights, train: Train) -> Predictions:
    """Gaussian log-odds, one variant for each tau."""
    basis = Basis.fit(z[train], label, weight)
    centre = basis.eigenvalues.mean()
    far = np.abs(basis.eigenvalues - centre)
    variants = [
        np.clip(np.where(far > tau, basis.eigenvalues, centre), -0.99, 0.99) for tau in TAUS
    ]
    precision_x = np.stack([1.0 / (1.0 + values) for values in variants], axis=1)
    precision_y = np.stack([1.0 / (1.0 - values) for values in variants], axis=1)
    constant = np.log(precision_x / precision_y).sum(0)
    scores = z @ basis.axes
    from_x, from_y = scores - basis.mean_x, scores - basis.mean_y
    return 0.5 * ((from_y**2) @ precision_y - (from_x**2) @ precision_x + constant)


def _spline(z: Vectors, label: Labels, weight: Weights, train: Train) -> Predictions:
    """Logistic model of additive cubic splines, knots at quantiles, constant beyond them."""
    directions = Basis.fit(z[train], label, weight).directions()
    scores = z @ directions
    knots = np.quantile(scores[train], np.linspace(0.0, 1.0, _N_KNOTS), axis=0)
    # Repeated vectors make several quantiles equal, and knots have to increase.
    knots += 1e-3 * (1.0 + np.ptp(scores[train], axis=0)) * np.arange(_N_KNOTS)[:, None]
    features = _splines(scores, knots)
    *coefficients, intercept = logistic_regression(features[train], label, weight)
    return (features @ np.array(coefficients) + intercept)[:, None]


def _splines(
    scores: Float[np.ndarray, "n r"], knots: Float[np.ndarray, "knots r"]
) -> Float[np.ndarray, "n r*splines"]:
    """Cubic B-splines of each column, constant beyond its first and last knot."""
    steps = np.arange(1, _DEGREE + 1)
    columns = []
    for values, inner in zip(scores.T, knots.T, strict=True):
        before = inner[0] - steps[::-1] * (inner[1] - inner[0])
        after = inner[-1] + steps * (inner[-1] - inner[-2])
        every = np.concatenate([before, inner, after])
        splines = BSpline(every, np.eye(len(inner) + _DEGREE - 1), _DEGREE)
        columns.append(splines(np.clip(values, inner[0], inner[-1])))
    return np.concatenate(columns, axis=1)


def _boosted(z: Vectors, label: Labels, weight: Weights, train: Train) -> Predictions:
    """Histogram gradient boosting (LightGBM's algorithm, in scikit-learn)."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    scores = z @ Basis.fit(z[train], label, weight).directions()
    model = HistGradientBoostingClassifier(
        max_iter=60, learning_rate=0.15, max_leaf_nodes=12, early_stopping=False, random_state=0
    ).fit(scores[train], label, weight)
    return model.decision_function(scores)[:, None]


def _network(rows: Rows, trains: Trains) -> LogOdds:
    from keygap.gap.core.network import network_log_odds  # imports torch's optimisers

    return network_log_odds(rows, trains)


CRITICS = {
    critic.name: critic
    for critic in (
        Critic("linear", 1, _set_by_set(_linear)),
        Critic("quadratic", len(TAUS), _set_by_set(_quadratic)),
        Critic("spline", 1, _set_by_set(_spline)),
        Critic("network", 1, _network, averaged=True),
        Critic("boosted", 1, _set_by_set(_boosted)),
    )
}
