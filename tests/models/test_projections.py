"""Projections are read from a fused output, and written into it, in the model's own order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, Phi3Config, Phi3ForCausalLM

from keygap.capture.hooks import Capture
from keygap.models.attention_tap import AttentionTap
from keygap.models.interventions import Intervention, InterventionStack
from keygap.models.load import wrap
from keygap.models.projections import Projection, projections_of
from keygap.models.text_stack import text_stack
from keygap.selfcheck.samples import check_samples

from .zoo import BY_FAMILY

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

    def __init__(self, site, layers=(0, 1)):
        self.sites, self.layers = (site,), list(layers)

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


@pytest.fixture
def gated():
    """Qwen3.5, whose query projection gives the gate of each head too; its last layer attends."""
    vlm = wrap(*BY_FAMILY["qwen3_5"].build(), name="gated")
    return vlm, vlm.prompter(check_samples())


def test_queries_of_gated_attention_are_read_without_the_gate(gated):
    """Rotary embedding keeps the lengths that the norm of queries gives them."""
    vlm, batch = gated
    with Capture(vlm, ["q_proj", "query"], [2]) as capture:
        read = capture(batch)
    assert read["q_proj", 2].shape == read["query", 2].shape
    assert read["q_proj", 2].shape[2] == vlm.layers[2].heads
    normed = vlm.layers[2].attention.q_norm(read["q_proj", 2])
    torch.testing.assert_close(normed.norm(dim=-1), read["query", 2].norm(dim=-1))


def test_a_change_of_gated_queries_leaves_the_gate_alone(gated):
    vlm, batch = gated
    seen: list[torch.Tensor] = []

    def see(module, arguments, output):
        seen.append(output.detach().unflatten(-1, (4, 2, 16)))

    module = vlm.layers[2].projection("q_proj").module
    with torch.no_grad():
        handle = module.register_forward_hook(see)
        vlm.forward(batch)
        with vlm.interventions.applied(Double("q_proj", [2])):
            vlm.forward(batch)
        handle.remove()
    own, changed = seen
    torch.testing.assert_close(changed[..., 0, :], own[..., 0, :] * 2)
    assert torch.equal(changed[..., 1, :], own[..., 1, :])


def test_a_query_projection_of_unknown_width_is_not_offered():
    attention = torch.nn.Module()
    attention.q_proj = torch.nn.Linear(8, 3 * 4 * 16)
    attention.k_proj = torch.nn.Linear(8, 2 * 16)
    assert projections_of(attention, heads=4, key_heads=2, head_dim=16).keys() == {"k_proj"}
