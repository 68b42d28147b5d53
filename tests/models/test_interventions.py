"""Interventions act in order, captures see their result, and they leave no trace."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import keygap as kg
from keygap.capture import Capture
from keygap.errors import UserError
from keygap.models.attention_mask import add_bias
from keygap.models.interventions import Intervention
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples

from .zoo import BY_FAMILY, ZOO

FAST = [entry.family for entry in ZOO if not entry.slow and not entry.fails]
SLOW = [entry.family for entry in ZOO if entry.slow and not entry.fails]


class Shift(Intervention):
    """Scales the vectors of some tokens and adds to them."""

    name = "shift"

    def __init__(self, sites, layers, factor=1.0, term=0.0, tokens=()):
        self.sites, self.layers, self.tokens = tuple(sites), list(layers), tuple(tokens)
        self.factor, self.term = factor, term

    def identity(self):
        return {**super().identity(), "factor": self.factor, "term": self.term}

    def change(self, vectors, site, layer, tokens):
        moved = vectors * self.factor + self.term
        if not self.tokens:
            return moved
        return torch.where(tokens.are(self.tokens)[..., None, None], moved, vectors)


class Bias(Intervention):
    """Adds a number to the attention logits of image keys."""

    name, sites = "bias", ("attention",)

    def __init__(self, layers, nats):
        self.layers, self.nats = list(layers), nats

    def attend(self, call, layer, queries, keys):
        bias = self.nats * keys.are(("image",)).float()[:, None, None, :]
        return add_bias(call, bias, queries.start - keys.start).proceed()


def vlm_of(family: str) -> kg.VLM:
    return wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")


def footprint(vlm) -> list:
    """All hooks of a model and all registered attention functions."""
    hooks = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
        for m in vlm.model.modules()
    ]
    return [hooks, dict(AttentionInterface._global_mapping)]


def logits(vlm, batch) -> torch.Tensor:
    """Logits from one seed: a diffusion model draws its canvas."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        return vlm.forward(batch).logits


def tapped_layers(vlm) -> list[int]:
    return [layer.index for layer in vlm.layers if layer.attention is not None]


def keys_of_attention(vlm, batch, entered) -> dict[int, torch.Tensor]:
    """The keys that the model's own attention function gets, at each layer."""
    owners = {id(layer.attention): layer.index for layer in vlm.layers}
    seen: dict[int, torch.Tensor] = {}

    def spy(module, query, key, value, *rest, **keywords):
        if id(module) in owners:
            seen[owners[id(module)]] = key.clone()
        return sdpa_attention_forward(module, query, key, value, *rest, **keywords)

    mapping = AttentionInterface._global_mapping
    before = mapping["sdpa"]
    mapping["sdpa"] = spy
    try:
        with entered:
            logits(vlm, batch)
    finally:
        mapping["sdpa"] = before
    return seen


def assert_key_is_what_attention_used(family: str) -> None:
    vlm = vlm_of(family)
    batch = vlm.prompter(check_samples())
    layers = tapped_layers(vlm)
    plain, before = logits(vlm, batch), footprint(vlm)  # transformers sets hooks of its own at once
    half = Shift(["key"], layers, factor=0.5, term=1.0, tokens=["image"])
    double = Shift(["key"], layers, factor=2.0)
    capture = Capture(vlm, ["key"], layers, stop_early=False)
    stack = vlm.interventions
    orders: dict[str, list[Any]] = {
        "after": [stack.applied(half), stack.applied(double), capture],
        "between": [stack.applied(half), capture, stack.applied(double)],
        "before": [capture, stack.applied(half, double)],
    }
    found = {}
    for name, contexts in orders.items():
        with ExitStack() as entered, torch.random.fork_rng():
            for context in contexts:
                entered.enter_context(context)
            torch.manual_seed(0)
            found[name] = capture(batch)
    if vlm.model.config.get_text_config()._attn_implementation == "sdpa":
        true = keys_of_attention(vlm, batch, stack.applied(half, double))
        for layer in layers:
            expected = true[layer].transpose(1, 2)
            assert all(torch.equal(read["key", layer], expected) for read in found.values())
    with Capture(vlm, ["key"], layers[:1]) as alone:
        own = alone(batch)["key", layers[0]]
    image = torch.zeros(own.shape[:2], dtype=torch.bool)
    for row, labels in enumerate(batch.labels):
        image[row, : len(labels)] = torch.from_numpy(labels.modality == "image")
    by_hand = 2 * torch.where(image[..., None, None], own * 0.5 + 1.0, own)
    if vlm.layers[layers[0]].attends == "self":
        torch.testing.assert_close(found["before"]["key", layers[0]], by_hand)
    for layer in layers:
        assert torch.equal(found["after"]["key", layer], found["before"]["key", layer])
        assert torch.equal(found["between"]["key", layer], found["before"]["key", layer])
    assert footprint(vlm) == before
    assert torch.equal(logits(vlm, batch), plain)


