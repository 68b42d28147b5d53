"""Rows with ends at the real sizes of LLaVA-NeXT and OneVision, beside their own arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import (
    LlavaNextProcessor,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
)
from transformers.image_processing_utils import select_best_resolution

from keygap.benchmarks import BadSample
from keygap.models.patches.layout import ImageFacts, places_of
from keygap.models.patches.views import View, chart, views_of

# side of a view in positions and in pixels, and canvases
NEXT = (24, 336, [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]])
ONEVISION = (27, 384, [[384 * a, 384 * b] for a in range(1, 7) for b in range(1, 7)])


class Arithmetic:
    """What a processor's method reads of itself."""

    vision_aspect_ratio = "anyres_max_9"


ARITHMETIC: Any = Arithmetic()


def labelled(size, processor, side, pixels, canvases):
    """The real rows and columns, and those of the labels: None where the image is refused."""
    width, height = size
    canvas = select_best_resolution((height, width), canvases)
    down, across = (length // pixels for length in canvas)
    patches, ends = processor._get_unpadded_features(
        ARITHMETIC, height, width, side, side, down, across
    )
    count = side * side + patches + ends
    tiles = [
        View(pixels, pixels, r / down, (r + 1) / down, c / across, (c + 1) / across)
        for r in range(down)
        for c in range(across)
    ]
    views = (View(pixels, pixels, 0, 1, 0, 1), *tiles)
    facts = ImageFacts(height, width, views=views, count=count, row_ends=True, side=side)
    real = ends, patches // max(ends, 1)
    try:
        places = places_of([count], [""], facts)
    except BadSample:
        return real, None
    patch = places.role == ""
    assert (places.role == "thumbnail").sum() == side * side, size
    return real, (places.row[patch].max() + 1, places.column[patch].max() + 1)


FAMILIES = [(LlavaNextProcessor, *NEXT), (LlavaOnevisionProcessor, *ONEVISION)]


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_and_columns_are_the_processors_own(family):
    sizes = np.random.default_rng(1).integers(40, 3000, (600, 2)).tolist()
    for size in sizes:
        real, found = labelled(size, *family)
        assert found == real, size


def test_a_bounded_grid_is_not_taken_for_views_of_another_side():
    """7,344 positions are also a base of 18 x 18 and a grid: the model's side comes first."""
    real, found = labelled((1475, 2484), *FAMILIES[1])
    assert found == real == (105, 62)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("turned", [False, True])
def test_a_strip_is_labelled_rightly_or_refused(family, turned):
    refused = 0
    for length in range(200, 1300, 7):
        real, found = labelled((10, length) if turned else (length, 10), *family)
        refused += found is None
        assert found == real or (found is None and 0 in real), length
    assert bool(refused) == (family[0] is LlavaNextProcessor)  # 24 can be padding whole, 27 cannot


@pytest.mark.parametrize("size", [(300, 200), (384, 384), (64, 64), (200, 300)])
def test_an_image_of_one_tile_has_a_base_view_and_a_grid(size):
    """Default sizes of LLaVA-OneVision: its smallest canvas is one view."""
    width, height = size
    inputs = LlavaOnevisionImageProcessor()(images=chart(width, height), return_tensors="pt")
    views = views_of(inputs)
    assert views is not None
    assert [view.whole for view in views] == [True, True]
    side = ONEVISION[0]
    patches, ends = LlavaOnevisionProcessor._get_unpadded_features(
        ARITHMETIC, height, width, side, side, 1, 1
    )
    count = side * side + patches + ends
    facts = ImageFacts(height, width, views=views, count=count, row_ends=True, side=side)
    places = places_of([count], [""], facts)
    rows, columns = ends, patches // ends
    grid = [*[""] * columns, "separator"] * rows
    assert places.role.tolist() == ["thumbnail"] * side * side + grid
    tile = slice(side * side, None)
    assert (places.row[tile].max(), places.column[tile].max()) == (rows - 1, columns - 1)
