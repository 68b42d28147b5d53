"""Heads that are computed together read what each reads alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keygap import gap, random_streams
from keygap.errors import UserError
from keygap.gap.core.gaussian import gaussian_totals
from keygap.gap.core.inputs import two_sides
from keygap.gap.core.kernels import gaussian_means
from keygap.gap.core.resampling import PairSums

from .made_sides import unequal_sides

HEADS, WIDTH = 3, 6


def all_heads(seed, paired=True, samples=40, **options: Any) -> gap.Sides:
    x, y, groups_x, groups_y = unequal_sides(seed, samples=samples, d=HEADS * WIDTH, paired=paired)
    x = x + np.linspace(0.0, 1.0, HEADS * WIDTH)  # heads differ more and more
    settings: dict[str, Any] = {"heads": HEADS, "n_bootstraps": 50, **options}
    return gap.Sides(x, y, groups_x, groups_y, **settings)


def split(whole, **options):
    return [whole, *(whole.head(head, **options) for head in range(HEADS))]


def together(name: str, heads: list[gap.Sides]) -> list[Any]:
    """The results of one statistic for all heads."""
    return list(gap.STATISTICS[name].of_heads(heads))


def by_itself(name: str, sides: gap.Sides) -> Any:
    """The result for the same vectors without what they share with others."""
    return gap.STATISTICS[name](alone(sides))


def alone(sides: gap.Sides) -> gap.Sides:
    """The same vectors without what they share with others."""
    settings: dict[str, Any] = {
        "dims": sides.dims,
        "n_permutations": sides.n_permutations,
        "n_bootstraps": sides.n_bootstraps,
        "seed": sides.seed,
    }
    return gap.Sides(sides.x, sides.y, *sides.groups, **settings)


def test_a_head_is_its_columns_and_shares_the_scale():
    whole = all_heads(0)
    for head, own in enumerate(split(whole, dims=(2,), n_permutations=7)[1:]):
        columns = slice(head * WIDTH, (head + 1) * WIDTH)
        np.testing.assert_array_equal(own.x, whole.x[:, columns])
        assert (own.heads, own.dims, own.n_permutations) == (1, (2,), 7)
        for shared, scaled in zip(own.standardised, alone(own).standardised, strict=True):
            np.testing.assert_array_equal(shared, scaled)


@pytest.mark.parametrize("paired", [True, False])
def test_mmd_of_heads_in_one_pass(paired):
    heads = split(all_heads(1, paired, n_permutations=200), n_permutations=99)
    for own, found in zip(heads, together("mmd", heads), strict=True):
        expected = by_itself("mmd", own)
        assert found.bandwidth == pytest.approx(expected.bandwidth, rel=1e-7)
        for name in ("mmd2", "p_value", "ci", "null_band"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=2e-6), name
        assert found.without == pytest.approx(expected.without, abs=2e-6)
        assert len(found.null) == own.n_permutations


@pytest.mark.parametrize("paired", [True, False])
def test_totals_in_parts_equal_those_of_the_matrix_over_cells(paired):
    x, y, groups_x, groups_y = unequal_sides(2, samples=700, d=2, paired=paired)  # several blocks
    sides, grid = two_sides(x, y, groups_x, groups_y), (2.0, 1.0)
    (found,) = gaussian_totals([sides], [grid], [50], seed=7)
    expected = PairSums.from_cells(gaussian_means(sides, grid)[0], sides)
    np.testing.assert_allclose(found.totals.to_x, expected.totals.to_x, atol=1e-4)
    np.testing.assert_allclose(found.totals.to_y, expected.totals.to_y, atol=1e-4)
    assert found.totals.statistic() == pytest.approx(expected.totals.statistic(), abs=1e-8)
    swaps = random_streams.generator(7, "mmd", "label swaps")
    np.testing.assert_allclose(found.null, expected.swapped(50, swaps), atol=1e-8)


def test_jsd_of_heads_from_one_batch_of_fits():
    whole = all_heads(3, samples=30, dims=(2, 3))
    heads = split(whole, dims=(2,))
    for own, found in zip(heads, together("jsd", heads), strict=True):
        expected = by_itself("jsd", own)
        assert found.dims == expected.dims
        for one, other in zip(found.results, expected.results, strict=True):
            assert one.raw_nats == pytest.approx(other.raw_nats, abs=1e-4)
            assert one.ci == pytest.approx(other.ci, abs=1e-4)
            assert one.wins == other.wins


def test_a_head_that_is_always_equal_leaves_the_others_alone():
    whole = all_heads(4)
    for side in (whole.x, whole.y):
        side[:, WIDTH : 2 * WIDTH] = 1.0
    heads = split(whole, dims=(2,))
    for name in ("mmd", "jsd"):
        every, first, dead, last = together(name, heads)
        assert isinstance(dead, UserError)
        for own, found in zip((heads[0], heads[1], heads[3]), (every, first, last), strict=True):
            expected = by_itself(name, own).readings[0].value
            assert found.readings[0].value == pytest.approx(expected, abs=1e-4)


def test_a_statistic_of_single_heads():
    whole = all_heads(5)
    spread = gap.STATISTICS["spread"]
    found = spread.of_heads(split(whole))
    assert found == [spread(own) for own in split(whole)]
