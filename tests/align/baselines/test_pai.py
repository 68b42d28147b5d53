"""PAI raises image logits by their magnitude and moves away from the prompt without its image."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from keygap.align.baselines.pai import pai
from keygap.bias.scoring import score
from keygap.errors import UserError
from keygap.models.masking import Mask
from keygap.selfcheck.samples import check_samples

from .by_hand import assert_attends, chosen, given, images, logits, softmax, tiny

ANSWERS = ("A", "B", "C")


def last_logits(vlm, sample, **options):
    """Log-probabilities of the next token, of one prompt alone."""
    with torch.no_grad():
        found = vlm.forward(vlm.prompter([sample], **options)).logits[0, -1]
    return found.double().log_softmax(-1)


def contrast(vlm, sample, gamma, plausibility):
    """The contrast of one prompt with the same prompt without its image."""
    own, without = last_logits(vlm, sample), last_logits(vlm, sample, pictures="absent")
    found = gamma * own - (gamma - 1) * without
    found[own < own.max() + math.log(plausibility)] = -math.inf
    return found.log_softmax(-1)


@pytest.mark.parametrize("queries", ["current", "text", "all"])
@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_attention_is_that_of_the_formula(family, queries):
    vlm = tiny(family)
    batch = vlm.prompter(check_samples())
    for layer, alpha in ((0, 0.6), (2, 0.6), (2, -0.4)):
        mine = given(vlm, batch)[layer]
        products = mine.products
        for row, labels in enumerate(batch.labels):
            for query in chosen(labels, queries):
                own = products[row, :, query, images(labels)]
                products[row, :, query, images(labels)] = own + alpha * own.abs()
        own = softmax(products, mine.seen)
        with vlm.interventions.applied(pai(layers=[layer], alpha=alpha, gamma=1, queries=queries)):
            assert_attends(vlm, batch, layer, own, mine)


def test_alpha_0_and_gamma_1_change_no_bit():
    vlm = tiny("llava")
    batch = vlm.prompter(check_samples())
    plain = logits(vlm, batch)
    before, _ = score(vlm, check_samples(), [ANSWERS] * 2)
    with vlm.interventions.applied(pai(layers=[0, 1, 2], alpha=0, gamma=1)):
        assert torch.equal(logits(vlm, batch), plain)
        assert score(vlm, check_samples(), [ANSWERS] * 2) == (before, {})


@pytest.mark.parametrize("plausibility", [0.3, 1e-30])
def test_scores_are_those_of_the_contrast(plausibility):
    vlm = tiny("llava")
    samples = check_samples()
    with vlm.interventions.applied(pai(layers=[0], alpha=0, gamma=1.7, plausibility=plausibility)):
        found, left_out = score(vlm, samples, [ANSWERS] * 2)
    tokenizer = vlm.processor.tokenizer
    scored = {one.sample_id: one.log_probability for one in found}
    for sample in samples:
        by_hand = contrast(vlm, sample, 1.7, plausibility)
        for answer in ANSWERS:
            ids = {tokenizer(answer, add_special_tokens=False).input_ids[0]}
            ids |= {tokenizer(f" {answer}", add_special_tokens=False).input_ids[-1]}
            expected = float(by_hand[sorted(ids)].logsumexp(0))
            if sample.id in scored:
                assert scored[sample.id][answer] == pytest.approx(expected, abs=1e-4)
            else:
                assert expected == -math.inf
                assert "likely enough" in left_out[sample.id]


def test_without_a_cut_no_token_is_left_out():
    vlm = tiny("llava")
    (sample, _) = check_samples()
    batch = vlm.prompter([sample])
    one = pai(layers=[0], gamma=3, plausibility=0)
    with torch.no_grad():
        found = one.decide(vlm, [sample], batch, vlm.forward(batch).logits[:, -1])
    assert found.isfinite().all()
    own, without = last_logits(vlm, sample), last_logits(vlm, sample, pictures="absent")
    torch.testing.assert_close(found[0].double(), 3 * own - 2 * without, atol=1e-4, rtol=1e-5)


def test_tokens_that_a_model_never_says_stay_unsaid():
    vlm = tiny("llava")
    (sample, _) = check_samples()

    def forbid(module, arguments, output):
        output.logits[..., 7] = -math.inf

    handle = vlm.model.register_forward_hook(forbid)
    try:
        batch = vlm.prompter([sample])
        with torch.no_grad():
            own = vlm.forward(batch).logits[:, -1]
            found = pai(layers=[0], gamma=2, plausibility=0).decide(vlm, [sample], batch, own)
    finally:
        handle.remove()
    assert found[0, 7] == -math.inf
    assert not found.isnan().any()


def test_other_interventions_act_on_the_prompt_without_its_image():
    vlm = tiny("llava")
    (sample, _) = check_samples()
    batch = vlm.prompter([sample])
    mask = Mask(["template"], [0, 1, 2])
    with torch.no_grad(), vlm.interventions.applied(mask):
        own, without = last_logits(vlm, sample), last_logits(vlm, sample, pictures="absent")
        with vlm.interventions.applied(pai(layers=[0], alpha=0, gamma=1.5, plausibility=0)):
            plain = vlm.forward(batch).logits[:, -1]
            found = vlm.interventions.decide(vlm, [sample], batch, plain)
    expected = 1.5 * own - 0.5 * without
    torch.testing.assert_close(found[0].double(), expected, atol=1e-4, rtol=1e-5)


def test_one_pass_more_for_a_contrast():
    vlm = tiny("llava")
    passes = []
    handle = vlm.model.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        for gamma, count in ((1.0, 1), (1.1, 2)):
            passes.clear()
            with vlm.interventions.applied(pai(layers=[0], gamma=gamma)):
                score(vlm, check_samples(), [ANSWERS] * 2)
            assert len(passes) == count
    finally:
        handle.remove()


def test_a_model_that_needs_an_image_is_named():
    vlm = tiny("llava")
    (sample, _) = check_samples()
    batch = vlm.prompter([sample])
    imageless = replace(sample, images=())
    with pytest.raises(UserError, match="needs prompts without their images"):
        pai(layers=[0]).decide(vlm, [imageless], batch, torch.zeros(1, 640))


def test_identity_has_all_that_decides():
    assert pai(layers=[2, 3], queries="text").identity() == {
        "name": "pai",
        "layers": [2, 3],
        "sites": ["attention"],
        "alpha": 0.2,
        "gamma": 1.1,
        "plausibility": 0.1,
        "queries": ["text"],
    }
