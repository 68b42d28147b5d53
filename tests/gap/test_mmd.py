"""MMD against closed forms and a slow definition, and under changes that must not matter."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import gaussian_mmd2, tokens

from keygap import gap
from keygap.errors import UserError

from .made_sides import unequal_sides

FEW: dict[str, Any] = {"n_permutations": 99, "n_bootstraps": 99}


def slow_mmd2(x, y, groups_x, groups_y, kernel, paired):
    """The definition, one pair of samples at a time."""
    ids_x, ids_y = np.unique(groups_x), np.unique(groups_y)

    def mean_kernel(a, b):
        return np.mean([[kernel(u, v) for v in b] for u in a])

    def of(side, groups, i):
        return side[groups == i]

    def within(side, groups, ids):
        return np.mean(
            [mean_kernel(of(side, groups, i), of(side, groups, j))
             for i, j in itertools.permutations(ids, 2)]
        )  # fmt: skip

    cross = np.mean(
        [
            mean_kernel(of(x, groups_x, i), of(y, groups_y, j))
            for i, j in itertools.product(ids_x, ids_y)
            if not (paired and i == j)
        ]
    )
    return within(x, groups_x, ids_x) + within(y, groups_y, ids_y) - 2 * cross


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("name", ["gaussian", "linear", "energy"])
def test_equals_its_definition(name, paired):
    x, y, groups_x, groups_y = unequal_sides(0, samples=5, paired=paired)
    sigmas = (3.0, 1.1)
    kernels = {
        "gaussian": lambda a, b: np.mean(
            [np.exp(-np.sum((a - b) ** 2) / (2 * s**2)) for s in sigmas]
        ),
        "linear": lambda a, b: a @ b,
        "energy": lambda a, b: -np.linalg.norm(a - b),
    }
    bandwidth = sigmas if name == "gaussian" else None
    result = gap.mmd(x, y, groups_x, groups_y, kernel=name, bandwidth=bandwidth, **FEW)
    expected = slow_mmd2(x, y, groups_x, groups_y, kernels[name], paired)
    assert result.paired is paired
    assert result.mmd2 == pytest.approx(expected, rel=2e-6, abs=2e-7)
    if name == "gaussian":
        assert np.mean(result.mmd2_by_bandwidth) == pytest.approx(result.mmd2, abs=1e-7)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("d", "shift"), [(8, 0.0), (8, 1.0), (50, 1.0), (128, 1.5)])
def test_closed_form_between_gaussians(d, shift, paired):
    """Mean of 60 draws within two of its own standard errors: unbiased, correlated or not."""
    rng = np.random.default_rng([d, int(10 * shift), paired])
    sigmas = tuple(np.sqrt(d) * np.array([2.0, np.sqrt(2), 1.0, np.sqrt(0.5), 0.5]))
    scale = np.linspace(0.8, 1.3, d)
    values = []
    for _ in range(60):
        x, groups_x = tokens(rng, rng.integers(2, 12, 30), d, rho=0.5)
        y, groups_y = tokens(rng, rng.integers(1, 5, 30), d, rho=0.5)
        y = y * scale if shift else y
        y[:, 0] += shift
        groups_y = groups_y if paired else groups_y + 30
        result = gap.mmd(x, y, groups_x, groups_y, bandwidth=sigmas, **FEW)
        values.append(result.mmd2)
    variance = scale**2 if shift else np.ones(d)
    truth = gaussian_mmd2(shift**2, np.ones(d), variance, sigmas)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values) - truth) < 2 * error
    assert error < 0.1 * truth if shift else error < 2e-3


def test_halves_of_one_distribution_and_symmetry():
    x, y, groups_x, groups_y = unequal_sides(3, samples=60, d=8, shift=0.0, paired=False)
    result = gap.mmd(x, y, groups_x, groups_y)
    back = gap.mmd(y, x, groups_y, groups_x)
    assert abs(result.mmd2) < 0.005
    assert result.p_value > 0.05
    assert result.ci[0] < 0 < result.ci[1]
    # The medians come from subsamples drawn side by side, so they agree to sampling error only.
    assert back.mmd2 == pytest.approx(result.mmd2, abs=2e-4)
    fixed = [gap.mmd(*s, bandwidth=3.0, **FEW).mmd2 for s in
             ((x, y, groups_x, groups_y), (y, x, groups_y, groups_x))]  # fmt: skip
    assert fixed[0] == pytest.approx(fixed[1], abs=1e-7)


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=20, deadline=None)
def test_order_shift_and_names_do_not_matter(seed, paired):
    x, y, groups_x, groups_y = unequal_sides(seed, paired=paired)
    rng = np.random.default_rng(seed)
    base = gap.mmd(x, y, groups_x, groups_y, bandwidth=2.0, **FEW)
    order = rng.permutation(len(x))
    constant = rng.normal(size=x.shape[1])
    moved = gap.mmd(
        x[order] + constant,
        y + constant,
        [f"sample {g:04d}" for g in groups_x[order]],
        [f"sample {g:04d}" for g in groups_y],
        bandwidth=2.0,
        **FEW,
    )
    assert moved.mmd2 == pytest.approx(base.mmd2, abs=1e-6)
    assert moved.ci == pytest.approx(base.ci, abs=1e-6)
    assert moved.p_value == pytest.approx(base.p_value, abs=0.021)  # a tie may round either way
    np.testing.assert_allclose(moved.bootstraps, base.bootstraps, atol=1e-6)


def test_a_sample_weighs_the_same_whatever_its_count():
    x, y, groups_x, groups_y = unequal_sides(4)
    again = np.repeat(np.arange(len(x)), np.where(groups_x == 3, 5, 1))  # sample 3 five times over
    base = gap.mmd(x, y, groups_x, groups_y, bandwidth=2.0, **FEW)
    repeated = gap.mmd(x[again], y, groups_x[again], groups_y, bandwidth=2.0, **FEW)
    assert repeated.mmd2 == pytest.approx(base.mmd2, abs=1e-7)


def test_p_is_never_zero_and_seeds_repeat():
    x, y, groups_x, groups_y = unequal_sides(6, samples=30, shift=5.0)
    first = gap.mmd(x, y, groups_x, groups_y, n_permutations=200, seed=7)
    again = gap.mmd(x, y, groups_x, groups_y, n_permutations=200, seed=7)
    assert first.p_value == pytest.approx(1 / 201)
    assert first == again
    np.testing.assert_array_equal(first.bootstraps, again.bootstraps)
    few = gap.mmd(*unequal_sides(6, samples=4, shift=50.0), n_permutations=500)
    assert few.p_value > 0.08  # four pairs have eight distinct swaps
    assert np.isfinite(few.bootstraps).all()  # though one of four is drawn four times now and then


def test_torch_float32_and_16_bit():
    x, y, groups_x, groups_y = unequal_sides(7, samples=20, d=8)
    base = gap.mmd(x, y, groups_x, groups_y, bandwidth=3.0, **FEW)
    single = gap.mmd(
        torch.tensor(x, dtype=torch.float32),
        torch.tensor(y, dtype=torch.float32),
        torch.tensor(groups_x),
        torch.tensor(groups_y),
        bandwidth=3.0,
        **FEW,
    )
    assert single.mmd2 == pytest.approx(base.mmd2, abs=1e-6)
    half = gap.mmd(torch.tensor(x, dtype=torch.bfloat16), y, groups_x, groups_y, **FEW)
    assert np.isfinite(half.mmd2)


def test_far_from_the_origin_and_outliers_keep_float32_honest():
    x, y, groups_x, groups_y = unequal_sides(8, samples=20, d=8)
    base = gap.mmd(x, y, groups_x, groups_y, bandwidth=3.0, **FEW)
    far = gap.mmd(x + 1e4, y + 1e4, groups_x, groups_y, bandwidth=3.0, **FEW)
    assert far.mmd2 == pytest.approx(base.mmd2, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("samples", "n_tokens"), [(20, 5), (20, 50), (100, 5)])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_type_one_error(samples, n_tokens, rho, paired):
    from type_one_error import one_null

    rejected = np.mean(
        [one_null("mmd", samples, n_tokens, rho, paired, True, i) <= 0.05 for i in range(2000)]
    )
    assert 0.035 <= rejected <= 0.065  # 0.05 and three standard errors of 2,000 simulations


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("samples", "shift"), [(20, 0.6), (20, 1.5), (100, 0.6), (100, 1.5)])
def test_coverage(samples, shift, paired):
    from interval_coverage import one_interval

    held = [one_interval(8, samples, 8, 0.5, shift, paired, i)[0] for i in range(400)]
    assert 0.92 <= np.mean(held) <= 0.985


RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5))
Y = RNG.normal(size=(12, 5))
GX, GY = np.repeat(np.arange(6), 4), np.repeat(np.arange(6), 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gap.mmd(X, Y, GX, GY, kernel="gausian"), "did you mean 'gaussian'"),  # type: ignore[arg-type]
        (lambda: gap.mmd(X, Y, GX, GY, bandwidth=0.0), "positive"),
        (lambda: gap.mmd(X, Y, GX, GY, kernel="linear", bandwidth=1.0), "no bandwidth"),
        (lambda: gap.mmd(X, Y, GX, GY, level=95), "between 0 and 1"),
        (lambda: gap.mmd(np.ones((24, 5)), np.ones((12, 5)), GX, GY), "median distance"),
        (lambda: gap.mmd(np.zeros((9000, 2)), np.zeros((9000, 2))), "18000 samples"),
    ],
)
def test_bad_options_are_one_clear_line(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
