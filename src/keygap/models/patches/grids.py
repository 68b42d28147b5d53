"""Where the grid of an image's patches lies on the image.

Patches cover the image exactly, unless its processor puts padding around it or the model leaves
out what does not fill a row. A patch is then not the share of the image that its row and column
suggest.
"""

from __future__ import annotations

from collections.abc import Sequence

from keygap.models.patches.views import View
from keygap.tokens import PatchGrid


def around(
    tiles: Sequence[View], cells: Sequence[tuple[int, int]], size: tuple[int, int]
) -> PatchGrid:
    """The grid of tiles of one size, with the padding around the image that they show.

    Args:
        tiles: the tiles; a single view of the whole image is one tile.
        cells: the row and column of each among the tiles.
        size: rows and columns of patches in a tile.
    """
    down = {row: tile for (row, _), tile in zip(cells, tiles, strict=True)}
    across = {column: tile for (_, column), tile in zip(cells, tiles, strict=True)}
    height = sum(tile.rows or tile.height for tile in down.values())
    width = sum(tile.columns or tile.width for tile in across.values())
    top, left = -down[0].first_row / height, -across[0].first_column / width
    return PatchGrid(
        rows=len(down) * size[0],
        columns=len(across) * size[1],
        top=top,
        bottom=top + len(down) * tiles[0].height / height,
        left=left,
        right=left + len(across) * tiles[0].width / width,
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
