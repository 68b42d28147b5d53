"""The classifier bound against known divergences, under the null, and by dimension."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import PLANTED, planted

from keygap import gap
from keygap.errors import UserError

from .made_sides import classified_sides, sides

LN2 = math.log(2)
FEW: dict[str, Any] = {"n_permutations": 99, "n_bootstraps": 200}


def test_planted_truth_is_the_integral():
    """The Monte Carlo truth equals numerical integration where one dimension has the difference."""
    v = np.linspace(-12, 12, 20_001)
    normal = np.exp(-0.5 * v**2) / np.sqrt(2 * np.pi)
    laws = {
        "shift": np.exp(-0.5 * (v - 1.5) ** 2) / np.sqrt(2 * np.pi),
        "mixture": sum(
            np.exp(-0.5 * ((v - c) / 0.5) ** 2) / np.sqrt(2 * np.pi) for c in (-2.0, 2.0)
        ),
    }
    for name, law in laws.items():
        middle = 0.5 * (normal + law)
        integrand = 0.5 * normal * np.log(normal / middle) + 0.5 * law * np.log(
            np.maximum(law, 1e-300) / middle
        )
        assert planted(name, 3).jsd() == pytest.approx(np.trapezoid(integrand, v), abs=0.003)


def check_planted(name, d, n):
    problem = planted(name, d)
    x, y = problem.draw(np.random.default_rng(d), n)
    groups = np.arange(n) // 20
    result = gap.jsd(x, y, groups, groups, **FEW)
    truth = problem.jsd()
    assert abs(result.nats - truth) <= max(0.02, 0.1 * truth)
    assert result.bits == pytest.approx(result.nats / LN2)
    assert result.p_value == pytest.approx(0.01)
    return result


@pytest.mark.parametrize("name", PLANTED)
def test_planted_truth(name):
    result = check_planted(name, 8, 4000)
    if name in ("rotation", "xor"):
        assert result.nats_by_critic["linear"] < 0.01  # a linear critic cannot see these


@pytest.mark.parametrize("name", ["shift", pytest.param("xor", marks=pytest.mark.slow)])
def test_planted_truth_in_50(name):
    check_planted(name, 50, 6000)


@pytest.mark.slow
@pytest.mark.parametrize("d", [8, 50, 128])
@pytest.mark.parametrize("name", PLANTED)
def test_planted_truth_everywhere(name, d):
    check_planted(name, d, 10_000)


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_null_reads_zero(rho):
    """Two halves of one distribution. A random split of tokens would find the samples instead."""
    for seed in range(3):
        result = gap.jsd(*classified_sides(seed, rho=rho), **FEW)
        # 40 samples of nearly equal tokens are 40 vectors: a critic can win a fold by luck.
        assert (-0.05 if rho else -0.02) < result.raw_nats < 0.02
        assert 0.0 <= result.ci[0] <= result.nats <= 0.02


@pytest.mark.parametrize(
    ("tokens_x", "tokens_y", "rho", "power"),
    [
        ([8], [16], 0.0, 0.0),
        ([1], [16], 0.0, 0.0),
        ([2], [8], 0.0, 0.5),
        ([8], [2, 6, 14, 10], 0.5, 0.0),
        ([8], [32], 0.5, 0.0),
    ],
)
def test_unequal_numbers_of_vectors_read_zero(tokens_x, tokens_y, rho, power):
    """One distribution in 128 columns, whose deviations fall by this power of their number.

    Components that are drawn by the weight or the number of a sample's vectors read 0.05 to 0.6.
    """
    samples = 100
    rng = np.random.default_rng(9)
    deviations = np.arange(1, 129) ** -power
    vectors, groups = [], []
    for tokens in (tokens_x, tokens_y):
        counts = np.resize(tokens, samples)
        own = rng.normal(size=(counts.sum(), 128))
        shared = np.repeat(rng.normal(size=(samples, 128)), counts, axis=0)
        vectors.append((np.sqrt(rho) * shared + np.sqrt(1 - rho) * own) * deviations)
        groups.append(np.repeat(np.arange(samples), counts))
    profile = gap.jsd_profile(*vectors, *groups, **FEW)
    assert profile.dims == (2, 5, 10, 50)
    for result in profile.results:
        assert result.raw_nats < 0.01
        assert result.ci[0] < 0.005
        assert result.p_value > 0.01
        assert result.n_x == result.n_y == min(map(len, vectors))


def test_few_vectors_against_many_samples_read_zero():
    rng = np.random.default_rng(4)
    few, many = rng.normal(size=(20, 256)), rng.normal(size=(1000, 256))
    given = gap.Sides(few, many, np.arange(20), np.arange(20, 1020))
    (profile,) = gap.STATISTICS["jsd"].of_heads([given])
    assert isinstance(profile, gap.JSDProfile)
    assert max(result.raw_nats for result in profile.results) < 0.05
    assert {result.n_samples_y for result in profile.results} == {20}
    found = gap.c2st(few, many, np.arange(20), np.arange(20, 1020), **FEW)
    assert abs(found.accuracy - 0.5) < 0.2
    assert found.p_value > 0.01


def test_separable_sides_read_ln2():
    result = gap.jsd(*classified_sides(0, shift=60.0), **FEW)
    assert result.nats == pytest.approx(LN2, abs=0.003)
    assert result.bits <= 1.0
    assert result.ci[1] <= LN2


@given(st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_order_shift_scale_and_names_do_not_matter(seed):
    x, y, groups_x, groups_y = sides(seed, samples=12, d=4, shift=1.0, counts=(5, 5))
    base = gap.jsd(x, y, groups_x, groups_y, **FEW)
    order = np.random.default_rng(seed).permutation(len(x))
    moved = gap.jsd(
        3.0 * x[order] + 5.0,
        3.0 * y + 5.0,
        [f"s{g:03d}" for g in groups_x[order]],
        [f"s{g:03d}" for g in groups_y],
        **FEW,
    )
    # Solvers stop at a tolerance, and a close race of critics may then end the other way.
    assert moved.raw_nats == pytest.approx(base.raw_nats, abs=0.02)


def test_symmetry():
    x, y, groups_x, groups_y = classified_sides(3, shift=1.0)
    there, back = (
        gap.jsd(x, y, groups_x, groups_y, **FEW),
        gap.jsd(y, x, groups_y, groups_x, **FEW),
    )
    assert there.raw_nats == pytest.approx(back.raw_nats, abs=0.005)


def test_balanced_and_samples_weigh_the_same():
    """One sample with 100 times the tokens, far away, must not be the estimate."""
    x, y, groups_x, groups_y = classified_sides(4, samples=50, rho=0.0)
    rng = np.random.default_rng(0)
    crowd = rng.normal(size=(1000, 4)) + 8.0
    result = gap.jsd(
        np.concatenate([x, crowd]),
        y,
        np.concatenate([groups_x, np.zeros(1000, int)]),
        groups_y,
        **FEW,
    )
    # At most the share of one sample in fifty: 1/2 * 1/50 * ln 2 per side, and a little noise.
    assert result.nats < 0.03


def test_repeats_by_seed():
    first, again = (gap.jsd(*classified_sides(5, shift=0.5), **FEW, seed=3) for _ in range(2))
    assert first == again


def test_profile_marks_saturation_and_what_is_not_there():
    x, y, groups_x, groups_y = classified_sides(6, d=12)
    x[:, 5:] *= 0.1
    y[:, 5:] *= 0.1
    y[:, 7] += 1.0  # ten standard deviations apart, in a component of less variance than five
    profile = gap.jsd_profile(x, y, groups_x, groups_y, **FEW)
    assert profile.dims == (2, 5, 10)
    assert profile.unavailable == (50,)
    assert [result.dims for result in profile.results] == [2, 5, 10]
    assert profile.saturates_at == 10
    assert profile.results[0].nats < 0.95 * LN2
    alone = gap.jsd(x, y, groups_x, groups_y, dims=5, **FEW)
    assert profile.results[1].raw_nats == pytest.approx(alone.raw_nats, abs=1e-4)


def test_thinning_keeps_every_sample():
    x, y, groups_x, groups_y = classified_sides(7, shift=1.5, rho=0.0, n_tokens=40)
    thin = gap.jsd(x, y, groups_x, groups_y, max_vectors=400, **FEW)
    assert (thin.n_x, thin.n_y, thin.n_samples_x) == (400, 400, 40)
    assert thin.nats == pytest.approx(gap.jsd(x, y, groups_x, groups_y, **FEW).nats, abs=0.06)


def test_unpaired_and_fewest_samples():
    x, y, groups_x, groups_y = sides(8, samples=4, d=4, shift=3.0, counts=(10, 10))
    for ids in (groups_y, groups_y + 4):
        result = gap.jsd(x, y, groups_x, ids, **FEW)
        assert 0.2 < result.nats <= LN2
        assert 0.01 <= result.p_value <= 1


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("samples", "n_tokens"), [(20, 5), (100, 5)])
@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_type_one_error(samples, n_tokens, rho, paired):
    from type_one_error import one_null

    rejected = np.mean(
        [one_null("jsd", samples, n_tokens, rho, paired, False, i) <= 0.05 for i in range(400)]
    )
    assert 0.028 <= rejected <= 0.075


RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5))
Y = RNG.normal(size=(12, 5))
GX, GY = np.repeat(np.arange(6), 4), np.repeat(np.arange(6), 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gap.jsd(X, Y, GX, GY, dims=6), "ask for at most 5"),
        (lambda: gap.jsd(X, Y, GX, GY, dims=0), "at least 1"),
        (lambda: gap.jsd(np.ones((24, 5)), np.ones((12, 5)), GX, GY), "all vectors are equal"),
        (lambda: gap.jsd(X, Y, GX, GY, critics=["linaer"]), "did you mean 'linear'"),
        (lambda: gap.jsd(X, Y, GX, GY, critics=[]), "no critic"),
        (lambda: gap.jsd(X, Y, GX, GY, max_vectors=5), "allow one vector each"),
        (lambda: gap.jsd(X, Y, GX, GY, level=95), "between 0 and 1"),
        (lambda: gap.jsd_profile(X, Y, GX, GY, dims=(2, 9)), "ask for at most 5"),
        (lambda: gap.jsd_profile(X, Y, GX, GY, dims=()), "name some"),
        (lambda: gap.jsd_profile(X[:, :1], Y[:, :1], GX, GY), "at most 1 components"),
    ],
)
def test_bad_options_are_one_clear_line(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_bootstraps_there_is_no_interval():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 60, 3))
    groups = np.arange(60) // 3
    for ci in (
        gap.jsd(x, y, groups, groups, n_bootstraps=0, n_permutations=0).ci,
        gap.c2st(x, y, groups, groups, dims=2, n_bootstraps=0, n_permutations=0).ci,
    ):
        assert np.isnan(ci).all()
