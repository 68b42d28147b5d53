"""Steering moves the chosen tokens, leaves no trace, and separates keys from attention."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import keygap as kg
from keygap.align.affine import Affine
from keygap.align.map import Map
from keygap.align.mass import image_log_odds
from keygap.align.steering import Steering
from keygap.capture import Capture
from keygap.errors import UserError
from keygap.models.attention_tap import AttentionCall
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples
from models.zoo import BY_FAMILY, ZOO

FAST = [entry.family for entry in ZOO if not entry.slow and not entry.fails]
DEPTH = 3


def vlm_of(family: str = "llava") -> kg.VLM:
    return wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")


def shift_of(vlm: kg.VLM, site: str, size: float = 1.0, seed: int = 0) -> Map:
    """A map that adds a fixed random vector, at every layer that has the site."""
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for layer in (each for each in vlm.layers if each.attention is not None):
        with Capture(vlm, [site], [layer.index]) as capture:
            heads, width = capture(vlm.prompter(check_samples()[:1]))[site, layer.index].shape[2:]
        layers[layer.index] = Affine(size * torch.randn(heads, width, generator=generator))
    return Map("mean-shift", site, layers, {"model": vlm.name})


def logits(vlm: kg.VLM, batch: Any) -> Tensor:
    with torch.no_grad():
        return vlm.forward(batch).logits


Seen = dict[int, tuple[Tensor, Tensor]]  # weights and keys by layer


@contextmanager
def spied(vlm: kg.VLM) -> Iterator[Seen]:
    """The attention weights and keys that each layer uses, from the arguments of its function."""
    owners = {id(layer.attention): layer.index for layer in vlm.layers}
    seen: Seen = {}

    def spy(module, query, key, value, attention_mask=None, *rest, **keywords):
        mask = attention_mask
        if id(module) in owners:
            keys = key.double().repeat_interleave(query.shape[1] // key.shape[1], 1)
            scale = keywords.get("scaling") or query.shape[-1] ** -0.5
            products = query.double() @ keys.transpose(-1, -2) * scale
            count, length = products.shape[-2:]
            if mask is None:
                order = torch.ones(count, length, dtype=torch.bool).tril(length - count)
                products = products.masked_fill(~order, -torch.inf)
            elif mask.dtype == torch.bool:
                products = products.masked_fill(~mask, -torch.inf)
            else:
                products = products + mask.double()
            seen[owners[id(module)]] = products.softmax(-1), key.clone()
        return sdpa_attention_forward(module, query, key, value, mask, *rest, **keywords)

    mapping = AttentionInterface._global_mapping
    before, mapping["sdpa"] = mapping["sdpa"], spy
    try:
        yield seen
    finally:
        mapping["sdpa"] = before


def used(vlm: kg.VLM, batch: Any, steered: Any = None) -> Seen:
    with spied(vlm) as seen, steered or nullcontext():
        logits(vlm, batch)
    return seen


def image_mask(batch: Any) -> Tensor:
    mask = torch.zeros(batch.inputs["input_ids"].shape, dtype=torch.bool)
    for row, labels in zip(mask, batch.labels, strict=True):
        row[: len(labels)] = torch.from_numpy(labels.modality == "image")
    return mask


def real_queries(batch: Any) -> Tensor:
    mask = torch.zeros(batch.inputs["input_ids"].shape, dtype=torch.bool)
    for row, labels in zip(mask, batch.labels, strict=True):
        row[: len(labels)] = True
    return mask


@pytest.mark.parametrize("site", ["k_proj", "key", "v_proj", "hidden", "query"])
def test_strength_0_gives_the_same_logits_bit_for_bit(site):
    vlm = vlm_of()
    batch = vlm.prompter(check_samples())
    plain = logits(vlm, batch)
    with kg.align.steer(vlm, shift_of(vlm, site), strength=0.0):
        assert torch.equal(logits(vlm, batch), plain)
    with kg.align.steer(vlm, shift_of(vlm, site), strength=1.0):
        assert not torch.allclose(logits(vlm, batch), plain, atol=1e-3)
    assert torch.equal(logits(vlm, batch), plain)


@pytest.mark.parametrize("mass", ["held", "only"])
@pytest.mark.parametrize("site", ["k_proj", "key"])
def test_strength_0_is_exact_with_either_mass(site, mass):
    vlm = vlm_of()
    batch = vlm.prompter(check_samples())
    plain = logits(vlm, batch)
    with kg.align.steer(vlm, shift_of(vlm, site), strength=0.0, mass=mass):
        assert torch.equal(logits(vlm, batch), plain)


def test_chosen_tokens_move_by_strength_times_the_shift_and_no_others():
    vlm = vlm_of()
    batch = vlm.prompter(check_samples())
    shift = shift_of(vlm, "k_proj")
    image = image_mask(batch)
    with Capture(vlm, ["k_proj"], [1]) as capture:
        before = capture(batch)["k_proj", 1]
        with kg.align.steer(vlm, shift, layers=[1], strength=-0.5):
            after = capture(batch)["k_proj", 1]
    torch.testing.assert_close(after[image], before[image] - 0.5 * shift.layers[1].shift)
    assert torch.equal(after[~image], before[~image])


def test_tokens_of_videos_move_as_those_of_images_do():
    vlm = vlm_of()
    batch = vlm.prompter(check_samples()[:1])
    (labels,) = batch.labels
    shown = np.where(labels.modality == "image", "video", labels.modality)
    video = replace(batch, labels=(replace(labels, modality=shown),))
    with kg.align.steer(vlm, shift_of(vlm, "k_proj")):
        assert torch.equal(logits(vlm, video), logits(vlm, batch))


@pytest.mark.parametrize("family", FAST)
@pytest.mark.parametrize("site", ["k_proj", "key"])
def test_mass_is_held_with_moved_keys_and_moved_with_held_keys(family, site):
    vlm = vlm_of(family)
    batch = vlm.prompter(check_samples())
    index = next(layer.index for layer in vlm.layers if layer.calls_function)
    try:
        shift = shift_of(vlm, site)
        kg.align.steering_of(vlm, shift, [index], mass="held")
    except UserError as reason:
        pytest.skip(f"{family} has no {site} to steer: {reason}")
    if vlm.fusion != "sequence":
        pytest.skip("the keys are not the positions of the prompt")
    image, real = image_mask(batch), real_queries(batch)
    plain = used(vlm, batch)
    found = {
        mass: used(vlm, batch, kg.align.steer(vlm, shift, layers=[index], mass=mass))
        for mass in ("free", "held", "only")
    }

    def share(weights: Tensor) -> Tensor:
        return (weights * image[:, None, None, :]).sum(-1).transpose(1, 2)[real]

    weights = {name: seen[index][0] for name, seen in {**found, "plain": plain}.items()}
    # a bias on logits is a further dimension of queries and keys
    width = plain[index][1].shape[-1]
    keys = {name: seen[index][1][..., :width] for name, seen in {**found, "plain": plain}.items()}
    for each in weights.values():
        torch.testing.assert_close(
            each.sum(-1).transpose(1, 2)[real], torch.ones_like(share(each)), atol=1e-6, rtol=0
        )
    assert (share(weights["free"]) - share(weights["plain"])).abs().max() > 1e-3
    torch.testing.assert_close(share(weights["held"]), share(weights["plain"]), atol=1e-5, rtol=0)
    torch.testing.assert_close(share(weights["only"]), share(weights["free"]), atol=1e-5, rtol=0)
    torch.testing.assert_close(keys["held"], keys["free"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(keys["only"], keys["plain"], atol=1e-5, rtol=1e-5)
    # within the image, attention is that of the keys which are used
    last = real.sum(1) - 1
    rows = torch.arange(len(last))
    for mass, like in (("held", "free"), ("only", "plain")):
        own, other = (
            torch.where(image[:, None], weights[name][rows, :, last], 0) for name in (mass, like)
        )
        torch.testing.assert_close(
            own * other.sum(-1, True), other * own.sum(-1, True), atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("mass", ["held", "only"])
def test_with_moved_text_the_image_keeps_its_total_too(mass):
    vlm = vlm_of()
    batch = vlm.prompter(check_samples())
    shift = shift_of(vlm, "k_proj")
    image, real = image_mask(batch), real_queries(batch)

    def share(seen: Seen) -> Tensor:
        return (seen[1][0] * image[:, None, None, :]).sum(-1).transpose(1, 2)[real]

    def steered(how: Any) -> Any:
        return kg.align.steer(vlm, shift, layers=[1], tokens=["question", "image"], mass=how)

    like = used(vlm, batch, steered("free") if mass == "only" else None)
    other = used(vlm, batch, None if mass == "only" else steered("free"))
    mine = used(vlm, batch, steered(mass))
    torch.testing.assert_close(share(mine), share(like), atol=1e-5, rtol=0)
    assert (share(mine) - share(other)).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["llava", "qwen3_vl"])
@pytest.mark.parametrize("mass", ["free", "held", "only"])
@pytest.mark.parametrize("tokens", ["image", "text"])
def test_a_cache_changes_nothing(family, mass, tokens):
    vlm = vlm_of(family)
    batch = vlm.prompter(check_samples()[:1])
    wanted = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    wanted |= {"output_logits": True, "return_dict_in_generate": True}
    with kg.align.steer(vlm, shift_of(vlm, "k_proj"), strength=0.7, tokens=tokens, mass=mass):
        cached = vlm.generate(batch, **wanted)
        anew = vlm.generate(batch, use_cache=False, **wanted)
    plain = vlm.generate(batch, **wanted)
    for one, other in zip(cached.logits, anew.logits, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(cached.logits[0], plain.logits[0], atol=1e-3)


@pytest.mark.parametrize("mass", ["free", "held", "only"])
@pytest.mark.parametrize("site", ["k_proj", "key"])
def test_a_padded_batch_gives_what_one_by_one_gives(site, mass):
    vlm = vlm_of()
    samples = check_samples()
    batch = vlm.prompter(samples)
    with kg.align.steer(vlm, shift_of(vlm, site), mass=mass):
        together = logits(vlm, batch)
        for row, sample in enumerate(samples):
            alone = logits(vlm, vlm.prompter([sample]))[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("mass", ["free", "held", "only"])
def test_leaving_restores_the_model_nested_and_after_an_exception(mass):
    vlm = vlm_of()
    batch = vlm.prompter(check_samples())
    plain = logits(vlm, batch)
    children = [list(layer.attention.children()) for layer in vlm.layers]
    outer, inner = shift_of(vlm, "hidden"), shift_of(vlm, "k_proj", seed=1)
    with kg.align.steer(vlm, outer):
        before = logits(vlm, batch)
        with kg.align.steer(vlm, inner, mass=mass):
            assert not torch.allclose(logits(vlm, batch), before, atol=1e-3)
        assert torch.equal(logits(vlm, batch), before)
        with pytest.raises(UserError), kg.align.steer(vlm, inner, mass=mass):
            raise UserError("in the middle")
        assert torch.equal(logits(vlm, batch), before)
    assert torch.equal(logits(vlm, batch), plain)
    assert [list(layer.attention.children()) for layer in vlm.layers] == children


def test_two_maps_act_one_after_the_other():
    vlm = vlm_of()
    batch = vlm.prompter(check_samples())
    one, two = shift_of(vlm, "k_proj"), shift_of(vlm, "k_proj", seed=1)
    both = Map(
        "both",
        "k_proj",
        {i: Affine(one.layers[i].shift + 0.5 * two.layers[i].shift) for i in range(DEPTH)},
        {"model": vlm.name},
    )
    with kg.align.steer(vlm, both):
        expected = logits(vlm, batch)
    with kg.align.steer(vlm, one), kg.align.steer(vlm, two, strength=0.5):
        torch.testing.assert_close(logits(vlm, batch), expected, atol=1e-5, rtol=1e-4)
    with kg.align.steer(vlm, both, mass="held"):
        expected = logits(vlm, batch)
    with kg.align.steer(vlm, one, mass="held"), pytest.raises(UserError, match="must come last"):
        kg.align.steering_of(vlm, two)


def test_the_identity_tells_what_was_done():
    vlm = vlm_of()
    shift = shift_of(vlm, "k_proj")
    with kg.align.steer(vlm, shift, strength=0.5, layers=[0, 2], mass="held"):
        (found,) = vlm.interventions.identity
    told = {name: found[name] for name in ("map", "layers", "strength", "tokens", "mass")}
    assert told == {
        "map": "mean-shift", "layers": [0, 2], "strength": 0.5, "mass": "held",
        "tokens": ["image", "video"],
    }  # fmt: skip
    assert found["hash"] != shift_of(vlm, "k_proj", seed=1).hash
    assert vlm.interventions.identity == []


def test_what_cannot_be_steered_is_one_line():
    vlm = vlm_of()
    shift = shift_of(vlm, "k_proj")
    first = Map("mean-shift", "k_proj", {0: shift.layers[0]}, {})
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"layers": [1], "fitted": first}, "has no layer 1: it was fitted at layers 0"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"mass": "kept"}, "mass"),
        ({"tokens": "picture"}, "kind of token"),
        ({"fitted": shift_of(vlm, "v_proj"), "mass": "held"}, "needs a map of keys"),
    ]
    for given, what in wrong:
        with pytest.raises(UserError, match=what) as caught:
            kg.align.steering_of(vlm, **{"fitted": shift, **given})
        assert "\n" not in str(caught.value)


def test_a_steering_that_was_used_is_sent_without_its_copies_on_a_device():
    shift = shift_of(vlm_of(), "k_proj")
    used = Steering(shift, [0], 1.0, ["image"])
    used._ready[0, torch.device("cpu")] = shift.layers[0]
    sent = pickle.loads(pickle.dumps(used))  # noqa: S301
    assert sent._ready == {}
    assert sent.identity() == used.identity()


@pytest.mark.parametrize("size", [30.0, 100.0])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_mass_is_what_was_asked_for_where_a_share_rounds_to_0(kind, size):
    vlm = vlm_of()
    batch = vlm.prompter(check_samples())
    shift = shift_of(vlm, "key", size)
    vlm.model.to(kind)
    image, real = image_mask(batch), real_queries(batch)

    def share(steered: Any = None) -> Tensor:
        weights = used(vlm, batch, steered)[1][0]
        return (weights * image[:, None, None, :]).sum(-1).transpose(1, 2)[real]

    plain, *found = (
        share(),
        *(
            share(kg.align.steer(vlm, shift, layers=[1], mass=mass))
            for mass in ("free", "held", "only")
        ),
    )
    free, held, only = found
    assert (free - plain).abs().max() > 0.5
    torch.testing.assert_close(held, plain, atol=5e-4, rtol=0)
    torch.testing.assert_close(only, free, atol=5e-4, rtol=0)


def test_a_steering_with_mass_that_was_used_is_sent_without_what_a_pass_left():
    vlm = vlm_of()
    used = kg.align.steering_of(vlm, shift_of(vlm, "k_proj"), mass="held")
    before = pickle.dumps(used)
    with vlm.interventions.applied(used):
        expected = logits(vlm, vlm.prompter(check_samples()))
    assert pickle.dumps(used) == before
    sent = pickle.loads(before)  # noqa: S301
    with vlm.interventions.applied(sent):
        assert torch.equal(logits(vlm, vlm.prompter(check_samples())), expected)


@pytest.mark.parametrize("seen", ["nothing", "text", "image", "both"])
def test_log_odds_of_one_query_are_those_of_its_logits(seen):
    image = torch.tensor([[False, True, True, False, False]])
    sees = {"nothing": [], "text": [0, 3], "image": [1, 2], "both": [0, 1, 3]}[seen]
    mask = torch.zeros(1, 1, 1, 5, dtype=torch.bool)
    mask[..., sees] = True
    key = 100 * torch.randn(1, 1, 5, 8, generator=torch.Generator().manual_seed(0))
    call = AttentionCall(nn.Module(), torch.ones(1, 1, 1, 8), key, key, (mask,), {}, print)
    products = (key.double().sum(-1) * 8**-0.5)[0, 0]
    sides = [products[[place for place in sees if image[0, place] == side]] for side in (1, 0)]
    expected = sides[0].logsumexp(0) - sides[1].logsumexp(0)
    found = image_log_odds(call, image)[0, 0, 0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4, equal_nan=True)
