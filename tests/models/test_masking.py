"""Masking a modality gives what the model computes with that attention mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import flash_attention_mask

import keygap as kg
from keygap.capture import Capture
from keygap.errors import UserError
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples

from .zoo import BY_FAMILY, ZOO

CAUSAL = [
    "llava",  # Llama
    "internvl",  # Qwen2
    "qwen2_5_vl",  # multimodal rotary positions
    "qwen3_vl",
    "mistral3",
    "aya_vision",  # sliding windows
    "kimi_k25",  # latent attention
    "lfm2_vl",  # some layers without attention
    "gemma3",  # sliding windows, and images that see themselves whole
    "blip-2",  # learned positions
]
LEAST = torch.finfo(torch.float32).min


def vlm_of(family: str) -> kg.VLM:
    return wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")


def mask_from_scratch(vlm, batch, layer, hidden: str) -> torch.Tensor:
    """Which key each query of a layer sees: (batch, 1, tokens, tokens)."""
    length = batch.inputs["input_ids"].shape[1]
    masks = torch.zeros(len(batch.labels), 1, length, length, dtype=torch.bool)
    for mask, labels in zip(masks, batch.labels, strict=True):
        image = np.where(labels.modality == "image", labels.image, -1).tolist()
        for query in range(length):
            for key in range(len(labels)):
                seen = key <= query
                if vlm.architecture == "gemma3" and query < len(labels):
                    seen |= image[query] >= 0 and image[query] == image[key]
                if layer.window:
                    seen &= query - key < layer.window
                mask[0, query, key] = seen and labels.modality[key] != hidden
            if not mask[0, query].any():
                mask[0, query, query] = True
    return masks


def logits_with_own_mask(vlm, batch, layers: list[int], hidden: str) -> torch.Tensor:
    """Logits of the model, whose attention modules get another mask at some layers."""
    handles, given = [], []
    for index in layers:
        mask = mask_from_scratch(vlm, batch, vlm.layers[index], hidden)
        if vlm.layers[index].attention.config._attn_implementation == "eager":
            mask = torch.where(mask, 0.0, LEAST)

        def hook(module, arguments, keywords, mask=mask):
            given.append(module)
            assert "attention_mask" in keywords
            return arguments, {**keywords, "attention_mask": mask}

        attention = vlm.layers[index].attention
        handles.append(attention.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        with torch.no_grad():
            logits = vlm.forward(batch).logits
    finally:
        for handle in handles:
            handle.remove()
    assert len(given) == len(layers)
    return logits


def assert_equal_where_labelled(batch, found, expected):
    for row, labels in enumerate(batch.labels):
        size = len(labels)
        torch.testing.assert_close(found[row, :size], expected[row, :size], atol=1e-5, rtol=1e-4)


def takes_sdpa(vlm: kg.VLM) -> bool:
    """Whether every part of the model says that it supports SDPA."""
    parts = [part for part in vlm.model.modules() if isinstance(part, PreTrainedModel)]
    return all(part._supports_sdpa for part in parts)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("family", CAUSAL)
def test_it_is_the_model_with_that_mask(family, implementation):
    vlm = vlm_of(family)
    if family == "blip-2" and implementation == "sdpa" and not takes_sdpa(vlm):
        pytest.skip("this transformers has BLIP-2's Q-Former with eager attention only")
    vlm.model.set_attn_implementation(implementation)
    batch = vlm.prompter(check_samples())
    hidden = "text" if family == "blip-2" else "image"
    plain = vlm.forward(batch).logits
    for layers in (vlm.layer_indices(["all"]), vlm.layer_indices(["last"])):
        with torch.no_grad(), kg.mask(vlm, hidden, layers=layers):
            masked = vlm.forward(batch).logits
        expected = logits_with_own_mask(vlm, batch, layers, hidden)
        assert_equal_where_labelled(batch, masked, expected)
        assert not torch.allclose(masked[0], plain[0], atol=1e-3)
    assert torch.equal(vlm.forward(batch).logits, plain)


def test_the_encoder_of_an_encoder_decoder_is_masked_too():
    vlm = vlm_of("florence2")
    batch = vlm.prompter(check_samples())
    real = batch.inputs["attention_mask"].bool()
    image = torch.zeros_like(real)
    for row, labels in enumerate(batch.labels):
        image[row, : len(labels)] = torch.from_numpy(labels.modality == "image")
    mask = (real & ~image)[:, None, None, :].expand(-1, 1, real.shape[1], -1)
    handles = [
        layer.attention.register_forward_pre_hook(
            lambda module, arguments, keywords: (arguments, {**keywords, "attention_mask": mask}),
            with_kwargs=True,
        )
        for layer in vlm.layers
    ]
    with torch.no_grad():
        expected = vlm.forward(batch).logits
        for handle in handles:
            handle.remove()
        plain = vlm.forward(batch).logits
        with kg.mask(vlm, "image"):
            masked = vlm.forward(batch).logits
    torch.testing.assert_close(masked, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(masked, plain, atol=1e-4)


def test_the_embedded_model_with_image_positions_taken_out_of_its_mask(vlm, easy_vqa):
    batch = vlm.prompter([easy_vqa.sample(number) for number in (0, 13, 29)])
    lengths = [len(labels) for labels in batch.labels]
    assert len(set(lengths)) > 1
    mask = batch.inputs["attention_mask"].clone()
    for row, labels in enumerate(batch.labels):
        mask[row, : len(labels)][torch.from_numpy(labels.modality == "image")] = 0
    positions = torch.arange(mask.shape[1]).expand(len(mask), -1)
    inputs = {**batch.inputs, "attention_mask": mask, "position_ids": positions}
    with torch.no_grad():
        expected = vlm.model(**inputs, use_cache=False).logits
        with kg.mask(vlm, "image"):
            masked = vlm.forward(batch).logits
    for row, labels in enumerate(batch.labels):
        text = torch.from_numpy(labels.modality == "text").nonzero()[:, 0]
        torch.testing.assert_close(masked[row, text], expected[row, text], atol=2e-4, rtol=1e-4)


def test_only_text_that_comes_after_an_image_loses_it(vlm, easy_vqa):
    batch = vlm.prompter([easy_vqa.sample(0)])
    first = int((batch.labels[0].modality == "image").argmax())
    with torch.no_grad():
        plain = vlm.forward(batch).logits[0]
        with kg.mask(vlm, "image"):
            masked = vlm.forward(batch).logits[0]
    assert first > 0
    assert torch.allclose(plain[:first], masked[:first], atol=1e-4)
    assert not torch.allclose(plain[first + 1 :], masked[first + 1 :], atol=1e-1)


def test_a_capture_sees_that_nothing_is_received(vlm, easy_vqa):
    batch = vlm.prompter([easy_vqa.sample(0)])
    image = torch.from_numpy(batch.labels[0].modality == "image")
    with kg.mask(vlm, "image", layers=[3]), Capture(vlm, [], [2, 3], attention=True) as capture:
        read = capture(batch)
    assert (read["attention", 3][0][image] == 0).all()
    assert (read["attention", 2][0][image] > 0).any()


@pytest.mark.parametrize("tokens", ["image", "text"])
def test_it_holds_while_tokens_are_generated_with_a_cache(vlm, easy_vqa, tokens):
    batch = vlm.prompter([easy_vqa.sample(0)])
    wanted = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    wanted |= {"output_logits": True, "return_dict_in_generate": True}
    plain = vlm.generate(batch, **wanted)
    with kg.mask(vlm, tokens):
        cached = vlm.generate(batch, **wanted)
        anew = vlm.generate(batch, use_cache=False, **wanted)
    assert torch.equal(cached.sequences, anew.sequences)
    for one, other in zip(cached.logits, anew.logits, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)
    assert not torch.allclose(plain.logits[0], cached.logits[0], atol=1e-2)


GENERATING = ["llava", "gemma3", "qwen2_5_vl", "aya_vision", "kimi_k25", "lfm2_vl", "mllama"]


@pytest.mark.parametrize("family", GENERATING)
def test_a_cache_changes_nothing(family):
    vlm = vlm_of(family)
    batch = vlm.prompter(check_samples()[:1])
    wanted = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
    wanted |= {"output_logits": True, "return_dict_in_generate": True}
    with kg.mask(vlm, "image"):
        cached = vlm.generate(batch, **wanted)
        anew = vlm.generate(batch, use_cache=False, **wanted)
    for one, other in zip(cached.logits, anew.logits, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_beams_and_a_cache_of_fixed_size():
    vlm = vlm_of("llava")
    batch = vlm.prompter(check_samples()[:1])
    wanted = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    with kg.mask(vlm, "image"):
        expected = vlm.generate(batch, use_cache=False, **wanted)
        assert torch.equal(vlm.generate(batch, cache_implementation="static", **wanted), expected)
        beams = vlm.generate(batch, num_beams=3, **wanted)
        assert torch.equal(vlm.generate(batch, num_beams=3, use_cache=False, **wanted), beams)


def test_cross_attention_without_its_image_gives_nothing():
    vlm = vlm_of("mllama")
    batch = vlm.prompter(check_samples())
    attentions: list[Any] = [vlm.layers[index].attention for index in vlm.indices("cross")]
    handles = [
        attention.o_proj.register_forward_pre_hook(
            lambda module, arguments: (torch.zeros_like(arguments[0]),)
        )
        for attention in attentions
    ]
    with torch.no_grad():
        expected = vlm.forward(batch).logits
        for handle in handles:
            handle.remove()
        with kg.mask(vlm, "image"):
            masked = vlm.forward(batch).logits
    torch.testing.assert_close(masked, expected)


def test_a_changed_implementation_is_masked_too():
    vlm = vlm_of("llava")
    batch = vlm.prompter(check_samples())
    with torch.no_grad(), kg.mask(vlm, "image"):
        sdpa = vlm.forward(batch).logits
        vlm.model.set_attn_implementation("eager")
        eager = vlm.forward(batch).logits
    torch.testing.assert_close(sdpa, eager, atol=1e-5, rtol=1e-4)


def test_flash_attention_reads_no_such_mask_and_is_replaced():
    """An attention function that, as flash attention does, takes the padding alone as its mask."""
    vlm = vlm_of("llava")
    batch = vlm.prompter(check_samples())
    with torch.no_grad(), kg.mask(vlm, "image", layers=[1]):
        expected = vlm.forward(batch).logits
    padding = []

    def flash_like(module, query, key, value, attention_mask, **keywords):
        assert attention_mask is None or attention_mask.ndim == 2
        padding.append(attention_mask)
        keywords.pop("is_causal", None)  # causal by right-aligned order; pads come last
        return sdpa_attention_forward(module, query, key, value, None, is_causal=True, **keywords)

    AttentionInterface.register("flash_like", flash_like)
    AttentionMaskInterface.register("flash_like", flash_attention_mask)
    try:
        vlm.model.set_attn_implementation({"text_config": "flash_like"})
        with torch.no_grad(), kg.mask(vlm, "image", layers=[1]):
            masked = vlm.forward(batch).logits
    finally:
        AttentionInterface._global_mapping.pop("flash_like")
        AttentionMaskInterface._global_mapping.pop("flash_like")
    assert len(padding) == 2  # layers 0 and 2
    assert padding[0] is not None
    assert_equal_where_labelled(batch, masked, expected)


def test_what_a_mask_cannot_be_is_one_line(vlm, easy_vqa):
    with pytest.raises(UserError, match="unknown kind of token 'imag'; did you mean 'image'"):
        kg.mask(vlm, "imag")
    with pytest.raises(UserError, match="layer 99 is out of range"):
        kg.mask(vlm, "image", layers=[99])
    with pytest.raises(UserError, match="layer 0 of tiny qwen3_5 has no attention"):
        kg.mask(vlm_of("qwen3_5"), "image", layers=0)
    batch = vlm.prompter([easy_vqa.sample(0)])
    with kg.mask(vlm, "image"), pytest.raises(UserError, match="this pass has none"):
        vlm.model.generate(**batch.inputs, max_new_tokens=1)
    two = vlm.prompter([easy_vqa.sample(0), easy_vqa.sample(13)])
    with pytest.raises(UserError, match="padded on the right"):
        vlm.generate(two)


def test_its_identity_is_plain_values(vlm):
    with kg.mask(vlm, ["image", "hint"], layers=["first", 3]):
        assert vlm.interventions.identity == [
            {
                "name": "mask",
                "layers": [0, 3],
                "sites": ["attention"],
                "tokens": ["image", "hint"],
            }
        ]
    assert vlm.interventions.identity == []


@pytest.mark.slow
@pytest.mark.parametrize("family", [e.family for e in ZOO if e.slow and not e.fails])
def test_further_family_is_masked_and_comes_back(family):
    vlm = vlm_of(family)
    batch = vlm.prompter(check_samples())
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        plain = vlm.forward(batch).logits
        with kg.mask(vlm, "image"):
            masked = vlm.forward(batch).logits
        torch.manual_seed(0)
        assert torch.equal(vlm.forward(batch).logits, plain)
    assert masked.isfinite().all()
    assert not torch.equal(masked, plain)
