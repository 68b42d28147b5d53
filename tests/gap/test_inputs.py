"""Every error that a user can mend, in one line, and no quiet NaN."""

import numpy as np
import pytest

from keygap import gap
from keygap.errors import UserError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5))
Y = RNG.normal(size=(12, 5))
GX, GY = np.repeat(np.arange(6), 4), np.repeat(np.arange(6), 2)
FLAT = Y * [1, 1, 1, 1, 0]


def broken(values, row, value):
    values = values.copy()
    values[row, 2] = value
    return values


BAD = {
    "empty side": ((X[:0], Y, GX[:0], GY), "x has no vectors"),
    "one dimension": ((X[0], Y, GX, GY), "vectors as rows"),
    "text": ((np.array([["a", "b"]] * 24), Y, GX, GY), "real numbers"),
    "widths": ((X, Y[:, :4], GX, GY), "x has 5 columns and y has 4"),
    "NaN": ((broken(X, 9, np.nan), Y, [f"q{g}" for g in GX], [f"q{g}" for g in GY]),
            "x holds NaN in sample 'q2', row 9"),
    "infinity": ((X, broken(Y, 11, -np.inf), GX, GY), "y holds an infinite value in sample 5"),
    "length of ids": ((X, Y, GX[:-1], GY), "groups_x has shape"),
    "three samples": ((X[:12], Y[:6], GX[:12], GY[:6]), "x has 3 samples and needs at least 4"),
    "three samples on one side": ((X, Y[:6], GX, GY[:6] + 10), "y has 3 samples"),
    "shared in part": ((X, Y, GX, GY + 2), "share some samples and not all (6 samples in x, 6"),
    "numbers and strings": ((X, Y, GX, [str(g) for g in GY]), "give ids of one type"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize(
    "statistic",
    [gap.mmd, gap.jsd, gap.jsd_profile, gap.jsd_histogram, gap.c2st, gap.frechet,
     gap.modality_gap, gap.moments, gap.contribution, gap.spread],
)  # fmt: skip
def test_bad_input_is_one_clear_line(statistic, case):
    arguments, message = BAD[case]
    with pytest.raises(UserError) as caught:
        statistic(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gap.mmd(X, Y, GX, GY, kernel="gausian"), "did you mean 'gaussian'"),
        (lambda: gap.mmd(X, Y, GX, GY, bandwidth=0.0), "positive"),
        (lambda: gap.mmd(X, Y, GX, GY, kernel="linear", bandwidth=1.0), "no bandwidth"),
        (lambda: gap.mmd(X, Y, GX, GY, level=95), "between 0 and 1"),
        (lambda: gap.mmd(X, Y, GX, GY + 6, paired=True), "paired=True needs the same samples"),
        (lambda: gap.mmd(X, Y, GX, None, paired=True), "on both sides, or on neither"),
        (lambda: gap.mmd(np.ones((24, 5)), np.ones((12, 5)), GX, GY), "median distance"),
        (lambda: gap.mmd(np.zeros((9000, 2)), np.zeros((9000, 2))), "18000 samples"),
        (lambda: gap.jsd(X, Y, GX, GY, dims=6), "ask for at most 5"),
        (lambda: gap.jsd(X, Y, GX, GY, dims=0), "at least 1"),
        (lambda: gap.jsd(np.ones((24, 5)), np.ones((12, 5)), GX, GY), "all vectors are equal"),
        (lambda: gap.jsd(X, Y, GX, GY, critics=["linaer"]), "did you mean 'linear'"),
        (lambda: gap.jsd(X, Y, GX, GY, critics=[]), "no critic"),
        (lambda: gap.jsd(X, Y, GX, GY, max_vectors=5), "allow one vector each"),
        (lambda: gap.jsd_profile(X, Y, GX, GY, dims=(2, 9)), "ask for at most 5"),
        (lambda: gap.jsd_profile(X, Y, GX, GY, dims=()), "name some"),
        (lambda: gap.jsd_profile(X[:, :1], Y[:, :1], GX, GY), "at most 1 components"),
        (lambda: gap.jsd_histogram(X, Y, GX, GY, bins=1), "at least 2"),
        (lambda: gap.frechet(np.ones((24, 5)), Y, GX, GY), "all vectors of x are equal"),
        (lambda: gap.spread(X, np.ones((12, 5)), GX, GY), "all vectors of y are equal"),
        (lambda: gap.modality_gap(X * (GX != 2)[:, None], Y, GX, GY), "row 8 of x has length"),
        (lambda: gap.contribution(X, Y, GX, GY, n_heads=2), "do not divide"),
        (lambda: gap.moments(X, FLAT, GX, GY, dims=5), "y does not vary in all of the 5"),
        (lambda: gap.mir([]), "no layers"),
        (lambda: gap.mir([(X, Y), (X, Y * 0)]), "layer 2: all text vectors are zero"),
        (lambda: gap.mir([(X, Y[:1])]), "text of layer 1 has one vector"),
        (lambda: gap.mir([(X, X)]), "log10 of 0"),
        (lambda: gap.mir([(broken(X, 0, np.nan), Y)]), "image of layer 1 holds NaN"),
        (lambda: gap.holm([0.1, 1.2]), "between 0 and 1"),
    ],
)  # fmt: skip
def test_bad_options(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_constant_columns():
    """Harmless to distances; an error where more components are asked for than vary."""
    still = np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    assert gap.jsd(X * still, Y * still, GX, GY).dims == 3
    assert np.isfinite(gap.mmd(X * still, Y * still, GX, GY).mmd2)
    assert gap.contribution(X * still, Y * still, GX, GY).effect_size[3] == 0.0
    with pytest.raises(UserError, match="vary in 3 directions only"):
        gap.jsd(X * still, Y * still, GX, GY, dims=5)
    apart = X.copy(), Y.copy()
    apart[0][:, 4], apart[1][:, 4] = 1.0, 2.0
    with pytest.raises(UserError, match="column 4 is constant on each side"):
        gap.contribution(*apart, GX, GY)


def test_few_vectors_for_the_components():
    wide = RNG.normal(size=(16, 40))
    with pytest.raises(UserError, match="20 components from 16 vectors: ask for at most 15"):
        gap.jsd(wide[:8], wide[8:], np.arange(8), np.arange(8), dims=20)


def test_who_is_paired():
    def paired(groups_x, groups_y, **options):
        return gap.contribution(X, Y, groups_x, groups_y, **options).paired

    assert paired(GX, GY)
    assert not paired(GX, GY + 6)
    assert not paired(None, None)
    assert not paired(GX, None)
    assert not paired(GX, GY, paired=False)
    assert paired([("a", g) for g in GX], [("a", g) for g in GY])
    assert gap.contribution(X[:12], Y, paired=True).paired


def test_rows_of_their_own_are_samples():
    alone = gap.mmd(X, Y, bandwidth=2.0, n_permutations=9, n_bootstraps=9)
    named = gap.mmd(X, Y, np.arange(24), np.arange(100, 112), bandwidth=2.0,
                    n_permutations=9, n_bootstraps=9)  # fmt: skip
    assert alone.n_samples_x == 24
    assert alone.mmd2 == named.mmd2
