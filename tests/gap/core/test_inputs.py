"""Bad vectors and ids are errors of one line, for every statistic, and never a silent NaN."""

import numpy as np
import pytest

from keygap import gap
from keygap.errors import UserError
from keygap.gap.core.inputs import (
    check_level,
    check_varies,
    in_turn,
    two_sides,
    with_equal_numbers,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5))
Y = RNG.normal(size=(12, 5))
GX, GY = np.repeat(np.arange(6), 4), np.repeat(np.arange(6), 2)


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
        (lambda: two_sides(X, Y, GX, GY + 6, paired=True), "paired=True needs the same samples"),
        (lambda: two_sides(X, Y, GX, None, paired=True), "on both sides, or on neither"),
        (lambda: two_sides(X, Y, paired=True), "24 samples in x, 12 in y, 12 in both"),
        (
            lambda: with_equal_numbers(two_sides(X, Y, GX, GY), 5, 0),
            "allow one vector each",
        ),
        (lambda: check_level(95), "between 0 and 1"),
        (lambda: check_varies(two_sides(X, Y * 0, GX, GY), "no width"), "of y are equal: no width"),
    ],
)
def test_bad_options_are_one_clear_line(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_who_is_paired():
    def paired(groups_x, groups_y, **options):
        return two_sides(X, Y, groups_x, groups_y, **options).paired

    assert paired(GX, GY)
    assert not paired(GX, GY + 6)
    assert not paired(None, None)
    assert not paired(GX, None)
    assert not paired(GX, GY, paired=False)
    assert paired([("a", g) for g in GX], [("a", g) for g in GY])
    assert two_sides(X[:12], Y, paired=True).paired


def test_ids_of_any_type_and_order_give_one_result():
    order = np.random.default_rng(1).permutation(24)
    base = two_sides(X, Y, GX, GY)
    assert base.names_x == tuple(range(6))
    for ids in (
        np.array([f"s{g}" for g in GX]),
        [f"s{g}" for g in GX],
        [("s", int(g)) for g in GX],
    ):
        moved = two_sides(X[order], Y, [ids[i] for i in order], GY, paired=False)
        for sample in range(6):
            rows = X[order][moved.sample_x == sample]
            assert {*map(tuple, rows)} == {*map(tuple, X[base.sample_x == sample])}


TWELVE = np.repeat(np.arange(12), 3)  # in text, 10 comes before 2
WORDS = np.array([f"q{' ' * (g % 3)}{g}" for g in TWELVE])
CONTAINERS = {
    "array": lambda ids: ids,
    "list of NumPy scalars": list,
    "list": lambda ids: ids.tolist(),
    "object array": lambda ids: ids.astype(object),
    "object array of NumPy scalars": lambda ids: np.array([*ids, None], dtype=object)[:-1],
}


@pytest.mark.parametrize("ids", [TWELVE, WORDS], ids=["numbers", "text"])
@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("paired", [True, False])
def test_the_container_of_ids_changes_nothing(ids, container, paired):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 36, 4)) + TWELVE[:, None] + [[[0.0]], [[0.3]]]
    as_ids = container(ids)
    few = {"paired": paired, "n_permutations": 99}
    for call in (
        lambda of_x, of_y: gap.mmd(x, y, of_x, of_y, n_bootstraps=9, **few),
        lambda of_x, of_y: gap.jsd(x, y, of_x, of_y, n_bootstraps=99, critics=["linear"], **few),
    ):
        plain = call(ids, ids)
        assert plain.paired == paired
        for of_x, of_y in ((as_ids, ids), (ids, as_ids), (as_ids, as_ids)):
            assert call(of_x, of_y) == plain


def test_equal_ids_that_are_sorted_differently_are_one_sample():
    x = TWELVE[:, None] * np.ones(3)
    sides = two_sides(x, x, [float(g) for g in TWELVE], TWELVE)
    assert sides.paired
    of_x, of_y = sides.by_sample(sides.x, sides.y)
    np.testing.assert_array_equal(of_x, of_y)
    assert of_x[:, 0] == pytest.approx([float(str(name)) for name in sides.names_x])


def test_numpy_numbers_and_numbers_are_of_one_type():
    """Samples of two sides may differ, however the ids are held."""
    for of_x in (list(GX), np.array([*GX, None], dtype=object)[:-1]):
        sides = two_sides(X, Y, of_x, (GY + 6).tolist())
        assert not sides.paired
        assert sides.names_x == tuple(range(6))


def test_samples_take_turns():
    sample = np.array([0] * 50 + [1] * 2 + [2] * 3)
    order = in_turn(sample, np.random.default_rng(0))
    assert sorted(order) == list(range(55))
    assert sorted(sample[order[:3]]) == [0, 1, 2]
    assert sorted(sample[order[3:6]]) == [0, 1, 2]
    assert sorted(sample[order[6:8]]) == [0, 2]


def test_thinning_keeps_every_sample_and_its_vectors():
    thin = with_equal_numbers(two_sides(X, Y, GX, GY), 7, seed=0)
    assert (len(thin.x), len(thin.y)) == (7, 7)
    assert set(thin.sample_x) == set(thin.sample_y) == set(range(6))
    for vector, sample in zip(thin.x, thin.sample_x, strict=True):
        (row,) = np.flatnonzero((vector == X).all(1))
        assert GX[row] == sample


def test_the_larger_side_is_thinned_to_the_number_of_the_other():
    given = two_sides(X, Y, GX, GY)
    found = with_equal_numbers(given, 1000, seed=0)
    assert len(found.x) == len(found.y) == 12
    assert np.bincount(found.sample_x).tolist() == [2] * 6
    assert np.array_equal(found.y, given.y)
    assert with_equal_numbers(found, 12, seed=1) is found


def test_samples_beyond_the_vectors_of_the_other_side_are_left_out():
    given = two_sides(X, Y[:5], np.arange(100, 124), np.arange(5))
    found = with_equal_numbers(given, 1000, seed=0)
    assert (found.n_samples_x, found.n_samples_y, found.n_cells) == (5, 5, 10)
    assert len(set(found.names_x)) == 5
    for vector, sample in zip(found.x, found.sample_x, strict=True):
        (row,) = np.flatnonzero((vector == X).all(1))
        assert found.names_x[sample] == 100 + row


def test_each_sample_and_each_side_weighs_the_same():
    sides = two_sides(X, Y[:11], GX, GY[:11])
    assert sides.weights_x.sum() == pytest.approx(1.0)
    assert sides.weights.sum() == pytest.approx(1.0)
    for cell in range(sides.n_cells):
        assert sides.weights[sides.cells == cell].sum() == pytest.approx(0.5 / 6)
    assert sides.is_x.sum() == 24


def test_rows_of_their_own_are_samples():
    alone = gap.mmd(X, Y, bandwidth=2.0, n_permutations=9, n_bootstraps=9)
    named = gap.mmd(X, Y, np.arange(24), np.arange(100, 112), bandwidth=2.0,
                    n_permutations=9, n_bootstraps=9)  # fmt: skip
    assert alone.n_samples_x == 24
    assert alone.mmd2 == named.mmd2
