"""Which patch of which view of its image an image position is.

Processors lay images out in few ways, told apart by what they leave behind and not by the model:
grid sizes among the model inputs (native resolution); row breaks or tile names between the
positions; or one run of positions, which is then a square, several square tiles of one size, or a
grid with a learned separator after every row. Where none of these fits, positions keep no row and
no column: nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np

PATCH, SEPARATOR, THUMBNAIL = "", "separator", "thumbnail"
_TILE = re.compile(r"row_(\d+)_col_(\d+)")


@dataclass(frozen=True)
class Places:
    """Role, row and column of an image's positions, in the order of the prompt."""

    role: np.ndarray
    row: np.ndarray
    column: np.ndarray


@dataclass(frozen=True)
class ImageFacts:
    """What is known of one image beside its positions.

    Attributes:
        height, width: in pixels, as the user gave it.
        grid: frames, rows and columns of vision patches, where the processor says so.
        tiles: how many views of the image the vision tower sees, where the processor says so.
        row_ends: whether the model has a learned separator that ends rows.
        side: rows of patches of one view, where the vision tower's configuration says so.
        pixels: height and width that the vision tower sees, where the processor says so.
        mixed: whether the connector mixes patches, so that no position is a patch.
    """

    height: int
    width: int
    grid: tuple[int, int, int] | None = None
    tiles: int | None = None
    row_ends: bool = False
    side: int | None = None
    pixels: tuple[int, int] | None = None
    mixed: bool = False


def places_of(runs: Sequence[int], between: Sequence[str], facts: ImageFacts) -> Places:
    """Places of an image's positions.

    Args:
        runs: lengths of its unbroken runs of positions.
        between: the text before the first run, and before each further one.
        facts: what else is known.
    """
    count = sum(runs)
    if facts.mixed:
        return _unknown(count)
    if facts.grid is not None and (size := _merged(facts.grid, count)) is not None:
        return _grid(*size)
    if len(runs) > 1:
        tiles = [_TILE.search(text) for text in between]
        if any(tiles):
            return _named_tiles(runs, tiles)
        alike, side = len(set(runs)) == 1, square_side(runs[0])
        if alike and len(set(between[1:])) == 1 and facts.tiles != len(runs):
            return _grid(len(runs), runs[0])
        if alike and side:
            return _tiles(len(runs), side, facts)
        return _unknown(count)
    if facts.row_ends:
        return _with_row_ends(count, facts)
    if facts.tiles and count % facts.tiles == 0 and (side := square_side(count // facts.tiles)):
        return _tiles(facts.tiles, side, facts)
    if side := square_side(count):
        return _grid(side, side)
    if facts.pixels:  # rows that end with a token of their own (Emu3)
        height, width = facts.pixels
        sizes = {(height // d, width // d) for d in range(1, min(height, width) + 1)}
        fitting = [size for size in sizes if size[0] * (size[1] + 1) == count]
        if len(fitting) == 1:
            return _rows(*fitting[0])
    return _unknown(count)


def _unknown(count: int) -> Places:
    minus = np.full(count, -1)
    return Places(np.full(count, PATCH, dtype=object), minus, minus.copy())


def square_side(count: int) -> int:
    """The side of a square of this many patches, 0 if there is none."""
    side = isqrt(count)
    return side if side * side == count else 0


def _grid(rows: int, columns: int, role: str = PATCH, top: int = 0, left: int = 0) -> Places:
    order = np.arange(rows * columns)
    role_array = np.full(rows * columns, role, dtype=object)
    return Places(role_array, top + order // columns, left + order % columns)


def _joined(parts: Sequence[Places]) -> Places:
    return Places(
        np.concatenate([part.role for part in parts]),
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.column for part in parts]),
    )


def _merged(grid: tuple[int, int, int], count: int) -> tuple[int, int] | None:
    """Rows and columns after n x n vision patches were merged into one, None if that never fits."""
    frames, rows, columns = grid
    patches = frames * rows * columns
    if count == 0 or patches % count:
        return None
    merge = isqrt(patches // count)
    if merge * merge * count != patches or rows % merge or columns % merge:
        return None
    return frames * rows // merge, columns // merge


def _named_tiles(runs: Sequence[int], tiles: Sequence[re.Match[str] | None]) -> Places:
    parts = []
    for length, tile in zip(runs, tiles, strict=True):
        side = square_side(length)
        if not side:
            parts.append(_unknown(length))
        elif tile is None:
            parts.append(_grid(side, side, THUMBNAIL))
        else:
            top, left = ((int(number) - 1) * side for number in tile.groups())
            parts.append(_grid(side, side, PATCH, top, left))
    return _joined(parts)


def _tiles(tiles: int, side: int, facts: ImageFacts) -> Places:
    """Square tiles row by row, in the grid nearest to the image's shape, a thumbnail at the end."""
    if tiles == 1:
        return _grid(side, side)
    _, columns = _tile_grid(tiles - 1, facts)
    parts = [
        _grid(side, side, PATCH, tile // columns * side, tile % columns * side)
        for tile in range(tiles - 1)
    ]
    return _joined([*parts, _grid(side, side, THUMBNAIL)])


def _tile_grid(tiles: int, facts: ImageFacts) -> tuple[int, int]:
    wanted = facts.width / facts.height
    sizes = [(rows, tiles // rows) for rows in range(1, tiles + 1) if tiles % rows == 0]
    return min(sizes, key=lambda size: abs(wanted - size[1] / size[0]))


def _with_row_ends(count: int, facts: ImageFacts) -> Places:
    """A square base view, then a grid whose rows each end with a separator (anyres).

    Rows and columns are those for which both add up to ``count``; where several do, those nearest
    to the image's shape.
    """
    if side := square_side(count):
        return _grid(side, side)
    if side := square_side(count - 1):  # the base view alone, and one separator
        return _joined([_grid(side, side), _separators(1)])
    wanted = facts.width / facts.height
    best: tuple[float, int, int, int] | None = None
    for side in [facts.side] if facts.side else range(2, isqrt(count) + 1):
        rest = count - side * side
        for rows in range(1, rest // 2 + 1):
            columns = rest // rows - 1
            fits = rest % rows == 0 and columns >= 1
            # the grid was cropped along one axis only: the other is a whole number of views
            if fits and (rows % side == 0 or columns % side == 0):
                off = abs(np.log(wanted * rows / columns))
                if best is None or off < best[0]:
                    best = (off, side, rows, columns)
    if best is None or best[0] > np.log(1 + 1 / min(best[2:])) + 0.1:
        return _unknown(count)
    _, side, rows, columns = best
    return _joined([_grid(side, side, THUMBNAIL), _rows(rows, columns)])


def _rows(rows: int, columns: int) -> Places:
    """A grid with a separator after every row."""
    parts: list[Places] = []
    for row in range(rows):
        parts += [_grid(1, columns, PATCH, top=row), _separators(1)]
    return _joined(parts)


def _separators(count: int) -> Places:
    minus = np.full(count, -1)
    return Places(np.full(count, SEPARATOR, dtype=object), minus, minus.copy())
