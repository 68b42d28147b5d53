"""Accuracy against the closed form of two shifted Gaussians."""

from typing import Any

import pytest
from scipy.stats import norm

from keygap import gap

from .made_sides import classified_sides

FEW: dict[str, Any] = {"n_permutations": 99, "n_bootstraps": 200}


def test_accuracy_of_a_known_shift():
    """Two unit Gaussians delta apart are told apart with probability Phi(delta / 2)."""
    result = gap.c2st(*classified_sides(1, samples=100, n_tokens=30, rho=0.0, shift=1.5), **FEW)
    assert result.accuracy == pytest.approx(norm.cdf(0.75), abs=0.02)
    assert result.ci[0] < norm.cdf(0.75) < result.ci[1]
    assert gap.c2st(*classified_sides(2, rho=0.5), **FEW).accuracy == pytest.approx(0.5, abs=0.06)


def test_separable_sides_are_always_told_apart():
    assert gap.c2st(*classified_sides(0, shift=60.0), **FEW).accuracy == pytest.approx(1.0)
