"""A patch is outlined on its image where the model saw it: at each family's own padding."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from keygap.benchmarks import Piece, Sample
from keygap.models.load import wrap
from keygap.models.patches.grids import centred
from keygap.tokens import PatchGrid

from ..zoo import BY_FAMILY
from .test_padding import labels_of

WHOLE = (0, 1, 0, 1)


def edges(grid: PatchGrid) -> tuple[float, ...]:
    return grid.top, grid.bottom, grid.left, grid.right


@pytest.mark.parametrize(
    ("family", "size", "grid", "box"),
    [
        # one view of the whole image
        ("llava", (64, 64), (4, 4), WHOLE),
        # native resolution: 64 x 48 pixels in patches of 8, merged two by two
        ("qwen2_vl", (64, 48), (3, 4), WHOLE),
        # two tiles of 32 pixels, without padding
        ("internvl", (64, 32), (2, 4), WHOLE),
        ("idefics3", (64, 32), (2, 4), WHOLE),
        # 48 pixels high at the top of two tiles, which have 64
        ("llama4", (64, 48), (4, 4), (0, 64 / 48, 0, 1)),
        ("llama4", (48, 64), (4, 4), (0, 1, 0, 64 / 48)),
        # 32 pixels high in the centre of a square of 96
        ("janus", (96, 32), (4, 4), (-1, 2, 0, 1)),
        # two rows of 8 pixels out of the 64 / 3 that the image has on a canvas of 32 x 64: the
        # model leaves out what is above and below them
        ("llava_next", (60, 20), (2, 8), (0.125, 0.875, 0, 1)),
        ("llava_next", (64, 64), (8, 8), WHOLE),
    ],
)
def test_the_grid_of_a_family(family, size, grid, box):
    (found,) = labels_of(family, *size).grids
    assert (found[""].rows, found[""].columns) == grid
    a_pixel = 1 / 11  # of the smallest view of an image, that of Janus
    np.testing.assert_allclose(edges(found[""]), box, atol=a_pixel if family == "janus" else 1e-6)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((128, 32), (0, 1, 3 / 8, 5 / 8)),
        ((32, 128), (3 / 8, 5 / 8, 0, 1)),
        ((640, 480), (0, 1, 1 / 8, 7 / 8)),
        ((340, 320), (0, 1, 1 / 34, 33 / 34)),
        ((300, 2), (0, 1, 149 / 300, 151 / 300)),  # of which two colours of a chart are seen
    ],
)
def test_a_crop_covers_the_middle_of_the_image(size, box):
    """CLIP's processor scales the shorter edge and cuts a square out of the middle."""
    (found,) = labels_of("llava", *size).grids
    assert (found[""].rows, found[""].columns) == (4, 4)
    np.testing.assert_allclose(edges(found[""]), box, atol=0.5 / 32)


def test_a_crop_of_several_images_covers_the_middle_of_each():
    vlm = wrap(*BY_FAMILY["llava"].build(), name="llava")
    images = tuple(Image.new("RGB", size) for size in ((128, 32), (32, 32), (32, 128)))
    prompt = (*(Piece("image", image=number) for number in range(3)), Piece("text", text="q?"))
    (labels,) = vlm.prompter([Sample("s", images, "q?", prompt)]).labels
    found = [edges(grids[""]) for grids in labels.grids]
    expected = [(0, 1, 3 / 8, 5 / 8), WHOLE, (3 / 8, 5 / 8, 0, 1)]
    np.testing.assert_allclose(found, expected, atol=0.5 / 32)


def test_a_coarser_view_has_a_grid_of_its_own():
    (found,) = labels_of("llava_next", 60, 20).grids
    assert (found["thumbnail"].rows, found["thumbnail"].columns) == (4, 4)
    assert edges(found["thumbnail"]) == WHOLE


def test_a_reduced_grid_covers_what_it_covered_before():
    """LLaVA-OneVision halves a grid of 54 x 108 patches to stay below its bound."""
    full = centred((54, 108), (54, 108), (54, 108), 0.5)
    half = centred((27, 54), (54, 108), (54, 108), 0.5)
    assert edges(half) == edges(full) == WHOLE


def test_positions_that_show_no_single_patch_have_no_grid():
    assert labels_of("instructblip", 64, 64).grids == ({},)
