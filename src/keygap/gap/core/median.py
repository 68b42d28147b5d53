"""The median distance between two vectors, around which the bandwidths of a Gaussian kernel lie.

MMD squared changes by about as much as its bandwidth, in percent. So the median may vary less with
the draw than MMD squared with the samples, whose interval knows nothing of the draw. All pairs of n
vectors would take n^2 distances, and all pairs of few vectors differ from draw to draw. Some pairs
of every vector cost as little as all pairs of few, and differ far less.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from keygap import random_streams
from keygap.errors import UserError
from keygap.gap.core.inputs import CheckedSides, in_turn

MOST_ROWS = 20_000  # of each side that are used
BLOCK = 25  # rows of each side between which distances are taken
LEAST_BLOCKS = 200  # so that few vectors have many pairs, too
_AT_ONCE = 16  # blocks


def median_distance(sides: CheckedSides, seed: int) -> float:
    """Median Euclidean distance between two vectors. O(50 (n + m) d).

    Both sides are shuffled and cut into blocks of 25 rows, again and again until there are 200 of
    each, and as many as the longer side has. Distances are those within a block of x and a block of
    y together. A quarter of their weight is on pairs of x, a quarter on pairs of y, and half on
    pairs of x and y; the samples of a side weigh the same. At most 20,000 rows of a side are used,
    which its samples give in turn.

    Args:
        sides: Both sides.
        seed: Seed of the blocks.

    Returns:
        The median, in units of the vectors: the smallest distance at which half of the weight is
        reached.

    Raises:
        UserError: The median is zero.
    """
    rng = random_streams.generator(seed, "median distance")
    rows_x, rows_y = (in_turn(one, rng)[:MOST_ROWS] for one in (sides.sample_x, sides.sample_y))
    size = min(BLOCK, len(rows_x), len(rows_y))
    count = max(len(rows_x) // size, len(rows_y) // size, LEAST_BLOCKS)
    x, y = (_blocks(rows, count, size, rng) for rows in (rows_x, rows_y))
    weights = _weights(_of_rows(sides.sample_x, rows_x)[x], _of_rows(sides.sample_y, rows_y)[y])
    squares = np.empty_like(weights)
    for start in range(0, count, _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        squares[some] = _squares(np.concatenate([sides.x[x[some]], sides.y[y[some]]], 1))
    median = math.sqrt(_weighted_median(squares.ravel(), weights.ravel()))
    if median == 0.0:
        raise UserError(
            "the median distance between vectors is 0 (most vectors are equal): "
            "drop repeated vectors, or give a bandwidth"
        )
    return median


def _blocks(
    rows: Int[np.ndarray, " n"], count: int, size: int, rng: np.random.Generator
) -> Int[np.ndarray, "count size"]:
    """Blocks of different rows in random order, which use all rows before they use one again."""
    whole = len(rows) // size * size
    turns = -(-count * size // whole)
    shuffled = np.concatenate([rng.permutation(rows)[:whole] for _ in range(turns)])
    return shuffled[: count * size].reshape(count, size)


def _of_rows(sample: Int[np.ndarray, " n"], rows: Int[np.ndarray, " k"]) -> Float[np.ndarray, " n"]:
    """One over the number of these rows that the sample of each row has."""
    return 1.0 / np.bincount(sample[rows]).clip(min=1)[sample]


def _weights(
    x: Float[np.ndarray, "blocks size"], y: Float[np.ndarray, "blocks size"]
) -> Float[np.ndarray, "blocks pairs"]:
    """Weights of the pairs, from those of the rows."""
    size = x.shape[1]
    of_rows = np.concatenate([x, y], 1)
    first, second = np.triu_indices(2 * size, 1)
    found = of_rows[:, first] * of_rows[:, second]
    within_x, within_y = second < size, first >= size
    for share, pairs in ((0.25, within_x), (0.25, within_y), (0.5, ~within_x & ~within_y)):
        found[:, pairs] *= share / found[:, pairs].sum()
    return found


def _squares(points: Float[np.ndarray, "blocks rows d"]) -> Float[np.ndarray, "blocks pairs"]:
    """Squared distances between the rows of each block; 0 for equal ones."""
    points = points.astype(np.float64)
    points -= points.mean((0, 1))
    lengths = (points**2).sum(2)
    between = lengths[:, :, None] + lengths[:, None, :] - 2.0 * points @ points.transpose(0, 2, 1)
    first, second = np.triu_indices(points.shape[1], 1)
    found = between[:, first, second]
    found[found < 1e-14 * points.shape[2] * lengths.max()] = 0.0  # rounding
    return found


def _weighted_median(values: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]) -> float:
    """The smallest value at which half of the weight is reached."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    half = 0.5 * reached[-1] * (1.0 - 1e-12)  # sums are rounded
    return float(values[order[np.searchsorted(reached, half)]])
