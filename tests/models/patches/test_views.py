"""Views read off a chart: of any image size, through real image processors that cut tiles."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BatchFeature

from keygap.models.patches.views import View, chart, tile_grid, views_of

SQUARE = {"height": 32, "width": 32}
TWELVE = {"size": SQUARE, "crop_to_patches": True, "max_patches": 12}
PROCESSORS: dict[str, dict[str, Any]] = {  # InternVL and Aya Vision cut as GOT-OCR2 does
    "GotOcr2ImageProcessor": TWELVE,
    "Cohere2VisionImageProcessor": {**TWELVE, "patch_size": 2},
    "Llama4ImageProcessor": {"size": SQUARE, "max_patches": 16},
    "PerceptionLMImageProcessor": {
        "tile_size": 32,
        "max_num_tiles": 16,
        "vision_input_type": "thumb+tile",
    },
    "Idefics3ImageProcessor": {
        "size": {"longest_edge": 128},
        "max_image_size": {"longest_edge": 32},
    },
}
SIZE = st.tuples(st.integers(16, 400), st.integers(16, 400))


def views(name: str, size: tuple[int, int]) -> tuple[View, ...]:
    processor = getattr(transformers, name)(**PROCESSORS[name])
    return known_views(processor(images=[[chart(*size)]], return_tensors="pt"))


def known_views(inputs: BatchFeature) -> tuple[View, ...]:
    found = views_of(inputs)
    assert found is not None
    return found


@pytest.mark.parametrize("name", PROCESSORS)
@settings(max_examples=25, deadline=None)
@given(size=SIZE)
def test_tiles_of_any_image_fill_a_grid(name, size):
    found = views(name, size)
    tiles = [view for view in found if not view.whole]
    assert len(found) - len(tiles) == 1
    if not tiles:  # too small to be cut
        return
    cells = tile_grid(tiles)
    assert cells is not None
    rows, columns = (max(numbers) + 1 for numbers in zip(*cells, strict=True))
    assert rows * columns == len(tiles)


def test_a_grid_that_the_aspect_ratio_does_not_tell():
    """Twelve tiles of this image are 4 x 3 by least enlargement, and 6 x 2 by nearest shape."""
    tiles = [view for view in views("Cohere2VisionImageProcessor", (169, 318)) if not view.whole]
    assert tile_grid(tiles) == [(row, column) for row in range(4) for column in range(3)]


@pytest.mark.parametrize("size", [(345, 330), (350, 336), (336, 350), (339, 330), (345, 8)])
def test_a_tile_that_shows_nearly_all_is_no_thumbnail(size):
    """Llama 4 cuts these into one full tile and a sliver of a few pixels, then adds the whole."""
    inputs = transformers.Llama4ImageProcessor()(images=chart(*size), return_tensors="pt")
    found = known_views(inputs)
    assert [view.whole for view in found] == [False, False, True]
    along = (0, 1) if size[0] > size[1] else (1, 0)
    assert tile_grid(found[:2]) == [(0, 0), along]


def test_a_sliver_of_one_pixel_is_not_taken_for_all_tiles():
    inputs = transformers.Llama4ImageProcessor()(images=chart(337, 330), return_tensors="pt")
    tiles = [view for view in known_views(inputs) if not view.whole]
    assert len(tiles) == 2 or tile_grid(tiles) is None


@pytest.mark.parametrize("wide", [20, 80, 100, 120, 150, 200, 600])
def test_a_crop_of_a_strip_is_one_view_or_unknown(wide):
    """Of a wide picture a square crop shows one or two colours of the chart."""
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
    )
    found = views_of(processor(images=chart(8 * wide, 8), return_tensors="pt"))
    assert found is None or [view.whole for view in found] == [True]


def test_a_chart_is_painted_whole():
    """In strips: its red is the column and its green the row everywhere."""
    pixels = np.asarray(chart(40, 700))
    assert (pixels[..., 0] == np.linspace(0, 255, 40).round()).all()
    assert (pixels[..., 1] == np.linspace(0, 255, 700).round()[:, None]).all()
    assert (pixels[..., 2] == 200).all()


def test_a_chart_takes_the_memory_of_its_image():
    tracemalloc.start()
    chart(3000, 2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000 * 2000  # beside Pillow's own picture, far from a number per pixel


def test_tiles_that_overlap_or_leave_gaps_are_no_grid():
    left, right = View(32, 32, 0, 1, 0, 0.5), View(32, 32, 0, 1, 0.5, 1)
    assert tile_grid([left, right]) == [(0, 0), (0, 1)]
    assert tile_grid([left, right, left]) is None
    assert tile_grid([left, replace(right, left=0.4)]) is None
    assert tile_grid([left, replace(right, left=0.7)]) is None
    assert tile_grid([left, replace(right, top=0.5)]) is None


def test_padding_shows_nothing():
    """A picture on a canvas of its own shape's largest side: half of it is padding."""
    (view,) = known_views(BatchFeature({"pixel_values": padded(chart(64, 32), 255)}))
    assert (view.height, view.width) == (64, 64)
    assert view.whole


def padded(picture, colour):
    canvas = np.full((64, 64, 3), colour, dtype=np.float32)
    canvas[: picture.height, : picture.width] = np.asarray(picture)
    return torch.from_numpy(canvas.transpose(2, 0, 1))[None]


def test_pictures_of_two_inputs_have_no_known_order():
    whole, half = chart(64, 32), chart(64, 32).crop((0, 0, 32, 32))
    inputs = {"pixel_values": padded(whole, 0), "pixel_values_local": padded(half, 0)}
    assert views_of(BatchFeature(inputs)) is not None  # alone each shows all there is
    tiles = torch.cat([padded(whole.crop((x, 0, x + 32, 32)), 0) for x in (0, 32)])
    assert views_of(BatchFeature({**inputs, "pixel_values_local": tiles})) is None
