"""The paper's two models at their real shape: on the meta device, and read at a reduced width.

The models of reduced width have the real number of layers, head width, patches, rotary sections and
processors. Only the number of heads and the other widths are small.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, LlavaConfig, Qwen2_5_VLConfig

import keygap as kg
from keygap.benchmarks import Sample, image_then_question
from keygap.capture.hooks import Capture
from keygap.models.connector import describe
from keygap.models.load import wrap
from keygap.models.text_stack import text_stack
from keygap.selfcheck.check import check

from . import offline
from .entry import LLAVA, QWEN_PLACE, QWEN_TOKENS
from .tiny import VOCABULARY, tiny_model

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
    """The paper calls one linear and the other a Q-Former; neither is."""
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


def reduced(config: Any, text: dict[str, int], vision: dict[str, int], token: Any) -> Any:
    """The same configuration with fewer heads and a small vocabulary."""
    values = config.to_dict()
    for part, sizes in (("text_config", text), ("vision_config", vision)):
        values[part] |= sizes
    values["text_config"] |= {"vocab_size": VOCABULARY, "pad_token_id": 0}
    values |= {name: token for name in ("image_token_id", "image_token_index") if name in values}
    return type(config).from_dict(values)


@pytest.fixture(scope="module")
def llava() -> kg.VLM:
    tokenizer = offline.tokenizer_with({"image_token": "<image>"})
    template = offline.VICUNA.replace("IMAGE", "<image>")
    image = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    arguments = {**LLAVA, "patch_size": 14}
    processor = offline.real_processor("llava", tokenizer, image, arguments, template)
    config = reduced(
        LLAVA_15_7B,
        {
            "hidden_size": 256,
            "intermediate_size": 256,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
        },
        {"hidden_size": 64, "intermediate_size": 64},
        tokenizer.convert_tokens_to_ids("<image>"),
    )
    return wrap(tiny_model(config), processor, "LLaVA-1.5, two heads")


@pytest.fixture(scope="module")
def qwen() -> kg.VLM:
    tokenizer = offline.tokenizer_with(QWEN_TOKENS)
    template = offline.WITH_SYSTEM.replace("IMAGE", QWEN_PLACE)
    processor = offline.real_processor("qwen2_5_vl", tokenizer, {}, {}, template)
    config = reduced(
        QWEN_25_VL_7B,
        {
            "hidden_size": 7 * 128,
            "intermediate_size": 256,
            "num_attention_heads": 7,
            "num_key_value_heads": 1,
        },
        {"hidden_size": 64, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 7 * 128},
        tokenizer.convert_tokens_to_ids("<|image_pad|>"),
    )
    return wrap(tiny_model(config), processor, "Qwen2.5-VL, seven heads")


def photograph() -> Sample:
    question = "What colour is the shape?"
    picture = Image.effect_noise((640, 480), 80).convert("RGB")
    return Sample("photograph", (picture,), question, image_then_question(question))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["llava", "qwen"])
def test_a_reduced_width_passes_the_self_check(model, request):
    findings = check(request.getfixturevalue(model))
    assert not [finding for finding in findings if finding.passed is False]


def test_llava_reads_576_patches_at_all_32_layers(llava):
    batch = llava.prompter([photograph()])
    image = batch.labels[0].modality == "image"
    assert image.sum() == 24 * 24
    assert batch.labels[0].patch_row[image].max() == 23
    with Capture(llava, ["k_proj"], llava.layer_indices(["all"])) as capture:
        read = capture(batch)
    assert {tuple(vectors.shape[-2:]) for vectors in read.values()} == {(2, 128)}
    assert len(read) == 32


@pytest.mark.slow
def test_qwen_reads_its_native_resolution_at_all_28_layers(qwen):
    batch = qwen.prompter([photograph()])
    labels = batch.labels[0]
    image = labels.modality == "image"
    # 480 x 640 pixels, to the nearest multiples of 28: 17 rows of 23
    assert image.sum() == 17 * 23
    assert (labels.patch_row[image].max(), labels.patch_column[image].max()) == (16, 22)
    assert "mm_token_type_ids" in batch.inputs  # without it positions would be those of a text
    with Capture(qwen, ["key", "k_proj"], qwen.layer_indices(["all"])) as capture:
        read = capture(batch)
    assert {tuple(vectors.shape[-2:]) for vectors in read.values()} == {(1, 128)}
    assert len(read) == 2 * 28
