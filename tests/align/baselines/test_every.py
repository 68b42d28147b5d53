"""What holds for every baseline: batches, caches, half precision, and no trace left behind."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AttentionInterface

import keygap as kg
from keygap.align.baselines import BASELINES, build
from keygap.bias.scoring import score
from keygap.models.load import wrap
from keygap.models.prompting.answers import with_answers
from keygap.selfcheck.samples import check_samples
from models.zoo import BY_FAMILY

from .by_hand import logits, tiny

LAYERS = [0, 1, 2]
ANSWERS = ("A", "B", "C")
SINKS = {"layers": LAYERS, "share": 1.05, "image_at_least": 0, "sinks_at_most": 1}
IN_PASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "bias": ("attention-bias", {"layers": LAYERS, "nats": 2}),
    "bias of all": ("attention-bias", {"layers": LAYERS, "nats": 2, "queries": "all"}),
    "pai": ("pai", {"layers": LAYERS, "alpha": 1, "gamma": 1}),
    "pai of text": ("pai", {"layers": LAYERS, "alpha": 1, "gamma": 1, "queries": "text"}),
    "sinks": ("sink-redistribution", SINKS),
    "patch": ("back-patching", {"source": 2, "target": 0}),
    "even": ("replaced-attention", {"layers": LAYERS}),
    "random": ("replaced-attention", {"layers": LAYERS, "weights": "random", "queries": "all"}),
}
DECIDING: dict[str, tuple[str, dict[str, Any]]] = {
    "contrast": ("pai", {"layers": LAYERS, "alpha": 1, "gamma": 1.5, "plausibility": 0}),
    "vcd": ("vcd", {"plausibility": 0}),
}
EVERY = IN_PASSES | DECIDING


def made(case):
    name, settings = EVERY[case]
    return build(name, **settings)


def footprint(vlm: kg.VLM):
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in vlm.model.modules()]
    return hooks, dict(AttentionInterface._global_mapping)


def test_every_baseline_is_tested_here():
    assert {name for name, _ in EVERY.values()} == set(BASELINES)


@pytest.mark.parametrize("case", IN_PASSES)
@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_a_padded_batch_gives_what_one_by_one_gives(family, case):
    vlm = tiny(family)
    samples = check_samples()
    batch = vlm.prompter(samples)
    plain = logits(vlm, batch)
    changes = []
    with vlm.interventions.applied(made(case)):
        together = logits(vlm, batch)
        for row, sample in enumerate(samples):
            alone = logits(vlm, vlm.prompter([sample]))[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-4, rtol=1e-3)
            changes.append(float((plain[row, : len(alone)] - alone).abs().max()))
    assert max(changes) > 1e-3


@pytest.mark.parametrize("case", DECIDING)
def test_a_decision_in_a_batch_is_the_one_alone(case):
    vlm = tiny("llava")
    samples = check_samples()
    plain, _ = score(vlm, samples, [ANSWERS] * 2)
    with vlm.interventions.applied(made(case)):
        together, _ = score(vlm, samples, [ANSWERS] * 2)
        alone = [score(vlm, [sample], [ANSWERS])[0][0] for sample in samples]
    for one, other, before in zip(together, alone, plain, strict=True):
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)
        assert one.log_probability != pytest.approx(before.log_probability, abs=1e-3)


@pytest.mark.parametrize("case", EVERY)
def test_leaving_the_block_restores_every_bit(case):
    vlm = tiny("llava")
    samples = check_samples()
    batch = vlm.prompter(samples)
    plain, before = logits(vlm, batch), footprint(vlm)
    with vlm.interventions.applied(made(case)):
        logits(vlm, batch)
        score(vlm, samples, [ANSWERS] * 2)
        with vlm.interventions.suspended():
            assert torch.equal(logits(vlm, batch), plain)
    assert footprint(vlm) == before
    assert torch.equal(logits(vlm, batch), plain)


@pytest.mark.parametrize("case", IN_PASSES)
@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_a_cache_and_a_given_answer_change_nothing(family, case):
    vlm = tiny(family)
    batch = vlm.prompter(check_samples()[:1])
    wanted = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    wanted |= {"output_logits": True, "return_dict_in_generate": True}
    with vlm.interventions.applied(made(case)):
        cached = vlm.generate(batch, **wanted)
        anew = vlm.generate(batch, use_cache=False, **wanted)
        said = tuple(cached.sequences[0, -4:].tolist())
        told = logits(vlm, with_answers(batch, [said], vlm.prompter.tokenizer))
    before = len(batch.labels[0]) - 1
    for step, (one, other) in enumerate(zip(cached.logits, anew.logits, strict=True)):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(one, told[:, before + step], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("case", IN_PASSES)
def test_beams_of_several_prompts_are_those_of_each_alone(case):
    vlm = tiny("llava")
    one, two = check_samples()
    samples = [one, replace(one, images=two.images)]
    batch = vlm.prompter(samples)
    wanted = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "num_beams": 3}
    with vlm.interventions.applied(made(case)):
        cached = vlm.generate(batch, **wanted)
        anew = vlm.generate(batch, use_cache=False, **wanted)
        alone = [vlm.generate(vlm.prompter([sample]), **wanted)[0] for sample in samples]
    assert torch.equal(cached, anew)
    assert torch.equal(cached, torch.stack(alone))
    assert not torch.equal(cached[0], cached[1])


@pytest.mark.parametrize("case", IN_PASSES)
def test_half_precision_stays_near_float32(case):
    half = wrap(*BY_FAMILY["llava"].build(), name="tiny llava")
    half.model.bfloat16()
    batch = half.prompter(check_samples())
    single = tiny("llava")
    plain = logits(single, batch)
    with single.interventions.applied(made(case)), half.interventions.applied(made(case)):
        own, rounded = logits(single, batch), logits(half, batch)
    assert rounded.dtype == torch.bfloat16
    for row, labels in enumerate(batch.labels):
        size = len(labels)
        error = (own[row, :size] - rounded[row, :size].float()).norm(dim=-1)
        assert error.max() < 0.03 * own[row, :size].norm(dim=-1).min()
        assert error[-1] < 0.4 * (own[row, size - 1] - plain[row, size - 1]).norm()


@pytest.mark.parametrize("case", IN_PASSES)
def test_whole_answers_are_scored_under_it(case):
    vlm = tiny("llava")
    samples = check_samples()
    cities = ("New York", "New Delhi", "Paris")
    plain, _ = score(vlm, samples, [cities] * 2)
    with vlm.interventions.applied(made(case)):
        found, left_out = score(vlm, samples, [cities] * 2)
    assert not left_out
    assert found[0].log_probability != pytest.approx(plain[0].log_probability, abs=1e-4)


@pytest.mark.parametrize("case", EVERY)
def test_its_identity_is_plain_and_tells_settings_apart(case):
    name, settings = EVERY[case]
    own = made(case).identity()
    assert json.loads(json.dumps(own)) == own
    assert own["name"] == name
    others = [made(other).identity() for other in EVERY if other != case]
    assert own not in others
    assert set(settings) - {"source", "target"} <= set(own)


@pytest.mark.parametrize("case", IN_PASSES)
def test_one_that_was_used_is_sent_without_what_a_pass_left(case):
    own, vlm = made(case), tiny("llava")
    before = pickle.dumps(own)
    with vlm.interventions.applied(own):
        logits(vlm, vlm.prompter(check_samples()))
    assert pickle.dumps(own) == before