@pytest.mark.parametrize("family", FAST)
def test_a_captured_key_is_the_changed_key_at_every_layer(family):
    assert_key_is_what_attention_used(family)


@pytest.mark.slow
@pytest.mark.parametrize("family", SLOW)
def test_a_captured_key_of_a_further_family_is_the_changed_key(family):
    assert_key_is_what_attention_used(family)


@pytest.mark.parametrize("site", ["q_proj", "k_proj", "v_proj", "query", "key", "value", "hidden"])
@pytest.mark.parametrize("family", ["llava", "florence2", "mllama"])
def test_every_site_is_captured_as_it_was_left(family, site):
    vlm = vlm_of(family)
    batch = vlm.prompter(check_samples())
    layers = tapped_layers(vlm)
    plain, before = logits(vlm, batch), footprint(vlm)  # transformers sets hooks of its own at once
    with Capture(vlm, [site], layers[:1]) as capture:
        own = capture(batch)[site, layers[0]]
        with vlm.interventions.applied(Shift([site], layers, 2.0), Shift([site], layers, 1.0, 3.0)):
            inside = capture(batch)[site, layers[0]]
            assert not torch.equal(logits(vlm, batch), plain)
            with Capture(vlm, [site], layers[:1]) as later:
                assert torch.equal(later(batch)[site, layers[0]], inside)
        assert torch.equal(capture(batch)[site, layers[0]], own)
    torch.testing.assert_close(inside, own * 2 + 3)
    assert footprint(vlm) == before
    assert torch.equal(logits(vlm, batch), plain)


