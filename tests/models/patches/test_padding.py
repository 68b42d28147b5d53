"""A patch of the padding around an image is no patch of it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from keygap.benchmarks import Sample, image_then_question
from keygap.models.load import wrap

from ..zoo import BY_FAMILY


def labels_of(family: str, width: int, height: int):
    vlm = wrap(*BY_FAMILY[family].build(), name=family)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    sample = Sample("s", (image,), "q?", image_then_question("q?"))
    (labels,) = vlm.prompter([sample]).labels
    return labels


@pytest.mark.parametrize(
    ("family", "size", "shown"),
    [
        ("llama4", (64, 48), {(row, column) for row in range(3) for column in range(4)}),
        ("llama4", (48, 64), {(row, column) for row in range(4) for column in range(3)}),
        ("llama4", (64, 64), {(row, column) for row in range(4) for column in range(4)}),
        ("janus", (96, 32), {(row, column) for row in (1, 2) for column in range(4)}),
        ("janus", (64, 64), {(row, column) for row in range(4) for column in range(4)}),
    ],
)
def test_only_what_shows_the_image_has_a_row_and_a_column(family, size, shown):
    """Llama 4 fits 64 x 48 pixels on 2 x 2 tiles of 32, at the top; Janus centres it on one."""
    labels = labels_of(family, *size)
    image = (labels.modality == "image") & (labels.role != "thumbnail")
    patch, padding = image & (labels.role == ""), image & (labels.role == "padding")
    places = list(zip(labels.patch_row[patch], labels.patch_column[patch], strict=True))
    assert sorted(places) == sorted(shown)
    assert padding.sum() == 16 - len(shown)
    assert (labels.patch_row[padding] == -1).all()
    assert (labels.patch_column[padding] == -1).all()
