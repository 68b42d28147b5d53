"""Recomputed weights of every head equal those that the model's own eager attention returns.

The models run as users run them (SDPA where the family has it), in batches padded on the right.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import keygap as kg
from bias.eager import eager_weights
from keygap.bias.attention_pass import read_calls
from keygap.capture.attention import attention_at
from keygap.models.batch import Batch
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples
from models.zoo import BY_FAMILY, ZOO

_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 640,
    "pad_token_id": 0,
    "sliding_window": 8,
}
# language models of a LLaVA whose attention has what few models of the zoo have
LANGUAGE = {
    "softcap": {**_SIZES, "model_type": "gemma2", "attn_logit_softcapping": 0.5},
    "s_aux": {
        **_SIZES, "model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2
    },
}  # fmt: skip
FAST = ("llava", "gemma3", "qwen2_5_vl", "mllama", "florence2", "llava_next")
# eager attention and SDPA lead to residual streams that differ by more than the tolerance, so the
# weights are recomputed in the eager pass itself
DRIFTS = ("gemma4", "gemma4_unified", "diffusion_gemma", "muse_glimmer", "muse_spark")
# the family's eager attention does not repeat grouped keys and fails
FAILS = ("unlimited_ocr",)
AGREES = [entry.family for entry in ZOO if entry.family not in FAILS]
SLOW = [family for family in AGREES if family not in FAST]
TOLERANCE = 1e-5


def recomputed(vlm: kg.VLM, batch: Batch) -> tuple[dict[int, Tensor], set[str]]:
    """Weights of every query by layer, and the keyword arguments that attention was given."""
    found: dict[int, Tensor] = {}
    keywords: set[str] = set()

    def read(layer, call):
        everywhere = torch.arange(call.query.shape[2]).expand(len(call.query), -1)
        found[layer.index] = attention_at(call, everywhere).weights
        keywords.update(name for name, value in call.keywords.items() if value is not None)

    read_calls(vlm, batch, [layer.index for layer in vlm.layers if layer.calls_function], read)
    return found, keywords


def assert_agrees(vlm: kg.VLM, in_eager_pass: bool = False) -> set[str]:
    batch = vlm.prompter(check_samples())
    assert len({len(labels) for labels in batch.labels}) > 1  # so that one prompt is padded
    if in_eager_pass:
        vlm.model.set_attn_implementation("eager")
    torch.manual_seed(0)  # a diffusion model draws its canvas
    found, keywords = recomputed(vlm, batch)
    torch.manual_seed(0)
    expected = eager_weights(vlm, batch)
    attending = {layer.index for layer in vlm.layers if layer.attention is not None}
    assert found.keys() == expected.keys() == attending
    for layer, own in expected.items():
        for row, labels in enumerate(batch.labels):
            weights = (each[row, :, : len(labels)] for each in (found[layer], own))
            torch.testing.assert_close(*weights, atol=TOLERANCE, rtol=0)
    return keywords


def vlm_of(family: str) -> kg.VLM:
    return wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")


@pytest.mark.parametrize("family", FAST)
def test_weights_of_every_head(family):
    assert_agrees(vlm_of(family))


@pytest.mark.slow
@pytest.mark.parametrize("family", SLOW)
def test_weights_of_every_head_in_further_families(family):
    assert_agrees(vlm_of(family), family in DRIFTS)


@pytest.mark.parametrize("what", LANGUAGE)
def test_soft_caps_and_learned_sinks(what):
    entry = replace(BY_FAMILY["llava"], config={"text_config": LANGUAGE[what]})
    vlm = wrap(*entry.build(), name=f"tiny llava with {what}")
    keywords = assert_agrees(vlm)
    assert {what, "sliding_window"} <= keywords
    assert {layer.heads // layer.key_heads for layer in vlm.layers} == {2}


def test_these_are_at_least_thirty_families():
    assert len(set(AGREES)) >= 30
    assert set(FAST) | set(DRIFTS) <= set(AGREES)
