"""Does the same text weigh more as words than as pixels?

A conflicting hint is given once as text (``typed``) and once as pixels (``rendered``).
Rendering needs a larger image with a strip below it; ``canvas`` is that image with an empty strip
and no hint, and both hints are given with that layout. Results depend on font, size and resolution
(arXiv 2603.09095), so these are settings.
"""

from __future__ import annotations

import textwrap
from functools import partial

from PIL import Image, ImageDraw, ImageFont

from keygap.arguments import whole
from keygap.benchmarks import Sample
from keygap.bias.condition import UNCHANGED, Condition, Probe, Samples, Unfit, Variant
from keygap.bias.probes.prompts import HINTS, checked_phrasings, decoded_images, with_images
from keygap.bias.probes.prompts import with_text as typed_text
from keygap.errors import UserError

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
LARGEST = 4096  # pixels


def rendered(
    *, phrasing: str = HINTS[0], font: str | None = None, font_size: int = 32, width: int = 448
) -> Probe:
    """A conflicting hint once as text and once rendered into the image.

    Args:
        phrasing: contains ``{answer}`` once.
        font: a font file that Pillow reads; None for Pillow's own.
        font_size: in pixels.
        width: to which the image is scaled before the strip is added, in pixels.

    Raises:
        UserError: the phrasing or the font is no text, the font cannot be read, or a size is out
            of range.
    """
    (text,) = checked_phrasings([phrasing])
    size = whole(font_size, "font_size", 4, LARGEST)
    wide = whole(width, "width", 16, LARGEST)
    drawn = partial(_variant, text=text, font=_font(font, size), width=wide)
    conditions = (
        UNCHANGED,
        Condition("canvas", partial(drawn, typed=False, pixels=False)),
        Condition(
            "typed",
            partial(drawn, typed=True, pixels=False),
            image_only="canvas",
            text_only="typed_absent",
        ),
        Condition("typed_absent", partial(drawn, typed=True, pixels=False), pictures="absent"),
        Condition("rendered", partial(drawn, typed=False, pixels=True)),
    )
    settings = {"phrasing": text, "font": font, "font_size": size, "width": wide}
    return Probe("rendered", conditions, settings)


def _variant(
    sample: Sample,
    samples: Samples,
    *,
    text: str,
    font: Font,
    width: int,
    typed: bool,
    pixels: bool,
) -> Variant:
    """The sample with its first image on a canvas, and the hint as text, as pixels, or absent."""
    images = decoded_images(sample)
    if not images:
        raise Unfit("the sample has no image to render into")
    answer = samples.wrong_answer(sample, "hint")
    said = text.replace("{answer}", answer)
    images[0] = on_canvas(images[0], said, font, width, pixels)
    changed = with_images(sample, images)
    if typed:
        changed = typed_text(changed, said, "after", "\n")
    return Variant(changed, answer if typed or pixels else None)


def on_canvas(image: Image.Image, text: str, font: Font, width: int, write: bool) -> Image.Image:
    """An image scaled to a width, above a white strip that has room for a text.

    Args:
        image: the image.
        text: decides the height of the strip.
        font: of the text.
        width: of the result, in pixels.
        write: whether the text is written.
    """
    height = max(1, round(image.height * width / image.width))
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    letters = max(1, int((width - 8) / max(1.0, draw.textlength("n", font=font))))
    lines = "\n".join(textwrap.wrap(text, letters)) or text
    box = draw.multiline_textbbox((4, 4), lines, font=font)
    page = Image.new("RGB", (width, height + int(box[3]) + 8), "white")
    page.paste(image.resize((width, height), Image.Resampling.BICUBIC), (0, 0))
    if write:
        ImageDraw.Draw(page).multiline_text((4, height + 4), lines, fill="black", font=font)
    return page


def _font(path: str | None, size: int) -> Font:
    if path is None:
        return ImageFont.load_default(size)
    if not isinstance(path, str):
        raise UserError(f"the font is {path!r}: the path of a font file is needed, as text")
    try:
        return ImageFont.truetype(path, size)
    except OSError as error:
        raise UserError(f"the font {path} cannot be read: {error}") from error
