"""The attention measure agrees with eager attention, with sliding windows and padding."""

from __future__ import annotations

import pytest
import torch

from keygap.capture.attention import QUERIES
from keygap.capture.hooks import Capture
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples
from models.zoo import BY_FAMILY


@pytest.mark.parametrize("family", ["llava", "gemma3", "qwen2_5_vl", "paligemma", "florence2"])
def test_it_is_what_eager_attention_gives(family):
    vlm = wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")
    batch = vlm.prompter(check_samples())
    layers = vlm.layer_indices(["all"])
    with Capture(vlm, [], layers, attention=True) as capture:
        read = capture(batch)
    vlm.model.set_attn_implementation("eager")
    with torch.no_grad():
        output = vlm.model(**vlm.inputs_of(batch), output_attentions=True, use_cache=False)
    weights = output.encoder_attentions if vlm.fusion == "encoder" else output.attentions
    for layer in layers:
        for row, labels in enumerate(batch.labels):
            size = len(labels)
            own = weights[layer][row, :, size - QUERIES : size]
            seen = (own > 0).any(0).sum(-1)  # a key out of sight gets nothing at all
            expected = (own * seen[None, :, None]).mean((0, 1))
            torch.testing.assert_close(
                read["attention", layer][row], expected, atol=1e-5, rtol=1e-4
            )


def test_a_sliding_window_hides_what_is_behind_it():
    vlm = wrap(*BY_FAMILY["gemma3"].build(), name="tiny gemma3")
    batch = vlm.prompter(check_samples())
    window = vlm.model.config.text_config.sliding_window
    with Capture(vlm, [], vlm.layer_indices(["all"]), attention=True) as capture:
        read = capture(batch)
    kinds = vlm.model.config.text_config.layer_types
    assert {"sliding_attention", "full_attention"} == set(kinds)
    first = len(batch.labels[0]) - QUERIES - window
    assert first > 0
    for layer, kind in enumerate(kinds):
        before = read["attention", layer][0, :first]
        assert bool((before == 0).all()) == (kind == "sliding_attention")
