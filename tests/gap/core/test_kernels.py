"""Mean kernels do not depend on how they are computed."""

import numpy as np
import pytest

from keygap.gap.core.inputs import two_sides
from keygap.gap.core.kernels import energy_means, gaussian_means, linear_means

from ..made_sides import unequal_sides


def test_square_trick_equals_direct_exponentials():
    x, y, groups_x, groups_y = unequal_sides(1, samples=20, d=16)
    sides = two_sides(x, y, groups_x, groups_y)
    grid = tuple(4.0 * 2 ** (-0.5 * i) for i in range(5))
    together, _ = gaussian_means(sides, grid)
    alone = np.mean([gaussian_means(sides, (sigma,))[0] for sigma in grid], axis=0)
    np.testing.assert_allclose(together, alone, atol=2e-6)  # rounding of a 16th power


@pytest.mark.parametrize("block", [1, 7, 64])
def test_block_size_does_not_matter(block):
    sides = two_sides(*unequal_sides(2, samples=15, d=6))
    for means in (lambda b: gaussian_means(sides, (2.0, 1.0), block=b)[0],
                  lambda b: energy_means(sides, block=b)):  # fmt: skip
        np.testing.assert_allclose(means(block), means(10_000), rtol=2e-6, atol=2e-7)


def test_means_of_cells_by_hand():
    x, y, groups_x, groups_y = unequal_sides(0, samples=5)
    pooled = np.concatenate([x, y])
    cells = np.concatenate([groups_x, groups_y + 5])
    distance = np.linalg.norm(pooled[:, None] - pooled, axis=2)
    sides = two_sides(x, y, groups_x, groups_y)
    for means, kernel in (
        (gaussian_means(sides, (2.0,))[0], np.exp(-(distance**2) / 8.0)),
        (energy_means(sides), -distance),
        (linear_means(sides), None),
    ):
        assert means.shape == (10, 10)
        np.testing.assert_allclose(means, means.T, atol=1e-6)
        for a, b in ((0, 0), (1, 7), (6, 2), (9, 9)):
            if kernel is None:  # centred on the mean of the cell means
                of_cell = np.array([pooled[cells == c].mean(0) for c in range(10)])
                of_cell -= of_cell.mean(0)
                expected = of_cell[a] @ of_cell[b]
            else:
                expected = kernel[np.ix_(cells == a, cells == b)].mean()
            assert means[a, b] == pytest.approx(expected, abs=1e-6)
