"""The median distance between two vectors, around which the bandwidths of a Gaussian kernel lie.

MMD squared changes by about as much as its bandwidth, in percent. The interval of MMD squared does
not include how the median varies between draws, so that variation has to be much smaller than the
sampling error. All pairs of n vectors would take n^2 distances, and all pairs of a thousand vectors
differ too much from draw to draw. A few pairs of each of many vectors cost no more and differ far
less.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from keygap import random_streams
from keygap.errors import UserError
from keygap.gap.core.inputs import CheckedSides

FEW_ROWS = 1_000  # of both sides together, between all of which distances are taken
MOST_ROWS = 20_000  # of each side that are drawn, if there are more
BLOCK = 25  # of the rows that are drawn of a side, between which distances are taken
LEAST_BLOCKS = 200
_AT_ONCE = 16  # blocks


def median_distance(sides: CheckedSides, seed: int) -> float:
    """Median Euclidean distance between two vectors. O(50 (n + m) d).

    A quarter of the weight is on pairs of x, a quarter on pairs of y, and half on pairs of x and y;
    the samples of a side weigh the same, and pairs of one sample do not count, as in MMD. If there
    are more than 1,000 vectors, not all pairs are used: up to 20,000 rows of each side are drawn,
    one from each sample in turn, and cut into blocks of 25. Each block of x is joined with a block
    of y, and the distances between their 50 rows are used.

    Args:
        sides: Both sides.
        seed: Seed of the draw.

    Returns:
        The median, in units of the vectors: the smallest distance at which half of the weight is
        reached.

    Raises:
        UserError: The median is zero.
    """
    if len(sides.x) + len(sides.y) <= FEW_ROWS:
        x, y = np.arange(len(sides.x))[None], np.arange(len(sides.y))[None]
        of_rows = np.concatenate([sides.weights_x[x], sides.weights_y[y]], 1)
    else:
        longer = min(MOST_ROWS, max(len(sides.x), len(sides.y)))
        count = max(longer // BLOCK, LEAST_BLOCKS)
        rng = random_streams.generator(seed, "median distance")
        x = _drawn(sides.sample_x, count * BLOCK, rng).reshape(count, BLOCK)
        y = _drawn(sides.sample_y, count * BLOCK, rng).reshape(count, BLOCK)
        of_rows = np.ones((count, 2 * BLOCK))
    unit_y = sides.sample_y if sides.paired else sides.sample_y + sides.n_samples_x
    weights = _weights(sides.sample_x[x], unit_y[y], of_rows)
    squares = np.empty_like(weights)
    for start in range(0, len(squares), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        squares[some] = _squares(np.concatenate([sides.x[x[some]], sides.y[y[some]]], 1))
    median = math.sqrt(_weighted_median(squares.ravel(), weights.ravel()))
    if median == 0.0:
        raise UserError(
            "the median distance between vectors is 0 (most vectors are equal): "
            "drop repeated vectors, or give a bandwidth"
        )
    return median


def _drawn(
    sample: Int[np.ndarray, " n"], count: int, rng: np.random.Generator
) -> Int[np.ndarray, " count"]:
    """Rows that the samples give in turn; a sample that has given all begins anew."""
    shuffled = rng.permutation(len(sample))
    by_sample = shuffled[np.argsort(sample[shuffled], kind="stable")]
    sizes = np.bincount(sample)
    turns = np.arange(-(-count // len(sizes)))[:, None]
    places = np.cumsum(sizes) - sizes + turns % sizes
    return by_sample[rng.permuted(places, axis=1).ravel()[:count]]


def _weights(
    x: Int[np.ndarray, "blocks a"],
    y: Int[np.ndarray, "blocks b"],
    of_rows: Float[np.ndarray, "blocks a+b"],
) -> Float[np.ndarray, "blocks pairs"]:
    """Weights of the pairs of rows within each block, from the samples and weights of the rows."""
    first, second = np.triu_indices(of_rows.shape[1], 1)
    found = of_rows[:, first] * of_rows[:, second]
    samples = np.concatenate([x, y], 1)
    found[samples[:, first] == samples[:, second]] = 0.0
    within_x, within_y = second < x.shape[1], first >= x.shape[1]
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
