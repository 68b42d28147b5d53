"""Frechet distance against closed forms and against its null."""

import numpy as np
import pytest
from scipy import linalg

from keygap import gap
from keygap.errors import UserError
from keygap.gap.frechet import gaussian_frechet

from .made_sides import sides


def test_frechet_of_known_gaussians():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 5))
    cov_a, cov_b = a @ a.T, b @ b.T
    means, covariances = gaussian_frechet(np.ones(5), cov_a, np.zeros(5), cov_b)
    direct = np.trace(cov_a + cov_b - 2 * linalg.sqrtm(cov_a @ cov_b).real)
    assert means == pytest.approx(5.0)
    assert covariances == pytest.approx(direct, rel=1e-8)
    # Diagonal covariances: sum of (sd_x - sd_y)^2.
    assert gaussian_frechet(np.zeros(2), np.diag([4.0, 0.0]), np.zeros(2), np.diag([1.0, 0.0]))[
        1
    ] == pytest.approx(1.0)


def test_frechet_and_its_null():
    large = gap.frechet(*sides(1, samples=200, rho=0.0, shift=2.0, scale=1.5, counts=(50, 50)))
    assert large.distance == pytest.approx(4.0 + 6 * 0.25, rel=0.05)
    assert large.distance == pytest.approx(large.from_means + large.from_covariances)
    assert large.p_value == pytest.approx(1 / 21)
    none = gap.frechet(*sides(2))
    assert none.distance == pytest.approx(none.null, rel=0.6)  # all bias, no gap


def test_a_constant_side_is_one_clear_line():
    x, y, groups_x, groups_y = sides(0)
    with pytest.raises(UserError, match="all vectors of x are equal"):
        gap.frechet(np.ones_like(x), y, groups_x, groups_y)


def test_readings_without_swaps_have_no_null():
    found = gap.frechet(*sides(0), n_permutations=0)
    whole, means, covariances = found.readings
    assert (whole.null, whole.p_value) == (None, None)
    assert whole.value == pytest.approx(means.value + covariances.value)
