"""Rows and columns are where the pixels are: part of an image painted over, and what changes.

The vision tower's attention is silenced, so that a patch's features are its own pixels'. Then
paint on one side of an image must change the positions whose rows and columns say that side and no
others, whatever grid the processor chose for an image of that size.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from keygap.benchmarks import BadSample
from keygap.capture.hooks import Capture
from keygap.models.load import wrap
from keygap.models.text_stack import attentions
from made import made_sample

from ..zoo import BY_FAMILY

SIZES = [(64, 48), (48, 64), (100, 30), (33, 90), (64, 64), (120, 41), (40, 122), (200, 150)]
FAST = ("llava", "llava_next", "internvl", "qwen2_5_vl", "cohere2_vision", "llama4", "idefics3")
SLOW = (
    *("llava_onevision", "llava_next_video", "qianfan_ocr", "aya_vision", "granite_docling"),
    *("perception_lm", "mistral3", "lighton_ocr", "gemma3", "gemma4", "nemotron_h_omni"),
    *("hunyuan_vl", "lfm2_vl", "kimi_k25", "minicpmv4_6", "ovis2", "step3p7", "muse_glimmer"),
    *("glm4v", "paddleocr_vl", "janus", "paligemma", "smolvlm", "gemma4_unified", "minicpm_ocr"),
    *("cohere_compass", "qwen3_vl", "ernie4_5_vl_moe", "inkling2", "minimax_m3_vl"),
)


def silenced(family):
    """A family's tiny model whose vision attention gives nothing."""
    vlm = wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")
    text = {id(module) for module in vlm.decoder.modules()}

    def nothing(module, arguments, output):
        if isinstance(output, tuple):
            return (torch.zeros_like(output[0]), *output[1:])
        return torch.zeros_like(output)

    for _, module in attentions(vlm.model):
        if id(module) not in text:
            module.register_forward_hook(nothing)
    return vlm


def entering(vlm, pixels):
    """Labels of a prompt of one image, and what enters the first layer."""
    batch = vlm.prompter([replace(made_sample("s"), images=(Image.fromarray(pixels),))])
    with Capture(vlm, ["hidden"], [0]) as capture:
        return batch.labels[0], capture(batch)["hidden", 0][0].flatten(1)


def assert_places(vlm, size):
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    labels, plain = entering(vlm, pixels)

    def changed(rows, columns):
        painted = pixels.copy()
        painted[rows, columns] = 255 - painted[rows, columns]
        return (entering(vlm, painted)[1] != plain).any(-1).numpy()

    every = slice(None)
    live = changed(every, every) & (labels.patch_row >= 0)
    left, top = width * 2 // 5, height * 2 // 5  # resizing mixes neighbours: keep off the middle
    sides = [
        (labels.patch_column, changed(every, slice(left)), changed(every, slice(-left, None))),
        (labels.patch_row, changed(slice(top), every), changed(slice(-top, None), every)),
    ]
    for role in ("", "thumbnail"):
        own = live & (labels.role == role)
        for place, start, end in sides:
            if not own.any() or place[own].max() == place[own].min():
                continue
            first, last = place[own & start], place[own & end]
            middle = (place[own].min() + place[own].max()) / 2
            assert len(first), (role, size)
            assert len(last), (role, size)
            assert first.min() == place[own].min(), (role, size)
            assert last.max() == place[own].max(), (role, size)
            assert first.max() <= middle + 0.5, (role, size)
            assert last.min() >= middle - 0.5, (role, size)
    return (labels.patch_row[labels.role == ""] >= 0).any()


def assert_family(family):
    vlm = silenced(family)
    known = [assert_places(vlm, size) for size in SIZES]
    assert any(known)


@pytest.mark.parametrize("family", FAST)
def test_paint_is_where_rows_and_columns_say(family):
    assert_family(family)


@pytest.mark.slow
@pytest.mark.parametrize("family", SLOW)
def test_paint_is_where_rows_and_columns_say_in_further_families(family):
    assert_family(family)


@pytest.mark.slow
def test_row_ends_among_views_of_unknown_order_are_refused():
    """Its tiles and its whole view are two inputs, and nothing says which the model puts first."""
    vlm = silenced("unlimited_ocr")
    assert assert_places(vlm, (64, 48))
    with pytest.raises(BadSample, match="ends of an image's rows"):
        assert_places(vlm, (200, 150))
