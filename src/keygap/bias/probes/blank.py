"""What does the model answer if its image is of one colour?

A blank image is replaced and not absent: the model still gets as many image tokens. It is unlike
the images that models were trained on, so a drop in accuracy is not only lost information; compare
it with ``shuffle``.
"""

from __future__ import annotations

from functools import partial

from PIL import Image, ImageColor, ImageStat

from keygap.benchmarks import Sample
from keygap.bias.condition import UNCHANGED, Condition, Probe, Samples, Variant
from keygap.bias.probes.prompts import decoded_images, with_images
from keygap.errors import UserError

MEAN = "mean"


def blank(*, colour: str = MEAN) -> Probe:
    """Every image replaced by one colour.

    Args:
        colour: ``mean`` for the mean colour of each image, or a name or code such as ``black`` or
            ``#808080``.

    Raises:
        UserError: there is no such colour.
    """
    if colour != MEAN:
        try:
            ImageColor.getrgb(colour)
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"the colour {colour!r} is not known: use mean, a name such as black, or #808080"
            ) from error
    conditions = (UNCHANGED, Condition("blank", partial(blanked, colour=colour)))
    return Probe("blank", conditions, {"colour": colour})


def blanked(sample: Sample, samples: Samples, *, colour: str) -> Variant:
    """The sample with images of one colour, of the same sizes.

    Raises:
        Unfit: the sample shows a video.
    """
    images = decoded_images(sample)
    return Variant(with_images(sample, [_blank(image, colour) for image in images]))


def _blank(image: Image.Image, colour: str) -> Image.Image:
    if colour != MEAN:
        return Image.new("RGB", image.size, colour)
    red, green, blue = (round(value) for value in ImageStat.Stat(image).mean)
    return Image.new("RGB", image.size, (red, green, blue))
