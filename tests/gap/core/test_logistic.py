"""Many fits at once find the coefficients that scikit-learn finds one at a time."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from keygap.gap.core.logistic import logistic_regression


def drawn(seed, n, k, slope=1.0):
    """Features, labels that depend on them, and weights."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, k))
    label = rng.random(n) < 1 / (1 + np.exp(-slope * features @ rng.normal(size=k) - 0.3))
    return features, label, rng.uniform(0.5, 1.5, n)


def fitted(problems, **options):
    inputs = [np.column_stack([features, np.ones(len(features))]).T for features, _, _ in problems]
    label, weight = (np.stack([one[i] for one in problems]) for i in (1, 2))
    arrays = (np.stack(inputs), label, weight)
    x, y, w = (torch.from_numpy(of.astype(np.float32)) for of in arrays)
    return logistic_regression(x, y, w, **options).numpy()


def by_scikit_learn(features, label, weight, ridge):
    model = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=10_000)
    model.fit(features, label, sample_weight=weight)
    return np.append(model.coef_[0], model.intercept_)


@pytest.mark.parametrize("n", [300, 9000])
@pytest.mark.parametrize("slope", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("ridge", [1.0, 5.0])
def test_equals_scikit_learn(n, slope, ridge):
    problems = [drawn(seed, n, 6, slope) for seed in range(3)]
    for found, (features, label, weight) in zip(
        fitted(problems, ridge=ridge), problems, strict=True
    ):
        expected = by_scikit_learn(features, label, weight, ridge)
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


def test_rows_without_weight_are_left_out():
    features, label, weight = drawn(0, 400, 3)
    weight[300:] = 0.0
    part = features[:300], label[:300], weight[:300]
    np.testing.assert_allclose(fitted([(features, label, weight)]), fitted([part]), atol=1e-5)


def test_a_fit_depends_neither_on_its_start_nor_on_the_others():
    problems = [drawn(seed, 500, 4) for seed in range(2)]
    together = fitted(problems)
    start = torch.full((2, 5), 3.0, dtype=torch.float64)
    np.testing.assert_allclose(fitted(problems, start=start), together, atol=2e-5)
    changed = fitted([problems[0], drawn(7, 500, 4)])
    np.testing.assert_array_equal(changed[0], together[0])


def test_separable_sides_have_finite_coefficients():
    features = np.concatenate([np.full(100, -5.0), np.full(100, 5.0)])[:, None]
    problem = features, features[:, 0] > 0, np.ones(200)
    found = fitted([problem])[0]
    np.testing.assert_allclose(found, by_scikit_learn(*problem, 1.0), rtol=1e-3, atol=1e-3)


def test_a_side_with_few_rows_and_rows_in_a_rhythm():
    """The start is fitted to some rows, which need not have both sides."""
    rng = np.random.default_rng(0)
    for place in range(0, 2000, 250):
        features = rng.normal(size=(2000, 2))
        label = np.arange(2000) == place
        label[(place + 8) % 2000] = True
        problem = features, label, np.where(np.arange(2000) % 8, 1.0, 0.01)
        expected = by_scikit_learn(*problem, 1.0)
        np.testing.assert_allclose(fitted([problem])[0], expected, rtol=2e-3, atol=2e-3)
