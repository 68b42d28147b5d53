"""Prompts without pictures and with answers, for every family of the zoo."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from keygap.benchmarks import BadSample
from keygap.bias.scoring import logits_at, next_logits
from keygap.errors import UserError
from keygap.models.load import wrap
from keygap.models.prompting.answers import with_answers
from keygap.selfcheck.samples import check_samples, sample_of_two_images

from ..zoo import BY_FAMILY, ZOO

# processors that make no prompt without an image, and models that run none
NO_PROMPT = {"paligemma", "got_ocr2", "kosmos-2.5", "pp_chart2table"}
NEEDS_PIXELS = {"blip-2", "instructblip", "kosmos-2"}
NOISY = {"diffusion_gemma"}  # what it predicts differs from pass to pass
# of the families of the fast suite, one of each way to give images to a model
CHOSEN = (
    *("llava", "gemma3", "paligemma", "blip-2", "chameleon", "florence2", "kosmos-2"),
    *("mllama", "idefics3", "qwen2_vl", "qwen3_5"),
)
OTHERS = [entry.family for entry in ZOO if entry.family not in CHOSEN]
FAMILIES = [*CHOSEN, *(pytest.param(family, marks=pytest.mark.slow) for family in OTHERS)]


def vlm_of(family: str):
    return wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    allowed = expected.abs() < 1e30  # tokens that a model never says have the lowest number
    largest = float(expected[allowed].abs().max())
    torch.testing.assert_close(found[allowed], expected[allowed], atol=1e-4 * largest, rtol=0)


@torch.inference_mode()
def assert_batched_as_alone(vlm, pictures: str) -> None:
    samples = check_samples()
    together = next_logits(vlm, vlm.prompter(samples, pictures=pictures))
    for row, sample in zip(together, samples, strict=True):
        assert_close(row, next_logits(vlm, vlm.prompter([sample], pictures=pictures))[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_without_its_pictures(family):
    vlm = vlm_of(family)
    samples = check_samples()
    if family in NO_PROMPT:
        with pytest.raises(BadSample, match="the processor refuses the sample"):
            vlm.prompter(samples, pictures="absent")
        return
    batch = vlm.prompter(samples, pictures="absent")
    assert not [name for name in batch.inputs if "pixel" in name or "patches" in name]
    for labels, sample in zip(batch.labels, samples, strict=True):
        assert set(labels.modality) == {"text"}
        assert (labels.image == -1).all()
        said = vlm.prompter.tokenizer.decode(labels.token_id[labels.role == "question"])
        assert said.strip() == sample.question
    if family in NEEDS_PIXELS:
        with pytest.raises(UserError, match=f"tiny {family} cannot run .* 'absent'") as refusal:
            next_logits(vlm, batch)
        assert "\n" not in str(refusal.value)
    elif family not in NOISY:
        assert_batched_as_alone(vlm, "absent")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_whose_pictures_have_no_pixels(family):
    vlm = vlm_of(family)
    samples = check_samples()
    shown, marker = vlm.prompter(samples), vlm.prompter(samples, pictures="marker")
    assert torch.equal(shown.inputs["input_ids"], marker.inputs["input_ids"])
    assert not [name for name in marker.inputs if "pixel" in name or "patches" in name]
    for one, other in zip(shown.labels, marker.labels, strict=True):
        assert np.array_equal(one.modality, other.modality)
        assert np.array_equal(one.patch_row, other.patch_row)
    if family in NEEDS_PIXELS:
        with pytest.raises(UserError, match=f"tiny {family} cannot run .* 'marker'"):
            next_logits(vlm, marker)
    elif family not in NOISY:
        assert_batched_as_alone(vlm, "marker")


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "mllama"])
def test_the_text_is_what_the_processor_makes_without_an_image(family):
    vlm = vlm_of(family)
    (sample, _) = check_samples()
    batch = vlm.prompter([sample], pictures="absent")
    content = [{"type": "text", "text": sample.question}]
    own = vlm.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert torch.equal(own["input_ids"], batch.inputs["input_ids"])


@torch.inference_mode()
@pytest.mark.parametrize("pictures", ["shown", "absent"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_gets_the_logits_that_generation_has(family, pictures):
    """In a batch with another prompt, whose answer is longer."""
    refused = (NO_PROMPT | NEEDS_PIXELS) if pictures == "absent" else set()
    vlm = vlm_of(family)
    if family in refused | NOISY or vlm.model.config.is_encoder_decoder:
        pytest.skip("refused, which other tests show, or without answers after its prompt")
    samples = check_samples()
    alone = vlm.prompter(samples[:1], pictures=pictures)
    made = vlm.generate(
        alone,
        max_new_tokens=3,
        min_new_tokens=3,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    ids = made.sequences[0, -3:].tolist()
    batch = vlm.prompter(samples, pictures=pictures)
    told = with_answers(batch, [ids, [*ids, *ids]], vlm.prompter.tokenizer)
    labels, length = told.labels[0], len(alone.labels[0])
    assert labels.token_id[length:].tolist() == ids
    assert labels.role[length:].tolist() == ["answer"] * 3
    assert labels.modality[length:].tolist() == ["text"] * 3
    positions = torch.arange(length - 1, length + 2).expand(2, -1)
    found = logits_at(vlm, told, positions)[0]
    for one, expected in zip(found, made.logits, strict=True):
        assert_close(one, expected[0])


def test_answers_of_a_prompter_are_text(vlm):
    sample = sample_of_two_images()
    (plain,) = vlm.prompter([sample]).labels
    (labels,) = vlm.prompter([sample], answers=[" a red circle<image>"]).labels
    assert np.array_equal(labels.token_id[: len(plain)], plain.token_id)
    assert np.array_equal(labels.role[: len(plain)], plain.role)
    said = labels.token_id[labels.role == "answer"]
    assert vlm.processor.tokenizer.decode(said) == " a red circle<image>"
    assert vlm.processor.tokenizer.convert_tokens_to_ids("<image>") not in said


def test_an_encoder_decoder_reads_no_answer_after_its_prompt():
    vlm = vlm_of("florence2")
    batch = vlm.prompter(check_samples()[:1], answers=["red"])
    with pytest.raises(UserError, match="tiny florence2 is an encoder-decoder"):
        vlm.forward(batch)
