"""Rows with ends at the real sizes of LLaVA-NeXT and OneVision, beside their own arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import LlavaNextProcessor, LlavaOnevisionProcessor
from transformers.image_processing_utils import select_best_resolution

from keygap.benchmarks import BadSample
from keygap.models.layout import ImageFacts, places_of
from keygap.models.views import View

# side of a view in positions and in pixels, canvases, and the most views that a grid is bounded to
NEXT = (24, 336, [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]], None)
ONEVISION = (27, 384, [[384 * a, 384 * b] for a in range(1, 7) for b in range(1, 7)], 9)


class Arithmetic:
    """What a processor's method reads of itself."""

    vision_aspect_ratio = "anyres_max_9"


def real_rows(processor, size, side, tiles):
    """Rows and columns of the grid, from the processor's own count of row ends."""
    method = processor._get_unpadded_features
    patches, ends = method(Arithmetic(), size[1], size[0], side, side, *tiles)
    return ends, patches // ends


@pytest.mark.parametrize(
    ("processor", "side", "pixels", "canvases", "bound"),
    [(LlavaNextProcessor, *NEXT), (LlavaOnevisionProcessor, *ONEVISION)],
)
def test_rows_and_columns_are_the_processors_own(processor, side, pixels, canvases, bound):
    refused = 0
    sizes = np.random.default_rng(1).integers(40, 3000, (300, 2)).tolist()
    for width, height in sizes:
        canvas = select_best_resolution((height, width), canvases)
        down, across = (length // pixels for length in canvas)
        if down * across == 1:
            continue
        rows, columns = real_rows(processor, (width, height), side, (down, across))
        count = side * side + rows * (columns + 1)
        tiles = [
            View(pixels, pixels, r / down, (r + 1) / down, c / across, (c + 1) / across)
            for r in range(down)
            for c in range(across)
        ]
        views = (View(pixels, pixels, 0, 1, 0, 1), *tiles)
        facts = ImageFacts(height, width, views=views, count=count, row_ends=True, side=side)
        try:
            places = places_of([count], [""], facts)
        except BadSample:  # two grids add up to the same count
            refused += 1
            continue
        patch = places.role == ""
        found = places.row[patch].max() + 1, places.column[patch].max() + 1
        assert found == (rows, columns), (width, height)
    assert refused <= (0.03 * len(sizes) if bound else 0)
