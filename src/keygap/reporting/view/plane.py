"""Tokens of one site and layer as points of a plane, and the few of them that a window shows.

A window may have millions of points, and a screen has room for some thousands. Which are shown
follows from an order of the points that a seed fixes, and from a grid of the plane whose cells are
halved at each level of detail. Each cell that has a point shows the first of it, so that a lone
point is never lost. The others follow in the order of the seed. The cells do not move with the
window: a point that is shown stays when the window moves, and when it shrinks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from keygap import random_streams

ACROSS = 96  # most cells of a level of detail along the longer side of a window
Window = tuple[float, float, float, float]  # least x, greatest x, least y, greatest y


@dataclass(frozen=True)
class Thinned:
    """What a window shows.

    Attributes:
        rows: of the plane, in the order of its points.
        window: how many points lie in the window.
        matching: how many of them match the filter.
    """

    rows: Int[np.ndarray, " shown"]
    window: int
    matching: int


@dataclass(frozen=True, eq=False)
class Plane:
    """Points in the order in which they are thinned: any first part of them is a random sample.

    Attributes:
        token: the number of each point's token.
        x: first coordinates.
        y: second coordinates.
        attention: what each token receives, divided by its even share; NaN if it is not known.
    """

    token: Int[np.ndarray, " n"]
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    attention: Float[np.ndarray, " n"]

    @cached_property
    def low(self) -> tuple[float, float]:
        """The least coordinates."""
        return float(self.x.min()), float(self.y.min())

    @cached_property
    def high(self) -> tuple[float, float]:
        """The greatest coordinates."""
        return float(self.x.max()), float(self.y.max())

    @property
    def whole(self) -> Window:
        """The window that shows all points."""
        return self.low[0], self.high[0], self.low[1], self.high[1]

    @property
    def nbytes(self) -> int:
        """How much memory the points take."""
        arrays = (self.token, self.x, self.y, self.attention, self._rows)
        return sum(one.nbytes for one in arrays)

    @cached_property
    def _rows(self) -> Int[np.ndarray, " n"]:
        """The rows by ascending number of their tokens."""
        return np.argsort(self.token, kind="stable").astype(np.int32)

    def rows_of(self, tokens: Int[np.ndarray, " k"]) -> Int[np.ndarray, " found"]:
        """The rows of some tokens, without those that have no point."""
        at = np.searchsorted(self.token, tokens, sorter=self._rows)
        rows = self._rows[np.minimum(at, len(self._rows) - 1)]
        return rows[self.token[rows] == tokens]

    def thinned(
        self, window: Window, most: int, match: Bool[np.ndarray, " tokens"] | None = None
    ) -> Thinned:
        """The points of a window, at most a number of them.

        Args:
            window: of the plane.
            most: of the points.
            match: whether each token matches a filter; three quarters of the points are then
                kept for those that do, and the others show where the rest lies.
        """
        rows = self._inside(window)
        if match is None:
            return Thinned(self._first(rows, window, most), len(rows), len(rows))
        good = match[self.token[rows]]
        found, others = rows[good], rows[~good]
        first = self._first(found, window, max(most - len(others), most * 3 // 4))
        rest = others[: most - len(first)]
        return Thinned(np.sort(np.concatenate([first, rest])), len(rows), len(found))

    def within(self, corners: Float[np.ndarray, "k 2"]) -> Int[np.ndarray, " inside"]:
        """The rows of the points inside a region.

        Args:
            corners: of the region, in their order around it. Where its line crosses itself, what
                it goes around twice is outside.
        """
        (left, bottom), (right, top) = corners.min(axis=0), corners.max(axis=0)
        rows = self._inside((left, right, bottom, top))
        x, y = self.x[rows], self.y[rows]
        inside = np.zeros(len(rows), bool)
        # A ray to the right crosses the line an odd number of times.
        for (x_0, y_0), (x_1, y_1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            at = np.flatnonzero((y >= y_0) != (y >= y_1))
            inside[at] ^= x[at] < x_0 + (x_1 - x_0) * (y[at] - y_0) / (y_1 - y_0)
        return rows[inside]

    def _inside(self, window: Window) -> Int[np.ndarray, " inside"]:
        left, right, bottom, top = window
        (x, y), (greatest_x, greatest_y) = self.low, self.high
        if left <= x and right >= greatest_x and bottom <= y and top >= greatest_y:
            return np.arange(len(self.token), dtype=np.int32)
        inside = self.x >= left
        inside &= self.x <= right
        inside &= self.y >= bottom
        inside &= self.y <= top
        return np.flatnonzero(inside).astype(np.int32)

    def _first(
        self, rows: Int[np.ndarray, " n"], window: Window, most: int
    ) -> Int[np.ndarray, " shown"]:
        """The first row of each cell that has one, then the first of the others."""
        if len(rows) <= most:
            return rows
        cells, count = self._cells(rows, window)
        first = np.full(count, -1, np.int32)
        # Of several values for one place numpy keeps the last, here the first row.
        first[cells[::-1]] = np.arange(len(rows) - 1, -1, -1, dtype=np.int32)
        kept = np.sort(first[first >= 0])[:most]
        chosen = np.zeros(len(rows), bool)
        chosen[kept] = True
        chosen[np.flatnonzero(~chosen[: 2 * most])[: most - len(kept)]] = True
        return rows[np.flatnonzero(chosen)]

    def _cells(
        self, rows: Int[np.ndarray, " n"], window: Window
    ) -> tuple[Int[np.ndarray, " n"], int]:
        """The cell of each row at the window's level of detail, and one past the last."""
        left, right, bottom, top = window
        extent = max(self.high[0] - self.low[0], self.high[1] - self.low[1]) or 1.0
        seen = min(max(right - left, top - bottom, extent * 2.0**-20), extent)
        size = extent / 2.0 ** np.floor(np.log2(ACROSS * extent / seen))
        column, line = (
            ((values[rows] - np.float32(low)) * np.float32(1 / size)).astype(np.int32)
            for values, low in ((self.x, self.low[0]), (self.y, self.low[1]))
        )
        column -= column.min()
        line -= line.min()
        width = int(column.max()) + 1
        line *= width
        line += column
        return line, (int(line.max()) // width + 1) * width


def plane(
    token: Int[np.ndarray, " n"],
    points: Float[np.ndarray, "n 2"],
    attention: Float[np.ndarray, " n"],
    seed: int,
) -> Plane:
    """Put points into the order in which they are thinned, ready to be looked at.

    Args:
        token: the number of each point's token.
        points: their coordinates.
        attention: what the tokens receive; NaN if it is not known.
        seed: of the order.
    """
    order = random_streams.generator(seed, "view", "order of the points").permutation(len(token))
    order = order.astype(np.int32)
    made = Plane(
        token[order].astype(np.int32, copy=False),
        points[order, 0].astype(np.float32, copy=False),
        points[order, 1].astype(np.float32, copy=False),
        attention[order].astype(np.float32, copy=False),
    )
    _ = made.nbytes, made.whole  # what is computed once, before anybody waits for it
    return made
