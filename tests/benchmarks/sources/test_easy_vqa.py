"""Captions of easy-VQA say what the pixels show."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from keygap.benchmarks.sources.easy_vqa import caption_of

RGB = {
    (0, 0, 0): "black", (0, 0, 255): "blue", (165, 42, 42): "brown", (128, 128, 128): "gray",
    (0, 255, 0): "green", (255, 0, 0): "red", (0, 128, 128): "teal", (255, 255, 0): "yellow",
}  # fmt: skip


def seen(image) -> str:
    """Colour and shape, by the share of its bounding box that the shape fills."""
    pixels = np.asarray(image.convert("RGB"))
    counts = Counter(map(tuple, pixels.reshape(-1, 3).tolist()))
    colour = next(value for value, _ in counts.most_common() if value in RGB)
    rows, columns = np.nonzero((pixels == colour).all(-1))
    share = len(rows) / (np.ptp(rows) + 1) / (np.ptp(columns) + 1)
    shape = "triangle" if share < 0.65 else "circle" if share < 0.9 else "rectangle"
    return f"a {RGB[colour]} {shape}"


def test_captions_agree_with_the_pixels(easy_vqa):
    chosen = easy_vqa.choose(60, 3)
    samples = [chosen.sample(number) for number in range(len(chosen))]
    captions = {sample.caption: seen(sample.images[0]) for sample in samples if sample.caption}
    assert len(captions) > 12
    assert list(captions) == list(captions.values())
    assert sum(sample.caption is None for sample in samples) < 15


@pytest.mark.parametrize(
    ("asked", "caption"),
    [
        ([("what is the blue shape?", "circle")], "a blue circle"),
        ([("what color is the triangle?", "teal")], "a teal triangle"),
        ([("is there a red shape?", "yes"), ("is a circle present?", "yes")], "a red circle"),
        ([("is no red shape present?", "no"), ("is there not a circle?", "no")], "a red circle"),
        ([("is there a red shape?", "no"), ("what shape is present?", "circle")], None),
        ([("is there not a red shape?", "yes"), ("what shape is present?", "circle")], None),
        (
            [
                ("what color is the shape?", "red"),
                ("is there a circle?", "no"),
                ("does the image not contain a triangle?", "yes"),
            ],
            "a red rectangle",
        ),
        ([], None),
    ],
)
def test_captions_follow_from_questions_and_answers(asked, caption):
    assert caption_of(asked) == caption
    assert caption_of(asked[::-1]) == caption
