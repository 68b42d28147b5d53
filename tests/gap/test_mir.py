"""MIR computed by hand, and what it refuses."""

import numpy as np
import pytest

from keygap import gap
from keygap.errors import UserError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5))
Y = RNG.normal(size=(12, 5))
GX, GY = np.repeat(np.arange(6), 4), np.repeat(np.arange(6), 2)
NAN = np.where(np.arange(24)[:, None] == 0, np.nan, X)


def test_mir_by_hand():
    rng = np.random.default_rng(3)
    image, text = rng.normal(size=(400, 3)) + 4, rng.normal(size=(300, 3))
    image[7] = 1000.0
    result = gap.mir([(image, text), (2 * image, 2 * text)])
    assert result.by_layer[0] == pytest.approx(result.by_layer[1])  # free of scale
    assert result.mir == pytest.approx(np.log10(sum(result.by_layer)))
    assert result.replaced_image[0] == 1
    scale = np.linalg.norm(text, axis=1).mean()
    clean = image.copy()
    clean[7] = np.median(image, axis=0)
    shift = clean.mean(0) - text.mean(0)
    assert result.by_layer[0] == pytest.approx((shift @ shift) / scale**2, rel=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gap.mir([]), "no layers"),
        (lambda: gap.mir([(X, Y), (X, Y * 0)]), "layer 2: all text vectors are zero"),
        (lambda: gap.mir([(X, Y[:1])]), "text of layer 1 has one vector"),
        (lambda: gap.mir([(X, X)]), "log10 of 0"),
        (lambda: gap.mir([(NAN, Y)]), "image of layer 1 holds NaN"),
        (lambda: gap.mir([(X, Y[:, :4])]), "layer 1: image and text vectors differ in width"),
    ],
)
def test_bad_options_are_one_clear_line(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
