"""Scoring: likelihoods are the model's own, whole answers where they begin alike."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from keygap.benchmarks.scoring import accepted
from keygap.bias.candidates import candidates_of, why_not_scored
from keygap.bias.scoring import exclusive, normalised, score, spellings
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples
from made import made_sample
from models.zoo import BY_FAMILY

CITIES = ("New York", "New Delhi", "New York City", "Paris")


@pytest.fixture
def samples(easy_vqa):
    return [easy_vqa.sample(number) for number in (0, 13, 29)]


@pytest.fixture
def passes(vlm):
    """The width of each forward pass of the model."""
    widths: list[int] = []

    def count(module, arguments, keywords):
        widths.append(len(keywords["input_ids"]))

    handle = vlm.model.register_forward_pre_hook(count, with_kwargs=True)
    yield widths
    handle.remove()


@torch.inference_mode()
def by_hand(vlm, sample, ids, **options) -> float:
    """Log-probability of some tokens after a prompt, one pass of the model for each."""
    inputs = dict(vlm.prompter([sample], **options).inputs)
    total = 0.0
    for one in ids:
        total += float(vlm.model(**inputs).logits[0, -1].log_softmax(-1)[one])
        for name, value in (("input_ids", one), ("attention_mask", 1), ("mm_token_type_ids", 0)):
            if name in inputs:
                inputs[name] = torch.cat([inputs[name], torch.tensor([[value]])], dim=1)
        if "cross_attention_mask" in inputs:
            mask = inputs["cross_attention_mask"]
            inputs["cross_attention_mask"] = torch.cat([mask, mask[:, -1:]], dim=1)
    return total


def both_spellings(tokenizer, text: str) -> list[list[int]]:
    """The tokens of a text alone and after a space, without a token of that space alone."""
    alone = tokenizer(text, add_special_tokens=False).input_ids
    after = tokenizer(f" {text}", add_special_tokens=False).input_ids
    if tokenizer.decode(after[:1]) == " ":
        after = after[1:]
    return [alone] if alone == after else [alone, after]


def test_the_next_token_has_the_models_own_likelihood_in_one_pass(vlm, easy_vqa, samples, passes):
    closed = easy_vqa.answers
    scored, left_out = score(vlm, samples, [closed] * 3)
    assert passes == [3]
    assert not left_out
    for sample, item in zip(samples, scored, strict=True):
        assert item.sample_id == sample.id
        assert tuple(item.log_probability) == closed
        with torch.inference_mode():
            own = vlm.model(**vlm.prompter([sample]).inputs).logits[0, -1].log_softmax(-1)
        for answer in closed:
            first = {ids[0] for ids in both_spellings(vlm.processor.tokenizer, answer)}
            expected = math.log(sum(math.exp(float(own[one])) for one in first))
            assert item.log_probability[answer] == pytest.approx(expected, abs=2e-3)
        assert item.chosen == max(closed, key=lambda one: item.log_probability[one])


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "gemma3", "mllama"])
@pytest.mark.parametrize("pictures", ["shown", "absent"])
def test_answers_that_begin_alike_are_scored_whole(family, pictures):
    vlm = wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")
    asked = check_samples()
    scored, left_out = score(vlm, asked, [CITIES] * 2, pictures=pictures)
    assert not left_out
    for sample, item in zip(asked, scored, strict=True):
        likelihood = {}
        for city in CITIES:
            forms = both_spellings(vlm.processor.tokenizer, city)
            values = [by_hand(vlm, sample, ids, pictures=pictures) for ids in forms]
            likelihood[city] = sum(map(math.exp, values))
        likelihood["New York"] -= likelihood["New York City"]
        for city, expected in likelihood.items():
            assert item.log_probability[city] == pytest.approx(math.log(expected), abs=2e-3)


def test_one_pass_for_each_spelling_of_whole_answers(vlm, samples, passes):
    score(vlm, samples, [("redder than", "redder still")] * 3)
    assert passes == [3] * 4


def test_samples_of_one_batch_are_scored_each_in_its_way(vlm, samples, passes):
    scored, left_out = score(vlm, samples, [("A", "B"), CITIES, ()])
    assert [item.sample_id for item in scored] == [sample.id for sample in samples]
    assert [tuple(item.log_probability) for item in scored] == [("A", "B"), CITIES, ()]
    assert not left_out
    assert passes[0] == 1


def test_a_longer_candidate_takes_from_the_one_that_it_continues():
    spelled: dict[str, list[tuple[int, ...]]] = {
        "a": [(1,)],
        "ab": [(1, 2)],
        "abc": [(1, 2, 3)],
        "x": [(9,), (8,)],
    }
    values = {(1,): 0.5, (1, 2): 0.3, (1, 2, 3): 0.1, (9,): 0.2, (8,): 0.25}
    found = exclusive(spelled, {ids: math.log(value) for ids, value in values.items()})
    assert {name: math.exp(value) for name, value in found.items()} == pytest.approx(
        {"a": 0.2, "ab": 0.2, "abc": 0.1, "x": 0.45}
    )


def test_a_candidate_that_is_always_continued_is_never_the_answer():
    found = exclusive({"a": [(1,)], "ab": [(1, 2)]}, {(1,): -1.0, (1, 2): -1.0})
    assert found == {"a": -math.inf, "ab": -1.0}


@pytest.mark.parametrize(
    ("candidates", "reason"),
    [
        (("red", " "), "the answer ' ' has no text"),
        (("red", " red"), "the answers 'red' and ' red' have the same tokens"),
    ],
)
def test_candidates_that_cannot_be_told_apart_are_counted(vlm, samples, candidates, reason):
    scored, left_out = score(vlm, samples[:2], [candidates, ("red", "blue")])
    assert left_out == {samples[0].id: reason}
    assert [item.sample_id for item in scored] == [samples[1].id]


def test_a_bad_sample_never_stops_the_others(vlm, samples):
    bad = replace(samples[1], images=())
    scored, left_out = score(vlm, [samples[0], bad, samples[2]], [("yes", "no")] * 3)
    assert left_out == {bad.id: "the sample has no image"}
    assert [item.sample_id for item in scored] == [samples[0].id, samples[2].id]


@pytest.mark.parametrize("candidates", [("yes", "no"), CITIES])
def test_likelihoods_that_are_no_numbers_are_counted(vlm, samples, candidates):
    def spoil(module, arguments, output):
        output.logits[1] = math.nan

    handle = vlm.model.register_forward_hook(spoil)
    try:
        scored, left_out = score(vlm, samples, [candidates] * 3)
    finally:
        handle.remove()
    assert [item.sample_id for item in scored] == [samples[0].id, samples[2].id]
    assert "is not a number" in left_out[samples[1].id]


def test_a_prompt_that_reads_ahead_has_no_likelihood():
    vlm = wrap(*BY_FAMILY["diffusion_gemma"].build(), name="tiny diffusion_gemma")
    (sample, _) = check_samples()
    scored, left_out = score(vlm, [sample], [CITIES])
    assert not scored
    assert "attends to the answer that follows" in left_out[sample.id]


@torch.inference_mode()
def test_an_open_question_is_generated_greedily(vlm, samples):
    scored, left_out = score(vlm, samples, [()] * 3, max_new_tokens=5)
    assert not left_out
    for sample, item in zip(samples, scored, strict=True):
        inputs = dict(vlm.prompter([sample]).inputs)
        made = vlm.model.generate(**inputs, max_new_tokens=5, do_sample=False)
        said = vlm.processor.tokenizer.decode(
            made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        assert item.chosen == said.strip().split("\n")[0].strip()
        assert item.chosen
        assert item.log_probability == {}


def test_an_encoder_decoder_is_scored_by_its_decoder():
    vlm = wrap(*BY_FAMILY["florence2"].build(), name="tiny florence2")
    (sample, _) = check_samples()
    (scored,), _ = score(vlm, [sample], [CITIES])
    inputs = dict(vlm.prompter([sample]).inputs)
    expected = 0.0
    for ids in both_spellings(vlm.processor.tokenizer, "Paris"):
        said = torch.tensor([[vlm.model.generation_config.decoder_start_token_id or 0, *ids]])
        with torch.inference_mode():
            logits = vlm.model(**inputs, decoder_input_ids=said).logits[0].log_softmax(-1)
        expected += math.exp(sum(float(logits[n, one]) for n, one in enumerate(ids)))
    assert scored.log_probability["Paris"] == pytest.approx(math.log(expected), abs=2e-3)


def test_candidates_are_letters_before_a_closed_set():
    sample = made_sample("s")
    lettered = replace(sample, options=("red", "blue"), answer="A")
    assert candidates_of(lettered, ("yes", "no")) == ("A", "B")
    assert candidates_of(sample, ("yes", "no")) == ("yes", "no")
    assert candidates_of(sample, ()) == ()


@pytest.mark.parametrize(
    ("answer", "candidates", "least", "said"),
    [
        ("yes", ("yes", "no"), 2, None),
        ("Yes", ("yes", "no"), 0, "'Yes' is not among the options yes, no"),
        ("yes", (), 0, None),
        ("yes", (), 2, "no answers to choose from"),
        ("yes", ("yes",), 2, "no answers to choose from"),
        (None, ("yes", "no"), 0, "not published"),
    ],
)
def test_why_an_answer_cannot_be_scored(answer, candidates, least, said):
    why = why_not_scored(replace(made_sample("s"), answer=answer), candidates, least)
    assert why is None if said is None else said in why


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red.", "red"),
        ("  a\tRED  car ", "a red car"),
        ("3.5", "3.5"),
        ("e.g. .", "e.g."),
        ("", ""),
    ],
)
def test_normalised(text, expected):
    assert normalised(text) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("red", ("red",)),
        ("['24', 'twenty-four']", ("24", "twenty-four")),
        ("[1, 2)", ("[1, 2)",)),
        ("[]", ("[]",)),
    ],
)
def test_accepted_answers(answer, expected):
    assert accepted(answer) == expected


def test_tokens_of_white_space_before_an_answer_are_left_out(vlm):
    tokenizer = vlm.processor.tokenizer
    for ids in spellings(tokenizer, "\n\n red"):
        assert tokenizer.decode(list(ids)).strip() == "red"
    assert spellings(tokenizer, " \n") == []
