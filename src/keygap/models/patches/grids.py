"""Where the grid of an image's patches lies on the image.

Patches cover the image exactly, unless its processor puts padding around it or cuts off its edges,
or the model leaves out what does not fill a row. A patch is then not the share of the image that
its row and column suggest.
"""

from __future__ import annotations

from collections.abc import Sequence

from keygap.models.patches.views import View
from keygap.tokens import PatchGrid


def around_one(view: View, size: tuple[int, int]) -> PatchGrid:
    """The grid of a single view, of the whole image or of a part of it.

    Args:
        view: the view.
        size: rows and columns of its patches.
    """
    return around([view], [(0, 0)], size, view.part)


def around(
    tiles: Sequence[View],
    cells: Sequence[tuple[int, int]],
    size: tuple[int, int],
    part: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0),
) -> PatchGrid:
    """The grid of tiles of one size, with the padding around what they show.

    Args:
        tiles: the tiles; a single view is one tile.
        cells: the row and column of each among the tiles.
        size: rows and columns of patches in a tile.
        part: top, bottom, left and right of the part of the image that they show together.
    """
    down = {row: tile for (row, _), tile in zip(cells, tiles, strict=True)}
    across = {column: tile for (_, column), tile in zip(cells, tiles, strict=True)}
    height = sum(tile.rows or tile.height for tile in down.values())
    width = sum(tile.columns or tile.width for tile in across.values())
    upper, lower, first, last = part
    row, column = (lower - upper) / height, (last - first) / width  # of one pixel
    top, left = upper - down[0].first_row * row, first - across[0].first_column * column
    return PatchGrid(
        rows=len(down) * size[0],
        columns=len(across) * size[1],
        top=top,
        bottom=top + len(down) * tiles[0].height * row,
        left=left,
        right=left + len(across) * tiles[0].width * column,
    )


def centred(
    size: tuple[int, int],
    covered: tuple[int, int],
    canvas: tuple[int, int],
    shape: float,
) -> PatchGrid:
    """The grid around an image that was fitted on the centre of a canvas.

    Args:
        size: rows and columns of the grid.
        covered: rows and columns of the canvas that the grid covers. The grid has as many unless
            the model reduced it.
        canvas: rows and columns of patches on the canvas.
        shape: the image's height divided by its width.
    """
    patch = max(shape / canvas[0], 1 / canvas[1])  # its side, in units of the image's width
    down, across = covered[0] * patch / shape, covered[1] * patch
    return PatchGrid(*size, (1 - down) / 2, (1 + down) / 2, (1 - across) / 2, (1 + across) / 2)
