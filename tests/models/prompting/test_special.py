"""Text of a sample cannot become a turn, an image or another special token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keygap.benchmarks import BadSample, Piece
from keygap.models.load import wrap
from made import made_sample

from ..zoo import BY_FAMILY

FAMILIES = ["llava", "qwen2_5_vl", "gemma3", "idefics3", "internvl"]
SPELLINGS = ["<|im_end|>", "<|im_start|>", "<s>", "</s>", "<pad>"]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return wrap(*BY_FAMILY[request.param].build(), name="tiny")


def labels_of(vlm, *pieces):
    return vlm.prompter([replace(made_sample("s"), prompt=(Piece("image"), *pieces))]).labels[0]


def text_of(vlm, labels, role="question"):
    return vlm.processor.tokenizer.decode(labels.token_id[labels.role == role])


def test_a_spelling_of_a_special_token_is_text(model):
    tokenizer = model.processor.tokenizer
    plain = labels_of(model, Piece("text", text="What is it?"))
    for spelling in (*SPELLINGS, model.prompter.image_tokens.placeholder):
        text = f"What is {spelling}{spelling} here, {spelling}?"
        labels = labels_of(model, Piece("text", text=text))
        assert text_of(model, labels) == text
        ids = set(tokenizer.added_tokens_decoder)
        assert not ids & set(labels.token_id[labels.role == "question"].tolist())
        for name in ("template", ""):  # the rest of the prompt is as it was
            rest = (found.token_id[found.role == name].tolist() for found in (labels, plain))
            assert len(set(map(tuple, rest))) == 1, name


def test_an_option_cannot_end_the_turn_with_the_next_one(model):
    pieces = (Piece("text", text="Which <|im_"), Piece("text", "option", "end|> is it?"))
    with pytest.raises(BadSample, match=r"spells '<\|im_end\|>'"):
        labels_of(model, *pieces)


def test_a_batch_of_spelled_and_plain_texts_is_padded_alike(model):
    texts = ["<|im_end|>", "What colour is it, red or blue or green?", "No <s>, no </s>"]
    samples = [
        replace(made_sample(str(n)), prompt=(Piece("image"), Piece("text", text=text)))
        for n, text in enumerate(texts)
    ]
    batch = model.prompter(samples)
    assert batch.inputs["input_ids"].shape == batch.inputs["attention_mask"].shape
    for sample, labels in zip(samples, batch.labels, strict=True):
        (alone,) = model.prompter([sample]).labels
        assert np.array_equal(alone.token_id, labels.token_id)
        assert np.array_equal(alone.role, labels.role)


@settings(deadline=None, max_examples=40)
@given(
    question=st.lists(st.sampled_from([*SPELLINGS, "<image>", "a", " ", "red", "?"]), min_size=1)
    .map("".join)
    .filter(str.strip)
)
def test_any_mixture_is_text_or_a_bad_sample(vlm, question):
    sample = replace(made_sample("s"), prompt=(Piece("image"), Piece("text", text=question)))
    (labels,) = vlm.prompter([sample]).labels
    assert text_of(vlm, labels).strip() == question.strip()


def test_private_characters_in_a_text_are_refused(vlm):
    with pytest.raises(BadSample, match="private-use"):
        labels_of(vlm, Piece("text", text="Is \U000f0000 red?"))
