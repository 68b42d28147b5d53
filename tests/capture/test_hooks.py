"""Captured vectors are what the model computed, and nothing of the hooks stays."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from keygap.capture import Capture
from keygap.capture.attention import QUERIES
from keygap.errors import UserError

NOISE = 2e-4  # of values around 10, float32, two orders of summation


@pytest.fixture(scope="module")
def samples(easy_vqa):
    return [easy_vqa.sample(number) for number in (0, 13, 29, 500)]


def hooks_of(model: torch.nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


def test_k_proj_is_the_projection_of_the_normed_input(vlm, samples):
    batch = vlm.prompter(samples)
    with Capture(vlm, ["hidden", "k_proj"], [0, 15, 29]) as capture:
        read = capture(dict(batch.inputs))
    for index in (0, 15, 29):
        layer = vlm.layers[index]
        hidden = read["hidden", index].squeeze(-2).double()
        norm = layer.block.input_layernorm
        variance = hidden.pow(2).mean(-1, keepdim=True)
        normed = hidden * torch.rsqrt(variance + norm.variance_epsilon) * norm.weight.double()
        weight = layer.attention.k_proj.weight.double()
        by_hand = (normed @ weight.T).unflatten(-1, (layer.key_heads, layer.head_dim))
        assert read["k_proj", index].shape == by_hand.shape
        torch.testing.assert_close(read["k_proj", index].double(), by_hand, atol=NOISE, rtol=1e-4)


def test_hidden_is_what_transformers_says_it_is(vlm, samples):
    batch = vlm.prompter(samples)
    with torch.inference_mode():
        states = vlm.model(**batch.inputs, output_hidden_states=True).hidden_states
    with Capture(vlm, ["hidden"], [0, 15, 29]) as capture:
        read = capture(dict(batch.inputs))
    for index in (0, 15, 29):
        torch.testing.assert_close(read["hidden", index].squeeze(-2), states[index])


def test_a_padded_batch_gives_what_one_by_one_gives(vlm, samples):
    sites, layers = ["k_proj", "key", "value", "query"], [0, 15, 29]
    batch = vlm.prompter(samples)
    lengths = [len(labels) for labels in batch.labels]
    assert len(set(lengths)) > 1, "the samples must differ in length to say anything of padding"
    with Capture(vlm, sites, layers, attention=True) as capture:
        together = capture(dict(batch.inputs))
        for row, sample in enumerate(samples):
            alone = capture(dict(vlm.prompter([sample]).inputs))
            for key, tensor in alone.items():
                torch.testing.assert_close(
                    together[key][row, : lengths[row]], tensor[0], atol=5e-4, rtol=1e-3
                )


def test_key_is_k_proj_turned_by_the_rotary_embedding(vlm, samples):
    """RoPE turns pairs of dimensions: lengths stay, and position 0 stays as it is."""
    batch = vlm.prompter(samples[:1])
    with Capture(vlm, ["k_proj", "key"], [15]) as capture:
        read = capture(dict(batch.inputs))
    before, after = read["k_proj", 15], read["key", 15]
    torch.testing.assert_close(before.norm(dim=-1), after.norm(dim=-1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 5], after[:, 5], atol=1e-2)


def test_attention_received_is_the_models_own(vlm, samples):
    batch = vlm.prompter(samples[:1])
    with Capture(vlm, [], [15], attention=True) as capture:
        received = capture(dict(batch.inputs))["attention", 15][0]
    vlm.decoder.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            weights = vlm.model(**batch.inputs, output_attentions=True).attentions[15][0]
    finally:
        vlm.decoder.set_attn_implementation("sdpa")
    length = weights.shape[-1]
    seen = torch.arange(length - QUERIES, length) + 1
    expected = (weights[:, -QUERIES:] * seen[None, :, None]).mean((0, 1))
    torch.testing.assert_close(received, expected, atol=1e-4, rtol=1e-3)


def test_capturing_changes_nothing_and_leaves_nothing(vlm, samples):
    batch = vlm.prompter(samples)
    before, implementation = hooks_of(vlm.model), vlm.decoder.config._attn_implementation
    with torch.inference_mode():
        expected = vlm.model(**batch.inputs).logits
    with Capture(vlm, ["k_proj", "key"], [0, 29], attention=True) as capture:
        assert hooks_of(vlm.model) > before
        capture(dict(batch.inputs))
    assert hooks_of(vlm.model) == before
    assert vlm.decoder.config._attn_implementation == implementation
    with torch.inference_mode():
        assert torch.equal(vlm.model(**batch.inputs).logits, expected)


def test_hooks_are_gone_after_an_exception_in_the_middle(vlm, samples):
    batch = vlm.prompter(samples)
    before, implementation = hooks_of(vlm.model), vlm.decoder.config._attn_implementation
    broken = vlm.layers[15].block.register_forward_pre_hook(
        lambda module, arguments: (_ for _ in ()).throw(RuntimeError("in the middle"))
    )
    try:
        with (
            pytest.raises(RuntimeError, match="in the middle"),
            Capture(vlm, ["k_proj", "key"], [0, 29], attention=True) as capture,
        ):
            capture(dict(batch.inputs))
    finally:
        broken.remove()
    assert hooks_of(vlm.model) == before
    assert vlm.decoder.config._attn_implementation == implementation


def test_nothing_above_the_last_layer_wanted_is_computed(vlm, samples):
    batch = vlm.prompter(samples[:1])
    called: list[str] = []
    watched = [
        module.register_forward_pre_hook(lambda _, __, name=name: called.append(name))
        for name, module in (
            ("layer 15", vlm.layers[15].block),
            ("layer 16", vlm.layers[16].block),
            ("lm_head", vlm.model.lm_head),
        )
    ]
    try:
        with Capture(vlm, ["k_proj"], [0, 15]) as capture:
            capture(dict(batch.inputs))
    finally:
        for handle in watched:
            handle.remove()
    assert called == ["layer 15"]


def test_no_captured_tensor_survives(vlm, samples):
    batch = vlm.prompter(samples[:1])
    with Capture(vlm, ["k_proj", "key"], [0, 15], attention=True) as capture:
        read = capture(dict(batch.inputs))
        references = [weakref.ref(tensor) for tensor in read.values()]
        del read
        gc.collect()
        assert not any(reference() is not None for reference in references)


def test_an_unknown_site_names_the_nearest(vlm):
    with pytest.raises(UserError, match=r"unknown site 'k_porj'; did you mean 'k_proj'"):
        Capture(vlm, ["k_porj"], [0])


def test_other_passes_are_neither_read_nor_stopped(vlm, samples):
    batch = vlm.prompter(samples[:1])
    with Capture(vlm, ["k_proj", "key", "hidden"], [0], attention=True) as capture:
        with torch.no_grad():
            assert vlm.forward(batch).logits.shape[-1] == vlm.model.config.text_config.vocab_size
        with Capture(vlm, ["k_proj"], [15]) as other:
            assert set(other(batch)) == {("k_proj", 15)}
        assert not capture._read


def test_a_whole_pass_gives_its_output_too(vlm, samples):
    batch = vlm.prompter(samples[:1])
    with torch.no_grad():
        expected = vlm.forward(batch).logits
    with Capture(vlm, ["k_proj"], [0], stop_early=False) as capture:
        capture(batch)
        assert torch.equal(capture.output.logits, expected)
    assert capture.output is None
    with Capture(vlm, ["k_proj"], [0]) as capture:
        capture(batch)
        assert capture.output is None
