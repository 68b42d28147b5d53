"""Critics recover the log-odds of two Gaussians, which are known in closed form."""

import numpy as np
import pytest

from keygap.gap.core.critic import Rows
from keygap.gap.core.critics import CRITICS, TAUS

N, D = 10_000, 4


def log_odds_of(name, z, label):
    """Log-odds of every row by a critic that was fitted to all of them, (n, variants)."""
    rows = Rows(z, label, np.ones(len(z)), np.arange(len(z)))
    return CRITICS[name].fit(rows, np.ones((1, len(z)), dtype=bool))[0]


def drawn(shift, scale):
    """Rows of N(0, I) and N(shift, scale^2) on the first axis, labels, and true log-odds."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2 * N, D))
    label = np.arange(2 * N) < N
    z[~label, 0] = z[~label, 0] * scale + shift
    first = z[:, 0]
    truth = -0.5 * first**2 + 0.5 * ((first - shift) / scale) ** 2 + np.log(scale)
    return z, label, truth


@pytest.mark.parametrize(
    ("name", "shift", "scale"),
    [("linear", 1.0, 1.0), ("quadratic", 1.0, 1.0), ("quadratic", 0.5, 2.0), ("spline", 0.5, 2.0)],
)
def test_log_odds_of_gaussians(name, shift, scale):
    z, label, truth = drawn(shift, scale)
    found = log_odds_of(name, z, label)
    assert found.shape == (2 * N, CRITICS[name].variants)
    inner = np.abs(z[:, 0]) < 2.0  # splines are constant beyond their knots
    errors = np.sqrt(((found - truth[:, None])[inner] ** 2).mean(0))
    assert errors.min() < 0.15


def test_a_linear_critic_cannot_see_a_scale_and_the_others_can():
    z, label, truth = drawn(0.0, 2.0)
    right = {}
    for name in ("linear", "spline", "network", "boosted"):
        log_odds = log_odds_of(name, z, label)[:, 0]
        right[name] = ((log_odds > 0) == label).mean()
    best = ((truth > 0) == label).mean()
    assert right["linear"] < 0.52
    assert right["spline"] == pytest.approx(best, abs=0.01)
    assert right["boosted"] == pytest.approx(best, abs=0.02)


def test_quadratic_has_a_variant_for_each_tau():
    """The last one keeps only the mean of the eigenvalues, so it blurs a difference in one axis."""
    z, label, truth = drawn(0.0, 2.0)
    found = log_odds_of("quadratic", z, label)
    assert found.shape[1] == len(TAUS)
    fit = [np.corrcoef(column, truth)[0, 1] for column in found.T]
    assert fit[0] > 0.99
    assert fit[-1] < fit[0]
