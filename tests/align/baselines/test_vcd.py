"""VCD moves away from a noisy image, whose noise belongs to the sample and to no batch."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from keygap.align.baselines.vcd import signal_kept, vcd
from keygap.bias.scoring import score
from keygap.selfcheck.samples import check_samples, sample_of_two_images

from .by_hand import logits, tiny

ANSWERS = ("A", "B", "C")


def kept_by_hand(step: int) -> float:
    """The product of 1 - beta up to a step, beta on a sigmoid from 1e-5 to 5e-3."""
    kept = 1.0
    for number in range(step + 1):
        place = -6 + 12 * number / 999
        kept *= 1 - (1e-5 + (5e-3 - 1e-5) / (1 + math.exp(-place)))
    return kept


@pytest.mark.parametrize("step", [0, 500, 999])
def test_the_schedule_of_the_noise(step):
    assert signal_kept(step) == pytest.approx(kept_by_hand(step), rel=1e-9)
    assert 0 < signal_kept(999) < signal_kept(500) < signal_kept(0) < 1


@pytest.mark.parametrize("step", [100, 700])
def test_pixels_are_those_of_the_diffusion(step):
    vlm = tiny("llava")
    samples = check_samples()
    batch = vlm.prompter(samples)
    pixels = batch.inputs["pixel_values"].double()
    kept = kept_by_hand(step)
    found = vcd(step=step).noised(vlm, samples, batch)
    noise = (found.inputs["pixel_values"].double() - math.sqrt(kept) * pixels) / math.sqrt(1 - kept)
    size = noise.numel() ** 0.5
    assert abs(float(noise.mean())) < 4 / size
    assert abs(float(noise.std()) - 1) < 4 / size
    assert abs(np.corrcoef(noise[0].flatten(), noise[1].flatten())[0, 1]) < 8 / size
    assert torch.equal(pixels, batch.inputs["pixel_values"].double())
    assert set(found.inputs) == set(batch.inputs)
    for name in set(batch.inputs) - {"pixel_values"}:
        assert found.inputs[name] is batch.inputs[name]


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("plausibility", [0.4, 0])
def test_scores_are_those_of_the_contrast(plausibility, seed):
    vlm = tiny("llava")
    samples = check_samples()
    one = vcd(alpha=0.8, step=600, plausibility=plausibility, seed=seed)
    with vlm.interventions.applied(one):
        found, left_out = score(vlm, samples, [ANSWERS] * 2)
    scored = {item.sample_id: item.log_probability for item in found}
    tokenizer = vlm.processor.tokenizer
    for sample in samples:
        batch = vlm.prompter([sample])
        own = logits(vlm, batch)[0, -1].double()
        noisy = logits(vlm, one.noised(vlm, [sample], batch))[0, -1].double()
        expected = (1 + 0.8) * own - 0.8 * noisy
        if plausibility:
            expected[own < own.max() + math.log(plausibility)] = -math.inf
        expected = expected.log_softmax(-1)
        assert not torch.allclose(own, noisy, atol=1e-3)
        for answer in ANSWERS:
            ids = {tokenizer(answer, add_special_tokens=False).input_ids[0]}
            ids |= {tokenizer(f" {answer}", add_special_tokens=False).input_ids[-1]}
            value = float(expected[sorted(ids)].logsumexp(0))
            if sample.id in scored:
                assert scored[sample.id][answer] == pytest.approx(value, abs=1e-4)
            else:
                assert value == -math.inf
                assert "likely enough" in left_out[sample.id]


@pytest.mark.parametrize(
    "family", ["llava", "llava_next", "qwen2_vl", "idefics2", "idefics3", "mllama", "mistral3"]
)
def test_a_sample_has_the_same_noise_in_any_batch(family):
    vlm = tiny(family)
    samples = check_samples()
    if family != "mllama":  # whose prompts of one image look otherwise beside one of two
        samples.append(replace(sample_of_two_images(), id="two"))
    one = vcd(step=500)
    together = one.noised(vlm, samples, vlm.prompter(samples))
    found = logits(vlm, together)
    for row, sample in enumerate(samples):
        batch = vlm.prompter([sample])
        noisy = one.noised(vlm, [sample], batch)
        alone = logits(vlm, noisy)[0]
        torch.testing.assert_close(found[row, : len(alone)], alone, atol=1e-4, rtol=1e-3)
        assert not torch.allclose(alone, logits(vlm, batch)[0], atol=1e-3)


def test_alpha_0_changes_no_bit_and_needs_no_pass():
    vlm = tiny("llava")
    samples = check_samples()
    before = score(vlm, samples, [ANSWERS] * 2)
    passes = []
    handle = vlm.model.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        with vlm.interventions.applied(vcd(alpha=0)):
            assert score(vlm, samples, [ANSWERS] * 2) == before
    finally:
        handle.remove()
    assert len(passes) == 1


@pytest.mark.parametrize("pictures", ["absent", "marker"])
def test_a_prompt_without_pixels_is_contrasted_with_itself(pictures):
    vlm = tiny("llava")
    before, _ = score(vlm, check_samples(), [ANSWERS] * 2, pictures=pictures)
    with vlm.interventions.applied(vcd(plausibility=0)):
        found, _ = score(vlm, check_samples(), [ANSWERS] * 2, pictures=pictures)
    for one, other in zip(found, before, strict=True):
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-5)


def test_identity_has_all_that_decides():
    assert vcd(seed=3).identity() == {
        "name": "vcd",
        "layers": [],
        "sites": [],
        "alpha": 1.0,
        "step": 500,
        "plausibility": 0.1,
        "seed": 3,
    }
