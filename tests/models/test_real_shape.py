"""The paper's two models at their real shape, on the meta device: no weight is ever made."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForImageTextToText, LlavaConfig, Qwen2_5_VLConfig

from keygap.models.connector import describe
from keygap.models.parts import text_stack

# config.json of llava-hf/llava-1.5-7b-hf and Qwen/Qwen2.5-VL-7B-Instruct
LLAVA_15_7B = LlavaConfig(
    text_config={
        "model_type": "llama",
        "vocab_size": 32064,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
    },
    vision_config={
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
        "vocab_size": 32000,
    },
    image_token_index=32000,
    projector_hidden_act="gelu",
    vision_feature_layer=-2,
    vision_feature_select_strategy="default",
)
QWEN_25_VL_7B = Qwen2_5_VLConfig(
    text_config={
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "max_position_embeddings": 128000,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1000000.0,
            "mrope_section": [16, 24, 24],
        },
    },
    vision_config={
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "window_size": 112,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
)


@pytest.mark.parametrize(
    ("config", "layers", "heads", "key_heads"),
    [(LLAVA_15_7B, 32, 32, 32), (QWEN_25_VL_7B, 28, 28, 4)],
    ids=["LLaVA-1.5-7B", "Qwen2.5-VL-7B"],
)
def test_layers_and_heads(config, layers, heads, key_heads):
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    found = text_stack(model).layers
    assert len(found) == layers
    for layer in found:
        assert (layer.heads, layer.key_heads, layer.head_dim) == (heads, key_heads, 128)
        assert layer.projection("k_proj").module.out_features == key_heads * 128
        assert layer.projection("q_proj").module.out_features == heads * 128


def test_connectors_are_described_as_they_are():
    """Neither is what the paper calls it: not linear, and not a Q-Former."""
    with torch.device("meta"):
        llava = AutoModelForImageTextToText.from_config(LLAVA_15_7B)
        qwen = AutoModelForImageTextToText.from_config(QWEN_25_VL_7B)
    assert str(describe(llava, text_stack(llava).decoder)) == (
        "Linear 1024x4096 > GELU > Linear 4096x4096 (20,979,712 parameters)"
    )
    merger = describe(qwen, text_stack(qwen).decoder)
    assert merger is not None
    assert [part for part in merger.modules if part.startswith("Linear")] == [
        "Linear 5120x5120",
        "Linear 5120x3584",
    ]
    assert not merger.queries
