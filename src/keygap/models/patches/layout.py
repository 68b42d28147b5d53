"""Which patch of which view of its image an image position shows.

Processors use a few layouts. They are recognised by what is in the model inputs and the prompt, not
by the name of the model: grid sizes among the model inputs (native resolution); tile names between
the positions; a learned separator after every row; or a sequence of views, whose parts of the image
were read from a chart (``views``). Where no layout fits exactly, positions have no row and no
column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isqrt, sqrt

import numpy as np

from keygap.benchmarks.sample import BadSample
from keygap.models.patches.grids import around, around_one, centred
from keygap.models.patches.views import View, tile_grid
from keygap.tokens import PatchGrid

PATCH, SEPARATOR, THUMBNAIL, PADDING = "", "separator", "thumbnail", "padding"
_NO_ROWS = "the ends of an image's rows cannot be told from its patches"
_TILE = re.compile(r"row_(\d+)_col_(\d+)")


@dataclass(frozen=True)
class Places:
    """Role, row and column of an image's positions, in the order of the prompt.

    ``grids`` says what rows and columns count through, by role.
    """

    role: np.ndarray
    row: np.ndarray
    column: np.ndarray
    grids: Mapping[str, PatchGrid] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageFacts:
    """What is known about one image apart from its positions.

    Attributes:
        height: height in pixels of the image as it was given.
        width: width in pixels of the image as it was given.
        grid: frames, rows and columns of vision patches, None where the processor gives none.
        views: what each view shows, in the order of the vision tower, None where not known.
        count: the number of positions of these views, None where not known.
        row_ends: whether the model has a learned separator that ends rows.
        begin: the number of learned separators before all other positions.
        end: the number of learned separators after all other positions.
        side: rows of patches in one view, None where the configuration does not give them.
        pixels: height and width that the vision tower gets, None where the processor gives none.
        mixed: whether the connector mixes patches, so that no position shows a single patch.
    """

    height: int
    width: int
    grid: tuple[int, int, int] | None = None
    views: tuple[View, ...] | None = None
    count: int | None = None
    row_ends: bool = False
    begin: int = 0
    end: int = 0
    side: int | None = None
    pixels: tuple[int, int] | None = None
    mixed: bool = False


def places_of(runs: Sequence[int], between: Sequence[str], facts: ImageFacts) -> Places:
    """Places of an image's positions.

    Args:
        runs: lengths of the unbroken runs of its positions.
        between: the text before each run.
        facts: what else is known about the image.

    Raises:
        BadSample: the model puts learned separators among the patches, and it is not known
            which positions they are.
    """
    if facts.views and facts.count != sum(runs):  # the processor cut this image in another way
        facts = replace(facts, views=None)
    extra = facts.begin + facts.end
    if extra and len(runs) == 1 and runs[0] > extra:
        inner = replace(facts, begin=0, end=0, count=runs[0] - extra)
        framed = places_of([runs[0] - extra], between, inner)
        return _joined([_separators(facts.begin), framed, _separators(facts.end)])
    places = _laid_out(runs, between, facts)
    if facts.mixed:  # positions keep their role, but show no single patch
        role = np.where(places.role == PADDING, PATCH, places.role).astype(object)
        return Places(role, np.full_like(places.row, -1), np.full_like(places.row, -1))
    return places


def _laid_out(runs: Sequence[int], between: Sequence[str], facts: ImageFacts) -> Places:
    count = sum(runs)
    if facts.grid is not None:
        return _native(facts.grid, runs, facts.row_ends)
    tiles = [_TILE.search(text) for text in between]
    if any(tiles):
        return _named_tiles(runs, tiles)
    if facts.row_ends:
        return _with_row_ends(count, facts)
    if facts.pixels and (size := _with_end_tokens(count, facts.pixels)):
        return _through(PatchGrid(*size), _rows(*size))
    return _of_views(runs, facts.views) if facts.views else _unknown(count)


def _unknown(count: int, role: str = PATCH) -> Places:
    minus = np.full(count, -1)
    return Places(np.full(count, role, dtype=object), minus, minus.copy())


def square_side(count: int) -> int:
    """The side of a square of ``count`` patches, 0 if there is none."""
    side = isqrt(count)
    return side if side * side == count else 0


def _grid(rows: int, columns: int, role: str = PATCH, top: int = 0, left: int = 0) -> Places:
    order = np.arange(rows * columns)
    role_array = np.full(rows * columns, role, dtype=object)
    return Places(role_array, top + order // columns, left + order % columns)


def _joined(blocks: Sequence[Places]) -> Places:
    return Places(
        np.concatenate([block.role for block in blocks]),
        np.concatenate([block.row for block in blocks]),
        np.concatenate([block.column for block in blocks]),
        {role: grid for block in blocks for role, grid in block.grids.items()},
    )


def _native(grid: tuple[int, int, int], runs: Sequence[int], row_ends: bool) -> Places:
    """A grid of vision patches, n x n of them merged, row by row, with or without row ends."""
    count = sum(runs)
    frames, rows, columns = grid
    for merge in range(1, min(rows, columns) + 1):
        if rows % merge or columns % merge:
            continue
        size = frames * rows // merge, columns // merge
        if count == size[0] * size[1]:
            return _through(PatchGrid(*size), _grid(*size))
        if row_ends and count == size[0] * (size[1] + 1):
            return _through(PatchGrid(*size), _rows(*size))
    if row_ends:
        raise BadSample(_NO_ROWS)
    return _unknown(count)


def _named_tiles(runs: Sequence[int], tiles: Sequence[re.Match[str] | None]) -> Places:
    blocks = []
    rows = columns = 0
    for length, tile in zip(runs, tiles, strict=True):
        side = square_side(length)
        if not side:
            blocks.append(_unknown(length))
        elif tile is None:
            blocks.append(_through(PatchGrid(side, side), _grid(side, side, THUMBNAIL), THUMBNAIL))
        else:
            top, left = ((int(number) - 1) * side for number in tile.groups())
            blocks.append(_grid(side, side, PATCH, top, left))
            rows, columns = max(rows, top + side), max(columns, left + side)
    return _through(PatchGrid(rows, columns), _joined(blocks)) if rows else _joined(blocks)


def _of_views(runs: Sequence[int], views: Sequence[View]) -> Places:
    """Views one after the other, each with the same number of positions.

    Views of a part of the image are tiles. Among tiles, a view of the whole image is a thumbnail.
    Each run of positions must be whole views, or one row where there is a single view.
    """
    count = sum(runs)
    # the whole image, at one or several sizes, or what is left of it after a crop
    if len(views) == 1 or all(view.whole for view in views):
        size = _patches(views[0], count)
        if size and (len(runs) == 1 or list(runs) == [size[1]] * size[0]):
            return _whole_view(views[0], size)
        return _unknown(count)
    each, rest = divmod(count, len(views))
    size = None if rest else _patches(views[0], each)
    tiles = [view for view in views if not view.whole]
    cells = tile_grid(tiles)
    alike = len({(view.height, view.width) for view in views}) == 1
    if size is None or cells is None or not alike or any(run % each for run in runs):
        return _unknown(count)
    rows, columns = size
    remaining = iter(cells)
    blocks = []
    for view in views:
        if view.whole:
            blocks.append(_whole_view(view, size, THUMBNAIL))
        else:
            row, column = next(remaining)
            block = _grid(rows, columns, PATCH, row * rows, column * columns)
            blocks.append(_without_padding(block, view, size))
    return _through(around(tiles, cells, size), _joined(blocks))


def _whole_view(view: View, size: tuple[int, int], role: str = PATCH) -> Places:
    """The places of a view that is no tile, and their grid."""
    places = _without_padding(_grid(*size, role), view, size)
    return _through(around_one(view, size), places, role)


def _through(grid: PatchGrid, places: Places, role: str = PATCH) -> Places:
    """The same places, whose rows and columns of a role count through a grid."""
    return replace(places, grids={**places.grids, role: grid})


def _without_padding(block: Places, view: View, size: tuple[int, int]) -> Places:
    """The places of a view's grid, where patches that show no part of the image are padding."""
    if not view.padded:
        return block
    rows, columns = size
    order = np.arange(rows * columns)
    down = _overlaps(order // columns, rows, view.height, view.first_row, view.rows)
    across = _overlaps(order % columns, columns, view.width, view.first_column, view.columns)
    shown = down & across
    return Places(
        np.where(shown, block.role, PADDING).astype(object),
        np.where(shown, block.row, -1),
        np.where(shown, block.column, -1),
    )


def _overlaps(place: np.ndarray, patches: int, pixels: int, first: int, shown: int) -> np.ndarray:
    """Which patches along one axis have a pixel that shows the image; ``shown`` 0: all pixels."""
    start, stop = place * pixels / patches, (place + 1) * pixels / patches
    return (stop > first) & (start < first + (shown or pixels))


def _patches(view: View, count: int) -> tuple[int, int] | None:
    """Rows and columns of ``count`` square patches that fill a view, None if none do."""
    rows = isqrt(count * view.height // view.width)
    for number in (rows, rows + 1):
        if number and count % number == 0 and number * view.width * number == count * view.height:
            return number, count // number
    return None


def _with_row_ends(count: int, facts: ImageFacts) -> Places:
    """A base view, then a grid whose rows each end with a separator (anyres).

    The grid covers all tiles, without the padding along one axis, and is reduced in proportion
    where the model bounds it. A base view of the side that the configuration gives is tried first.

    Raises:
        BadSample: not exactly one size gives the number of positions, or the grid is empty.
    """
    views = facts.views or ()
    if len(views) == 1:  # the base view alone: with at most one separator, or one after each row
        for ends in (0, 1):
            if size := _patches(views[0], count - ends):
                return _joined([_whole_view(views[0], size), _separators(ends)])
        if size := _patches(views[0], count - isqrt(count)):
            return _through(around_one(views[0], size), _rows(*size))
    tiles = _tiles(views)
    if tiles is None:
        raise BadSample(_NO_ROWS)
    shape = facts.height / facts.width
    if facts.side:  # a connector may also merge n x n patches of a view
        sides = [side for side in range(facts.side, 1, -1) if facts.side % side == 0]
    else:
        sides = list(range(2, isqrt(count)))
    found: list[tuple[int, int, int]] = []
    for side in sides:
        found += _anyres(count, side, tiles, shape, bounded=side == facts.side)
        if found and side == facts.side:
            break
    if len(found) != 1 or not found[0][1] * found[0][2]:  # a thin image may leave no grid
        raise BadSample(_NO_ROWS)
    side, rows, columns = found[0]
    base = _through(PatchGrid(side, side), _grid(side, side, THUMBNAIL), THUMBNAIL)
    canvas = tiles[0] * side, tiles[1] * side
    grid = centred((rows, columns), _unpadded(*canvas, shape), canvas, shape)
    return _joined([base, _through(grid, _rows(rows, columns))])


def _tiles(views: Sequence[View]) -> tuple[int, int] | None:
    """Rows and columns of the tiles after a base view, None where they form no grid."""
    if len(views) == 2 and all(view.whole for view in views):
        return 1, 1
    cells = tile_grid([view for view in views if not view.whole])
    if not cells:
        return None
    return max(row for row, _ in cells) + 1, max(column for _, column in cells) + 1


def _anyres(
    count: int, side: int, tiles: tuple[int, int], shape: float, bounded: bool
) -> list[tuple[int, int, int]]:
    """Layouts (side of the base view, rows, columns) that have ``count`` positions.

    Args:
        count: the number of positions, with one separator after every row of the grid.
        side: the side of the base view.
        tiles: rows and columns of tiles.
        shape: the image's height divided by its width.
        bounded: whether the model may bound the grid. Rows and columns are then reduced in
            proportion to the area of a whole number of views, and rounded down.
    """
    rows, columns = _unpadded(tiles[0] * side, tiles[1] * side, shape)
    sizes = [(rows, columns)]
    if bounded and rows * columns:
        for views in range(1, -(-rows * columns // side**2)):
            ratio = sqrt(rows * columns / (views * side**2))
            sizes.append((int(rows // ratio), int(columns // ratio)))
    return [(side, *size) for size in sizes if side**2 + size[0] * (size[1] + 1) == count]


def _unpadded(rows: int, columns: int, shape: float) -> tuple[int, int]:
    """Rows and columns of a grid without the padding around an image in its centre.

    Padding is along one axis. The same number of rows (or columns) is removed at both of its ends,
    so that one that is partly padding stays.

    Args:
        rows: rows of the grid with padding.
        columns: columns of the grid with padding.
        shape: the image's height divided by its width.
    """
    if rows < columns * shape:
        length = int(round(rows / shape, 7))
        return rows, columns - (columns - length) // 2 * 2
    length = int(round(columns * shape, 7))
    return rows - (rows - length) // 2 * 2, columns


def _with_end_tokens(count: int, pixels: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of an image with an end token after each row (Emu3), None if not unique."""
    height, width = pixels
    sizes = {(height // d, width // d) for d in range(1, min(height, width) + 1)}
    fitting = [size for size in sizes if size[0] * (size[1] + 1) == count]
    return fitting[0] if len(fitting) == 1 else None


def _rows(rows: int, columns: int) -> Places:
    """A grid with a separator after every row."""
    blocks: list[Places] = []
    for row in range(rows):
        blocks += [_grid(1, columns, PATCH, top=row), _separators(1)]
    return _joined(blocks)


def _separators(count: int) -> Places:
    return _unknown(count, SEPARATOR)
