"""The ratio of two gaps: its jackknife by leaving samples out, its coverage, what it refuses."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from planted import tokens
from scipy import stats

from keygap import gap
from keygap.errors import UserError

OPTIONS: dict[str, Any] = {"bandwidth": 3.0, "n_permutations": 1, "n_bootstraps": 1}


def three(seed, samples=12, shifts=(2.0, 1.5)):
    """Vectors and sample ids of images, of words of one kind, and of words of another."""
    rng = np.random.default_rng(seed)
    sides = []
    for axis, shift in ((0, shifts[0]), (1, 0.0), (1, shifts[1])):
        vectors, sample = tokens(rng, rng.integers(2, 6, samples), 4, 0.3)
        vectors[:, axis] += shift
        sides.append((vectors, np.array([f"q{s:02d}" for s in sample])))
    return sides


def gaps_of(sides, without="", other_without=""):
    """MMD of image and text and of the two kinds of words, each without one sample if named."""

    def keep(side, name):
        rows = side[1] != name
        return side[0][rows], side[1][rows]

    def measured(a, b, name):
        (x, of_x), (y, of_y) = keep(a, name), keep(b, name)
        return gap.mmd(x, y, of_x, of_y, **OPTIONS)

    image, a, b = sides
    text = tuple(np.concatenate(parts) for parts in zip(a, b, strict=True))
    return measured(image, text, without), measured(a, b, other_without)


@pytest.mark.parametrize("missing", ["", "q03"])
def test_interval_equals_leaving_samples_out_for_real(missing):
    """It holds as well if the second contrast lacks a sample that the first has."""
    sides = three(0)
    first, second = gaps_of(sides, other_without=missing)
    logs = []
    for name in (f"q{s:02d}" for s in range(12)):
        of_first, _ = gaps_of(sides, without=name)
        rest = [(v[ids != missing], ids[ids != missing]) for v, ids in sides]
        _, of_second = gaps_of(rest, other_without=name)
        logs.append(math.log(of_first.mmd2 / of_second.mmd2))
    fewest = 10 if missing else 11  # degrees of freedom of the contrast with fewer samples
    half = stats.t.ppf(0.975, fewest) * math.sqrt(11 * np.var(logs))
    found = gap.mmd_ratio(first, second)
    assert found.ratio == pytest.approx(first.mmd2 / second.mmd2)
    assert found.n_samples == 12
    assert np.log(found.ci) == pytest.approx(
        [math.log(found.ratio) - half, math.log(found.ratio) + half], abs=1e-4
    )


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_inverse_ratio_has_the_inverse_interval(seed):
    first, second = gaps_of(three(seed))
    assume(second.mmd2 > 0)
    there, back = gap.mmd_ratio(first, second), gap.mmd_ratio(second, first)
    assert there.ratio * back.ratio == pytest.approx(1.0)
    if there.ci[0] > 0:
        assert there.ci == pytest.approx((1 / back.ci[1], 1 / back.ci[0]))
        assert there.ci[0] < there.ratio < there.ci[1]


def test_the_ratio_of_a_gap_to_itself_is_one_and_certain():
    first, _ = gaps_of(three(1))
    found = gap.mmd_ratio(first, first)
    assert found.ratio == 1.0
    assert found.ci == pytest.approx((1.0, 1.0))


def test_a_second_gap_that_may_be_none_has_no_bound():
    for seed in range(20):
        first, second = gaps_of(three(seed, samples=5, shifts=(2.0, 0.0)))
        if second.mmd2 > 0 and min(second.without.values()) <= 0:
            assert gap.mmd_ratio(first, second).ci == (0.0, math.inf)
            return
    raise AssertionError("no seed gave a gap that one sample makes")


def test_gaps_without_a_ratio_are_refused_in_one_line():
    first, _ = gaps_of(three(2))
    x, y = np.random.default_rng(0).normal(size=(2, 40, 4))
    unpaired = gap.mmd(x, y + 1, **OPTIONS)
    elsewhere = gap.mmd(x, y + 1, np.arange(40), np.arange(40), **OPTIONS)
    none = next(
        found
        for found in (gaps_of(three(seed, shifts=(2.0, 0.0)))[1] for seed in range(20))
        if found.mmd2 <= 0
    )
    for other, line in (
        (unpaired, "needs paired contrasts"),
        (elsewhere, "no sample in common"),
        (none, "a ratio needs two positive values"),
    ):
        with pytest.raises(UserError, match=line):
            gap.mmd_ratio(first, other)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"kernel": "linear", "bandwidth": None}, "different kernels, gaussian and linear"),
        ({"estimator": "biased"}, "different estimators, unbiased and biased"),
    ],
)
def test_gaps_of_two_kinds_have_no_ratio(options, line):
    first, _ = gaps_of(three(2))
    (x, of_x), (y, of_y), _ = three(2)
    other = gap.mmd(x, y, of_x, of_y, **OPTIONS | options)
    for pair in ((first, other), (other, first)):
        with pytest.raises(UserError, match=line if pair[0] is first else "different"):
            gap.mmd_ratio(*pair)
    assert gap.mmd_ratio(other, other).ratio == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("samples", "fewer"), [(20, False), (100, False), (100, True)])
def test_coverage(samples, fewer):
    from ratio_coverage import one_ratio

    held = [one_ratio(samples, 0.5, 1.0, 1.5, fewer, i)[0] for i in range(400)]
    assert 0.92 <= np.mean(held) <= 0.985


def test_a_contrast_with_few_samples_makes_the_ratio_less_certain():
    """Four samples of one contrast beside 60 of the other; the means are equally far apart."""
    options: dict[str, Any] = {"kernel": "linear", "n_permutations": 0, "n_bootstraps": 0}
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found = []
        for count, deviation in ((60, 0.2), (4, 0.4)):
            x, y = (rng.normal(size=(count, 3)) * deviation + shift for shift in (0.0, 1.5))
            found.append(gap.mmd(x, y, np.arange(count), np.arange(count), **options))
        low, high = gap.mmd_ratio(*found).ci
        held += low <= 1.0 <= high
    assert held / 200 >= 0.95  # 0.92 with the degrees of freedom of 60 samples
