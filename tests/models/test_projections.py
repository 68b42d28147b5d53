"""Projections are read from a fused output, and written into it, in the model's own order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, Phi3Config, Phi3ForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from keygap.models.attention_tap import AttentionTap
from keygap.models.interventions import Intervention, InterventionStack
from keygap.models.projections import Projection
from keygap.models.text_stack import text_stack

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 50,
}


def phi3():
    config = Phi3Config(**SIZES, num_key_value_heads=2, intermediate_size=32, pad_token_id=0)
    return Phi3ForCausalLM(config)


def gpt_neox():
    options: dict[str, Any] = {"intermediate_size": 32, "rotary_pct": 1.0}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, **options))


MODELS = {"blocks": phi3, "heads": gpt_neox}


@pytest.fixture(params=MODELS)
def fused(request):
    torch.manual_seed(0)
    return request.param, MODELS[request.param]().eval()


class Double(Intervention):
    name = "double"

    def __init__(self, site):
        self.sites, self.layers = (site,), [0, 1]

    def change(self, vectors, site, layer, tokens):
        return vectors * 2


def test_the_layout_is_found(fused):
    layout, model = fused
    stack = text_stack(model)
    assert {p.layout for layer in stack.layers for p in layer.projections.values()} == {layout}


@pytest.mark.parametrize("site", ["q_proj", "k_proj", "v_proj"])
def test_a_share_of_a_fused_output_is_changed_alone(fused, site):
    """Rotary embedding is linear, so attention gets the double of what it got."""
    _, model = fused
    stack = text_stack(model)
    ids = torch.arange(10)[None]

    def arguments() -> dict[str, torch.Tensor]:
        seen: dict[str, torch.Tensor] = {}

        def handler(call):
            if call.module is stack.layers[0].attention:
                seen.update(q_proj=call.query, k_proj=call.key, v_proj=call.value)
            return call.proceed()

        with torch.no_grad(), AttentionTap(stack.attention_modules, handler, reads=True):
            model(ids)
        return seen

    own = arguments()
    with InterventionStack(stack.decoder, stack.layers).applied(Double(site)):
        changed = arguments()
    for name, states in own.items():
        torch.testing.assert_close(changed[name], states * (2 if name == site else 1))


def test_shares_by_hand():
    """Two key heads, a group of two queries each, heads of width 1."""
    output = torch.arange(8.0)[None, None]
    expected: dict[Any, dict[str, list[int]]] = {
        "blocks": {"q_proj": [0, 1, 2, 3], "k_proj": [4, 5], "v_proj": [6, 7]},
        "heads": {"q_proj": [0, 1, 4, 5], "k_proj": [2, 6], "v_proj": [3, 7]},
    }
    for layout, shares in expected.items():
        for name, share in shares.items():
            projection = Projection(torch.nn.Identity(), name, 1, 4, 2, layout)
            assert projection.read(output).flatten().tolist() == share
            written = projection.write(output, -projection.read(output)).flatten()
            signs = [-1 if value in share else 1 for value in range(8)]
            assert written.tolist() == [s * v for s, v in zip(signs, range(8), strict=True)]


def test_the_plain_attention_function_is_left_in_place(fused):
    from transformers import AttentionInterface

    assert AttentionInterface._global_mapping["sdpa"] is sdpa_attention_forward
