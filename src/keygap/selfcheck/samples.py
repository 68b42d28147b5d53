"""The pictures, questions and video of the self-check: the same ones for every model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from keygap.benchmarks.sample import Piece, Sample, image_then_question

FRAMES = 4  # pictures of the video
LONG = "Which of these things is to the left of the door, and what is written on it? " * 8


def check_samples() -> list[Sample]:
    """Two samples, whose pictures differ in shape and whose questions differ in length."""
    generator = np.random.default_rng(0)
    made = []
    for number, (size, question) in enumerate(
        (((64, 48), "What colour is it?"), ((48, 64), "Is there a red circle in the image or not?"))
    ):
        pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        made.append(
            Sample(
                id=str(number),
                images=(Image.fromarray(pixels),),
                question=question,
                prompt=image_then_question(question),
            )
        )
    return made


def sample_of_two_images(second_seed: int | None = None) -> Sample:
    """One prompt with both pictures, each followed by text.

    Args:
        second_seed: of another second picture of the same size; None: that of ``check_samples``.
    """
    one, two = check_samples()
    if second_seed is not None:
        shape = (*two.images[0].size[::-1], 3)
        pixels = np.random.default_rng(second_seed).integers(0, 256, shape, dtype=np.uint8)
        two = replace(two, images=(Image.fromarray(pixels),))
    text = replace(two.prompt[1], text=" and this? ")
    prompt = (one.prompt[0], one.prompt[1], replace(two.prompt[0], image=1), text)
    return replace(one, images=(*one.images, *two.images), prompt=prompt)


def sample_of_a_long_text() -> Sample:
    """One picture with a text many times as long as those of ``check_samples``."""
    return _with_text(check_samples()[1], LONG)


def samples_by_length() -> list[Sample]:
    """One picture with texts from 1 to 3,000 characters."""
    return [_with_text(check_samples()[0], (LONG * 5)[:size]) for size in (1, 60, 600, 3000)]


def _with_text(sample: Sample, text: str) -> Sample:
    prompt = (sample.prompt[0], replace(sample.prompt[1], text=text))
    return replace(sample, question=text, prompt=prompt)


def sample_of_a_video() -> Sample:
    """One prompt with a video of ``FRAMES`` pictures."""
    one = check_samples()[0]
    pixels = np.random.default_rng(1).integers(0, 256, (FRAMES, 48, 64, 3), dtype=np.uint8)
    video = tuple(Image.fromarray(frame) for frame in pixels)
    return replace(one, images=(), videos=(video,), prompt=(Piece("video"), one.prompt[1]))
