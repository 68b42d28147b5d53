"""Samples whose prompts are about equally long, side by side.

A forward pass computes every prompt of a batch at the length of the longest one. Batches of similar
lengths compute less padding, so samples are sorted before batches are made, without decoding an
image. A wrong estimate costs time and changes no result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image

from keygap.benchmarks import BadSample, Sample
from keygap.models.vlm import VLM

SIDES = (32, 64, 128, 256, 512, 1024, 2048)  # of the squares whose image tokens are counted


def longest_first(vlm: VLM, samples: Sequence[Sample]) -> list[Sample]:
    """Sort samples by the length of their prompts, as far as it is known without processing them.

    The length is the number of tokens of the prompt's own text, and that of image tokens, estimated
    from the areas of the images that it shows. How image tokens depend on the area is asked of the
    processor, with squares of a few sizes, and only if the images differ in size. Samples of equal
    length keep their order. The longest come first, so that the batch that takes most memory is
    tried before the others.

    Args:
        vlm: the model.
        samples: opened samples. Images need not be decoded: PIL knows their sizes from the header.
    """
    areas = [_areas(sample) for sample in samples]
    if len({tuple(own) for own in areas}) > 1:
        visual = [float(_image_tokens(vlm, own).sum()) for own in areas]
    else:
        visual = [0.0] * len(samples)
    lengths = [own + _text_tokens(vlm, sample) for own, sample in zip(visual, samples, strict=True)]
    return [samples[place] for place in np.argsort(-np.array(lengths), kind="stable")]


def _areas(sample: Sample) -> Float[np.ndarray, " images"]:
    """The area in pixels of every image and video frame that the prompt shows."""
    shown: list[Image.Image] = []
    for piece in sample.prompt:
        if piece.kind == "image":
            shown += sample.images[piece.image : piece.image + 1]
        elif piece.kind == "video":
            shown += [
                frame for film in sample.videos[piece.image : piece.image + 1] for frame in film
            ]
    return np.array([image.width * image.height for image in shown], float)


def _text_tokens(vlm: VLM, sample: Sample) -> int:
    """The number of tokens of a prompt's text; 0 of one that cannot be tokenized."""
    try:
        return len(vlm.prompter.ids_of("".join(piece.text for piece in sample.prompt)))
    except BadSample:  # its batch gives the reason
        return 0


def _image_tokens(vlm: VLM, areas: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The number of tokens of images of these areas, between squares whose number is known.

    A processor that gives every image the same number of tokens has a constant, one that reads
    images at their own resolution a line between its least and its most pixels, and one that cuts
    tiles a staircase. Beyond the largest square the last value holds.
    """
    charts = vlm.prompter.form.charts
    known: dict[int, int] = {}
    for side in SIDES:
        try:
            known[side**2] = charts.cut((side, side), 1)[1]
        except BadSample:  # then an image of this size is a bad sample, too
            continue
    return np.interp(areas, list(known), list(known.values())) if known else np.zeros(len(areas))