@pytest.mark.parametrize("name", ["q_proj", "k_proj", "v_proj"])
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "mllama", "florence2"])
def test_a_projection_times_two_is_the_model_with_twice_its_weights(family, name):
    vlm = vlm_of(family)
    batch = vlm.prompter(check_samples())
    layers = tapped_layers(vlm)
    with vlm.interventions.applied(Shift([name], layers, 2.0)):
        changed = logits(vlm, batch)
    with torch.no_grad():
        for index in layers:
            for parameter in vlm.layers[index].projection(name).module.parameters():
                parameter.mul_(2)
    torch.testing.assert_close(changed, logits(vlm, batch), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gemma3n", "glm5_next", "qwen4_exp"])
def test_several_residual_streams_come_back_as_they_were(family):
    vlm = vlm_of(family)
    batch = vlm.prompter(check_samples())
    plain = logits(vlm, batch)
    with vlm.interventions.applied(Shift(["hidden"], [0, 1, 2])):
        assert torch.equal(logits(vlm, batch), plain)
    with Capture(vlm, ["hidden"], [1]) as capture:
        own = capture(batch)["hidden", 1]
        with vlm.interventions.applied(Shift(["hidden"], [1], 2.0, tokens=["image"])):
            changed = capture(batch)["hidden", 1]
    factor = 1 + torch.from_numpy(batch.labels[0].modality == "image").float()
    size = len(batch.labels[0])
    torch.testing.assert_close(changed[0, :size], own[0, :size] * factor[:, None, None])


def test_hidden_times_two_enters_the_layer():
    vlm = vlm_of("llava")
    batch = vlm.prompter(check_samples())
    handle = vlm.layers[1].block.register_forward_pre_hook(
        lambda module, arguments: (arguments[0] * 2, *arguments[1:])
    )
    expected = logits(vlm, batch)
    handle.remove()
    with vlm.interventions.applied(Shift(["hidden"], [1], 2.0)):
        assert torch.equal(logits(vlm, batch), expected)


@pytest.mark.parametrize("site", ["k_proj", "key", "value", "hidden"])
def test_a_cache_changes_nothing(site):
    vlm = vlm_of("llava")
    batch = vlm.prompter(check_samples()[:1])
    wanted = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    wanted |= {"output_logits": True, "return_dict_in_generate": True}
    with vlm.interventions.applied(Shift([site], [0, 1, 2], 2.0, 0.5, tokens=["image", "answer"])):
        cached = vlm.generate(batch, **wanted)
        anew = vlm.generate(batch, use_cache=False, **wanted)
    plain = vlm.generate(batch, **wanted)
    for one, other in zip(cached.logits, anew.logits, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(cached.logits[0], plain.logits[0], atol=1e-3)


@pytest.mark.parametrize("site", ["k_proj", "key", "hidden"])
def test_a_padded_batch_gives_what_one_by_one_gives(site):
    vlm = vlm_of("llava")
    samples = check_samples()
    batch = vlm.prompter(samples)
    with vlm.interventions.applied(
        Shift([site], [0, 1, 2], 2.0, 0.5, tokens=["image", "question"])
    ):
        together = logits(vlm, batch)
        for row, sample in enumerate(samples):
            alone = logits(vlm, vlm.prompter([sample]))[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_bias_on_logits_multiplies_what_images_receive(implementation):
    vlm = vlm_of("llava")
    vlm.model.set_attn_implementation(implementation)
    batch = vlm.prompter(check_samples()[:1])
    image = torch.from_numpy(batch.labels[0].modality == "image")
    with Capture(vlm, ["query", "key"], [0]) as capture:
        read = capture(batch)
    query = read["query", 0][0, -1]
    key = read["key", 0][0].repeat_interleave(2, dim=1)
    products = torch.einsum("hd,shd->hs", query, key) * vlm.layers[0].head_dim ** -0.5
    expected = (products + 2 * image.float()).softmax(-1)
    with vlm.interventions.applied(Bias([0], 2.0)):
        with Capture(vlm, ["value"], [0]) as capture:
            value = capture(batch)["value", 0][0].repeat_interleave(2, dim=1)
        given = []
        attention: Any = vlm.layers[0].attention
        handle = attention.o_proj.register_forward_pre_hook(
            lambda module, arguments: given.append(arguments[0])
        )
        logits(vlm, batch)
        handle.remove()
    by_hand = torch.einsum("hs,shd->hd", expected, value).flatten()
    torch.testing.assert_close(given[0][0, -1], by_hand, atol=1e-5, rtol=1e-4)


def test_an_exception_leaves_nothing():
    vlm = vlm_of("llava")
    batch = vlm.prompter(check_samples())
    plain, before = logits(vlm, batch), footprint(vlm)  # transformers sets hooks of its own at once

    class Broken(Shift):
        def change(self, vectors, site, layer, tokens):
            raise RuntimeError("in the middle")

    stack = vlm.interventions
    shift = Shift(["key"], [0, 1, 2], 2.0)
    with stack.applied(shift):
        inside, changed = footprint(vlm), logits(vlm, batch)
        with (
            pytest.raises(RuntimeError, match="in the middle"),
            stack.applied(Broken(["hidden", "k_proj"], [1])),
            Capture(vlm, ["k_proj", "key"], [0, 2]) as capture,
        ):
            capture(batch)
        assert [len(each) for each in footprint(vlm)] == [len(each) for each in inside]
        assert footprint(vlm)[0] == inside[0]
        assert torch.equal(logits(vlm, batch), changed)
    assert footprint(vlm) == before
    assert torch.equal(logits(vlm, batch), plain)


def test_blocks_may_be_left_in_any_order():
    vlm = vlm_of("llava")
    batch = vlm.prompter(check_samples())
    plain, before = logits(vlm, batch), footprint(vlm)  # transformers sets hooks of its own at once
    stack = vlm.interventions
    one, two = Shift(["key"], [0], 2.0), Shift(["key"], [0], 1.0, 3.0)
    first, second, third = stack.applied(one), stack.applied(two), stack.applied(one)
    for context in (first, second, third):
        context.__enter__()
    assert [each["term"] for each in stack.identity] == [0.0, 3.0, 0.0]
    first.__exit__(None, None, None)
    assert len(stack.identity) == 2
    second.__exit__(None, None, None)
    assert [each["term"] for each in stack.identity] == [0.0]
    third.__exit__(None, None, None)
    assert stack.identity == []
    assert footprint(vlm) == before
    assert torch.equal(logits(vlm, batch), plain)


def test_two_models_of_one_family_are_not_mixed_up():
    one, other = vlm_of("llava"), vlm_of("llava")
    batch = one.prompter(check_samples())
    plain = logits(one, batch)
    with one.interventions.applied(Shift(["key"], [0, 1, 2], 2.0)):
        assert torch.equal(logits(other, batch), plain)
        assert not torch.equal(logits(one, batch), plain)
        assert other.interventions.identity == []


def test_the_stack_can_be_suspended():
    vlm = vlm_of("llava")
    batch = vlm.prompter(check_samples())
    plain = logits(vlm, batch)
    with vlm.interventions.applied(Shift(["hidden"], [0], 2.0)):
        with vlm.interventions.suspended():
            assert torch.equal(logits(vlm, batch), plain)
        assert not torch.equal(logits(vlm, batch), plain)


def test_what_cannot_be_changed_is_one_line():
    vlm = vlm_of("llava")
    before = footprint(vlm)
    applied = vlm.interventions.applied
    with pytest.raises(UserError, match="unknown site 'keys'; did you mean 'key'"):
        applied(Shift(["keys"], [0])).__enter__()
    latent = vlm_of("kimi_k25")
    with pytest.raises(UserError, match=r"latent \(MLA\); read the site key"):
        latent.interventions.applied(Shift(["key", "k_proj"], [0])).__enter__()
    without = vlm_of("qwen3_5")
    with pytest.raises(UserError, match="layer 0 has no attention"):
        without.interventions.applied(Shift(["key"], [0])).__enter__()
    assert footprint(vlm) == before
    assert latent.interventions.identity == without.interventions.identity == []
