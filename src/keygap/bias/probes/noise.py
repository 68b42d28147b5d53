"""What does the model answer if its image is covered by noise, and from how much noise on?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from PIL import Image

from keygap.arguments import distinct
from keygap.benchmarks import Sample
from keygap.bias.condition import UNCHANGED, Condition, Probe, Samples, Variant
from keygap.bias.probes.prompts import decoded_images, with_images
from keygap.errors import UserError


def noise(*, levels: Sequence[float] = (0.5, 1.0)) -> Probe:
    """Images mixed with uniform noise.

    Args:
        levels: shares of noise, above 0 and at most 1; at 1 nothing of the image is left.

    Raises:
        UserError: a level outside of that range, twice the same, or none.
    """
    shares = checked_levels(levels)
    conditions = [
        Condition("noise", partial(noisy, level=level), variant=f"{level:g}") for level in shares
    ]
    return Probe("noise", (UNCHANGED, *conditions), {"levels": shares})


def checked_levels(levels: Sequence[float]) -> list[float]:
    """Check shares of noise.

    Raises:
        UserError: a level outside of 0 (excluded) to 1, twice the same, or none.
    """
    found = distinct(levels, "levels", "0.5")
    for level in found:
        number = isinstance(level, (int, float)) and not isinstance(level, bool)
        if not (number and math.isfinite(level) and 0 < level <= 1):
            raise UserError(f"a level of noise is a number above 0 and at most 1, not {level!r}")
    return [float(level) for level in found]


def noisy(sample: Sample, samples: Samples, *, level: float) -> Variant:
    """The sample with images that are mixed with noise.

    Raises:
        Unfit: the sample shows a video.
    """
    rng = samples.rng(sample.id, "noise")
    return Variant(
        with_images(sample, [_mixed(image, level, rng) for image in decoded_images(sample)])
    )


def _mixed(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float64)
    drawn = rng.integers(0, 256, pixels.shape)
    return Image.fromarray(((1 - level) * pixels + level * drawn).round().astype(np.uint8))
