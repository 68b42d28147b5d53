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

import itertools

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from keygap.gap.core.basis import Basis
from keygap.gap.core.critic import Critic, LogOdds, Rows, Train, Trains
from keygap.gap.core.logistic import logistic_regression
from keygap.gap.core.splines import cubic_splines

TAUS = (0.0, 0.1, 0.2, 0.35, 2.0)  # |eigenvalue| <= 1, so 2 keeps only their mean
_N_KNOTS = 7
_TOGETHER = 2**20  # features of a batch of fits; 4 MB in float32


def _linear(rows: Rows, trains: Trains) -> LogOdds:
    """Logistic regression on all components."""
    z = torch.from_numpy(rows.by_head.astype(np.float32).swapaxes(1, 2))
    inputs = torch.cat([z, torch.ones_like(z[:, :1])], 1)
    weight = torch.from_numpy(np.stack([_weights(rows, train) * train for train in trains]))
    label = torch.from_numpy(rows.label.astype(np.float32))
    found = np.empty((len(z), *trains.shape), np.float32)
    size = max(1, _TOGETHER // inputs[0].numel())
    for (h, head), start in itertools.product(enumerate(inputs), range(0, len(trains), size)):
        sets = slice(start, start + size)
        fits = len(weight[sets])
        batch = head.expand(fits, -1, -1), label.expand(fits, -1), weight[sets]
        found[h, sets] = (logistic_regression(*batch).float() @ head).numpy()
    return found.reshape(*rows.z.shape[:-2], *trains.shape, 1)


def _quadratic(rows: Rows, trains: Trains) -> LogOdds:
    """Gaussian log-odds, one variant for each tau."""
    basis = Basis.fit(rows, trains)
    centre = basis.eigenvalues.mean(-1, keepdims=True)
    far = np.abs(basis.eigenvalues - centre)
    values = np.stack(
        [np.clip(np.where(far > tau, basis.eigenvalues, centre), -0.99, 0.99) for tau in TAUS], -1
    )
    precision_x, precision_y = 1.0 / (1.0 + values), 1.0 / (1.0 - values)
    mean_x, mean_y = basis.mean_x[..., None], basis.mean_y[..., None]
    # 1/2 (|s - m_y|^2 P_y - |s - m_x|^2 P_x + log |P_x| / |P_y|), by powers of the scores s
    square = 0.5 * (precision_y - precision_x)
    first = mean_x * precision_x - mean_y * precision_y
    constant = mean_y**2 * precision_y - mean_x**2 * precision_x + np.log(precision_x / precision_y)
    constant = 0.5 * constant.sum(-2, keepdims=True)
    found = np.empty((*rows.z.shape[:-2], *trains.shape, len(TAUS)), np.float32)
    for index in np.ndindex(found.shape[:-2]):
        scores = rows.z[index[:-1]] @ basis.axes[index]
        linear = scores @ first[index] + constant[index]
        found[index] = np.square(scores, out=scores) @ square[index] + linear
    return found


def _spline(rows: Rows, trains: Trains) -> LogOdds:
    """Logistic model of additive cubic splines, knots at quantiles, constant beyond them.

    All heads are fitted at once, to one training set after the other. The optimum of a set is near
    that of the next one, where it is the start.
    """
    directions = Basis.fit(rows, trains).directions().swapaxes(-1, -2)
    directions = directions.reshape(-1, len(trains), *directions.shape[-2:])
    same = (directions * directions[:, :1]).sum(-1, keepdims=True)
    directions = np.where(same < 0.0, -directions, directions)  # the same way in all sets
    z = rows.by_head.swapaxes(1, 2)
    found = np.empty((len(z), *trains.shape), np.float32)
    size = max(1, _TOGETHER // (directions.shape[2] * (_N_KNOTS + 2) * z.shape[2]))
    for first in range(0, len(z), size):
        heads, optimum = slice(first, first + size), None
        for s, train in enumerate(trains):
            # Training rows come first, so that they are a slice of the features and not a copy.
            order, n = np.argsort(~train, kind="stable"), int(train.sum())
            inputs = _spline_inputs(directions[heads, s] @ z[heads][..., order], n)
            label, weight = (
                torch.from_numpy(values.astype(np.float32)).expand(len(inputs), -1)
                for values in (rows.label[order[:n]], _weights(rows, train)[order[:n]])
            )
            optimum = logistic_regression(inputs[..., :n], label, weight, start=optimum)
            found[heads, s, order] = torch.bmm(optimum.float()[:, None], inputs)[:, 0].numpy()
    return found.reshape(*rows.z.shape[:-2], *trains.shape, 1)


def _spline_inputs(scores: Float[np.ndarray, "heads r n"], train: int) -> Tensor:
    """Splines of each direction, then ones; knots are quantiles of the first ``train`` rows."""
    heads, _, n = scores.shape
    flat = scores.reshape(-1, n)
    splines = cubic_splines(torch.from_numpy(flat), torch.from_numpy(_knots(flat[:, :train])))
    return torch.cat([splines.view(heads, -1, n), splines.new_ones(heads, 1, n)], 1)


def _knots(scores: Float[np.ndarray, "r n"]) -> Float[np.ndarray, "r knots"]:
    """Quantiles of each row. Repeated vectors make some of them equal, and knots must increase."""
    ordered = np.sort(scores, axis=1)
    places = np.linspace(0.0, 1.0, _N_KNOTS) * (scores.shape[1] - 1)
    below = np.minimum(places.astype(int), scores.shape[1] - 2)
    step = ordered[:, below + 1] - ordered[:, below]
    width = 1.0 + ordered[:, -1:] - ordered[:, :1]
    return ordered[:, below] + step * (places - below) + 1e-3 * width * np.arange(_N_KNOTS)


def _weights(rows: Rows, train: Train) -> Float[np.ndarray, " n"]:
    """Weights of mean 1 over the training rows, so that a ridge means the same for any number."""
    return (rows.weight / rows.weight[train].mean()).astype(np.float32)


def _boosted(rows: Rows, trains: Trains) -> LogOdds:
    """Histogram gradient boosting (LightGBM's algorithm, in scikit-learn)."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    directions = Basis.fit(rows, trains).directions()
    found = np.empty((*rows.z.shape[:-2], *trains.shape, 1), np.float32)
    for head, own in rows.heads():
        for s, train in enumerate(trains):
            scores = own.z @ directions[head][s]
            weight = _weights(rows, train)[train]
            model = HistGradientBoostingClassifier(
                max_iter=60,
                learning_rate=0.15,
                max_leaf_nodes=12,
                early_stopping=False,
                random_state=0,
            ).fit(scores[train], rows.label[train], weight)
            found[(*head, s)] = model.decision_function(scores)[:, None]
    return found


def _network(rows: Rows, trains: Trains) -> LogOdds:
    from keygap.gap.core.network import network_log_odds  # imports torch's optimisers

    return network_log_odds(rows, trains)


CRITICS = {
    critic.name: critic
    for critic in (
        Critic("linear", 1, _linear),
        Critic("quadratic", len(TAUS), _quadratic),
        Critic("spline", 1, _spline),
        Critic("network", 1, _network, averaged=True),
        Critic("boosted", 1, _boosted),
    )
}
