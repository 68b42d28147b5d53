"""What is known about each image and video of a batch apart from its positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from transformers import BatchFeature

from keygap.benchmarks.sample import Piece, Sample, as_rgb
from keygap.models.patches.charts import Charts
from keygap.models.patches.layout import ImageFacts
from keygap.models.prompting.image_inputs import ImageTokens, grids_of, sizes_of
from keygap.models.prompting.labelling import VideoFacts

Shown = (
    Image.Image | tuple[np.ndarray, ...]
)  # an image, or the frames (height, width, 3) of a video


def shown_by(sample: Sample, piece: Piece) -> Shown:
    """The decoded image or video that a piece of a prompt shows.

    Raises:
        BadSample: it cannot be decoded.
    """
    if piece.kind == "image":
        return as_rgb(sample.images[piece.image])
    return tuple(np.asarray(as_rgb(frame)) for frame in sample.videos[piece.image])


def facts_of(
    inputs: BatchFeature,
    shown: Sequence[Sequence[Shown]],
    known: ImageTokens,
    charts: Charts,
    positions: int,
) -> list[list[ImageFacts | VideoFacts]]:
    """Facts of every image and video of every prompt.

    Args:
        inputs: model inputs of all prompts.
        shown: images and videos of each prompt.
        known: what the model reports about image positions.
        charts: how the processor cuts images.
        positions: the number of all image positions together.

    Raises:
        BadSample: the processor refuses a chart of an image's size.
    """
    every = [one for own in shown for one in own]
    images = sum(isinstance(one, Image.Image) for one in every)
    grids = grids_of(inputs, images)
    charted = images and known.in_prompt and None in grids
    fixed = charts.fixed(inputs, images, positions) if charted else None
    of_images = iter(zip(grids, sizes_of(inputs, images), strict=True))
    of_videos = iter(grids_of(inputs, len(every) - images, "video"))

    def facts(one: Shown, together: int) -> ImageFacts | VideoFacts:
        if not isinstance(one, Image.Image):
            return VideoFacts(len(one), next(of_videos))
        grid, pixels = next(of_images)
        views, count = None, None
        if grid is None and known.in_prompt:
            views, count = fixed or charts.cut(one.size, together)
        return ImageFacts(
            height=one.height,
            width=one.width,
            grid=grid,
            views=views,
            count=count,
            row_ends=known.row_ends,
            begin=known.begin,
            end=known.end,
            side=known.side,
            pixels=pixels,
            mixed=known.mixed,
        )

    together = [sum(isinstance(one, Image.Image) for one in own) for own in shown]
    return [
        [facts(one, pictures) for one in own] for own, pictures in zip(shown, together, strict=True)
    ]
