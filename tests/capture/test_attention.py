"""The attention measure agrees with eager attention, with sliding windows and padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from keygap.capture.attention import CHUNK, QUERIES, QueryGroups, attention_by_key
from keygap.capture.hooks import Capture
from keygap.models.attention_tap import AttentionCall
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


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        sizes = [each.numel() for each in tree_leaves(output) if isinstance(each, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return output


def test_weights_of_all_queries_are_never_held_together():
    heads, length = 4, 1024
    query, key = torch.randn(1, heads, length, 8), torch.randn(1, 2, length, 8)
    module: Any = torch.nn.Identity()
    module.is_causal = True
    call = AttentionCall(module, query, key, key, (None,), {}, lambda *_: None)
    queries = QueryGroups.of([[np.arange(length)]])
    with Largest() as largest:
        found = attention_by_key(call, queries)
    assert largest.elements <= heads * CHUNK * length
    weights = (query @ key.repeat_interleave(2, 1).transpose(-1, -2)) * 8**-0.5
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    whole = weights.masked_fill(hidden, -torch.inf).softmax(-1).mean(2)
    torch.testing.assert_close(found.mass[:, :, 0], whole, atol=1e-6, rtol=1e-4)
