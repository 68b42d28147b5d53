"""Answers: the likelihood that the model itself gives, padded or not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import keygap as kg
from keygap.answering import _likelihoods, first_tokens
from keygap.benchmarks import Part
from keygap.errors import UserError
from made import bench_of, made_sample


def test_likelihoods_are_the_models_own(vlm, easy_vqa):
    samples = [easy_vqa.sample(number) for number in (0, 13, 29)]
    closed = easy_vqa.answers()
    together = _likelihoods(vlm, samples, closed)
    for sample, likelihoods in together:
        inputs = dict(vlm.prompter([sample]).inputs)
        with torch.inference_mode():
            expected = vlm.model(**inputs).logits[0, -1].log_softmax(-1)
        for answer, forms in first_tokens(vlm.prompter.tokenizer, closed).items():
            assert likelihoods[answer] == pytest.approx(
                float(expected[forms].logsumexp(0)), abs=2e-3
            )


def test_the_embedded_model_answers_shapes_and_colours(vlm, easy_vqa, tmp_path):
    answers = kg.answer(vlm, easy_vqa, samples=64, batch_size=16)
    seen = answers.frame[answers.frame["subject"] != "yes/no"]
    assert seen["correct"].mean() > 0.9
    assert answers.accuracy["total"].tolist() == [64]
    answers.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"answers.csv", "accuracy.csv"}


def test_open_questions_are_left_out_and_said(vlm):
    letters = replace(
        made_sample("choice"),
        options=("red", "blue"),
        answer="A",
        prompt=(Part("image"), Part("text", text="Which?"), Part("text", "option", "A. red")),
    )
    answers = kg.answer(vlm, bench_of([letters, made_sample("open")]))
    assert answers.frame["sample_id"].tolist() == ["choice"]
    assert list(answers.left_out) == ["open"]
    with pytest.raises(UserError, match="nothing to score"):
        kg.answer(vlm, bench_of([made_sample("open")]))


def test_answers_that_begin_alike_are_refused(vlm):
    with pytest.raises(UserError, match="begin with the same token"):
        first_tokens(vlm.prompter.tokenizer, ["redder than", "redder still"])
