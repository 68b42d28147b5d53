"""The bound on shapes of known divergence: near the truth, never clearly above it, 0 if equal."""

import numpy as np
import pytest
from planted import tokens
from shapes import FEWEST, SHAPES, shape

from keygap import gap

N = 10_000
SHARE = {  # of the truth that the bound reaches at least, by shape and dimensions
    ("ring", 2): 0.8,
    ("ring", 10): 0.8,
    ("checkerboard", 2): 0.8,
    ("checkerboard", 10): 0.8,
    ("signs", 10): 0.8,
    ("t", 10): 0.8,
    ("t", 50): 0.8,
    ("laplace axes", 10): 0.8,
}


def bound_and_truth(name, d, n=N, m=N, per_sample=20):
    planted = shape(name, d)
    x, y = planted.draw(np.random.default_rng(d), N)
    ids_x, ids_y = np.arange(n) // per_sample, np.arange(m) // per_sample
    found = gap.jsd(x[:n], y[:m], ids_x, ids_y, paired=n == m, n_permutations=0)
    return found.nats, planted.jsd(60_000)


@pytest.mark.slow
@pytest.mark.parametrize("per_sample", [20, 1])
@pytest.mark.parametrize("d", [2, 10, 50])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_of_ten_thousand(name, d, per_sample):
    bound, truth = bound_and_truth(name, max(d, FEWEST[name]), per_sample=per_sample)
    assert SHARE.get((name, d), 0.0) * truth <= bound <= truth + 0.02


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_more_vectors_of_one_side_do_not_lower_the_bound(name):
    """A tenth of the vectors is too few for some shapes, whatever the other side has."""
    few, truth = bound_and_truth(name, 10, n=1000, m=1000)
    bound, _ = bound_and_truth(name, 10, m=1000)
    assert few - 0.01 <= bound <= truth + 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("samples", "per_sample", "rho"), [(200, 1, 0.0), (20, 10, 0.9), (1000, 1, 0.0)]
)
@pytest.mark.parametrize("d", [2, 10])
def test_null(samples, per_sample, rho, d):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        counts = np.full(samples, per_sample)
        (x, ids_x), (y, ids_y) = (tokens(rng, counts, d, rho) for _ in range(2))
        assert gap.jsd(x, y, ids_x, ids_y, n_permutations=0, seed=seed).nats <= 0.02


def test_no_bound_is_not_read_as_no_difference():
    rng = np.random.default_rng(0)
    (x, ids_x), (y, ids_y) = (tokens(rng, np.full(30, 4), 3, 0.0) for _ in range(2))
    found = gap.jsd(x, y, ids_x, ids_y, n_permutations=0)
    assert found.estimator == "none"
    assert str(found).startswith("no bound found by these critics (linear, quadratic, spline")
    y[:, 0] += 3.0
    assert "JSD >= 0." in str(gap.jsd(x, y, ids_x, ids_y, n_permutations=0))
