"""A model that cannot be read is refused in one line, before a benchmark is opened."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoTokenizer, LlamaConfig, ProcessorMixin

import keygap as kg
from keygap.benchmarks import BadSample, Sample, image_then_question
from keygap.capture.hooks import Capture
from keygap.errors import UserError
from keygap.models.load import wrap
from keygap.models.text_stack import text_stack
from keygap.selfcheck.check import check
from keygap.selfcheck.samples import check_samples

from .offline import tokenizer_with
from .zoo import BY_FAMILY


def test_a_text_only_model_is_refused(tmp_path):
    LlamaConfig(hidden_size=32, num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"\(llama\) is not a vision-language model"):
        kg.load(str(tmp_path))


def test_a_model_without_a_processor_is_refused(tmp_path):
    model, _ = BY_FAMILY["llava"].build()
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="processor"):
        kg.load(str(tmp_path))


def test_a_tokenizer_alone_is_no_processor():
    model, _ = BY_FAMILY["llava"].build()
    with pytest.raises(UserError, match="has no image side"):
        wrap(model, cast(ProcessorMixin, tokenizer_with({})), "tiny")


def test_a_loaded_model_needs_its_processor():
    model, _ = BY_FAMILY["llava"].build()
    with pytest.raises(UserError, match="needs its processor"):
        kg.load(model)


def test_a_saved_model_loads_and_says_what_it_is(tmp_path):
    model, processor = BY_FAMILY["qwen2_5_vl"].build()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    vlm = kg.load(str(tmp_path), dtype="float32", device="cpu")
    assert (vlm.architecture, vlm.fusion, len(vlm.layers)) == ("qwen2_5_vl", "sequence", 3)
    assert vlm.revision is None
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == processor.tokenizer.padding_side


def test_weights_offloaded_to_disk_are_read_like_others(tmp_path):
    model, processor = BY_FAMILY["llava"].build()
    model.save_pretrained(tmp_path / "model")
    whole = wrap(model, processor, "tiny")
    place = {
        "model.vision_tower": "cpu",
        "model.multi_modal_projector": "cpu",
        "model.language_model": "disk",
        "lm_head": "cpu",
    }
    offloaded = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "model", device_map=place, offload_folder=tmp_path / "weights"
    )
    assert "meta" in {parameter.device.type for parameter in offloaded.parameters()}
    vlm = kg.load(offloaded, processor)
    assert not [finding for finding in check(vlm) if finding.passed is False]
    batch = vlm.prompter(check_samples())
    with Capture(vlm, ["k_proj"], [0, 2]) as capture, Capture(whole, ["k_proj"], [0, 2]) as other:
        here, there = capture(batch), other(batch)
    for key, vectors in here.items():
        torch.testing.assert_close(vectors, there[key])


@pytest.mark.parametrize(
    "placed", [{"device": "cpu"}, {"device_map": "cpu"}, {"device_map": {"": "cpu"}}]
)
def test_a_checkpoint_on_a_cpu_is_read_in_float32(tmp_path, placed):
    model, processor = BY_FAMILY["llava"].build()
    model.bfloat16().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert kg.load(str(tmp_path), **placed).dtype == torch.float32


def test_the_dtype_is_that_of_the_text_layers():
    model, processor = BY_FAMILY["blip-2"].build()
    model.bfloat16().query_tokens.data = model.query_tokens.data.float()
    assert model.dtype == torch.float32
    assert kg.load(model, processor).dtype == torch.bfloat16


def test_a_device_map_places_the_model(tmp_path):
    model, processor = BY_FAMILY["llava"].build()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    vlm = kg.load(str(tmp_path), dtype="bfloat16", device_map="auto")
    assert vlm.dtype == torch.bfloat16
    assert not [finding for finding in check(vlm) if finding.passed is False]


def test_the_missing_part_is_named():
    model, _ = BY_FAMILY["llava"].build()
    model.model.language_model.layers = None
    with pytest.raises(UserError, match="no list of text layers with an attention module"):
        text_stack(model)


def test_an_image_too_large_for_the_model_is_a_bad_sample():
    model, processor = BY_FAMILY["qwen2_5_vl"].build()
    model.config.text_config.max_position_embeddings = 16
    vlm = wrap(model, processor, "tiny")
    question = "What colour is it?"
    image = Image.new("RGB", (64, 48))
    sample = Sample("s", (image,), question, image_then_question(question))
    with pytest.raises((BadSample, UserError), match="the model knows 16"):
        vlm.prompter([sample])


def test_more_images_in_the_prompt_than_in_the_sample():
    vlm = wrap(*BY_FAMILY["llava"].build(), "tiny")
    sample = Sample("s", (Image.new("RGB", (32, 32)),), "q?", image_then_question("q?", images=2))
    with pytest.raises(BadSample, match="names image 2 of 1 images"):
        vlm.prompter([sample])
