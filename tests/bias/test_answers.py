"""Answers: likelihoods are the model's own, in batches as alone; what is not scored is counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import keygap as kg
from keygap.benchmarks import Piece
from keygap.bias.answers import _likelihoods, first_tokens
from keygap.errors import UserError
from made import bench_of, made_sample


def test_likelihoods_are_the_models_own(vlm, easy_vqa):
    samples = [easy_vqa.sample(number) for number in (0, 13, 29)]
    closed = easy_vqa.answers
    together = _likelihoods(vlm, vlm.prompter(samples), [closed] * len(samples))
    for sample, likelihoods in zip(samples, together, strict=True):
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


def choice(name: str, answer: str | None = "A"):
    prompt = (Piece("image"), Piece("text", text="Which?"), Piece("text", "option", "A. red"))
    return replace(made_sample(name), options=("red", "blue"), answer=answer, prompt=prompt)


def test_what_cannot_be_scored_is_counted_by_reason(vlm, tmp_path):
    bad = replace(choice("bad"), images=())
    bench = bench_of([choice("choice"), made_sample("open"), choice("kept", None), bad])
    answers = kg.answer(vlm, bench)
    assert answers.frame["sample_id"].tolist() == ["choice"]
    assert answers.left_out == {
        "open": "open question", "kept": "answer not published", "bad": "the sample has no image"
    }  # fmt: skip
    answers.save(tmp_path)
    table = pd.read_csv(tmp_path / "accuracy.csv").set_index("rule")["total"]
    assert table.to_dict() == {
        "overall": 1,
        "not scored: answer not published": 1,
        "not scored: bad sample": 1,
        "not scored: open question": 1,
    }


def test_nothing_to_score_is_no_error(vlm):
    answers = kg.answer(vlm, bench_of([made_sample("open"), choice("kept", None)]))
    assert answers.frame.empty
    overall = answers.accuracy.iloc[0]
    assert (overall["rule"], overall["total"]) == ("overall", 0)
    assert np.isnan(overall["accuracy"])
    assert answers.what_is_left_out() == "not scored: 1 (answer not published), 1 (open question)"


def test_each_sample_is_prepared_once(vlm, monkeypatch):
    prepared: list[str] = []
    kind = type(vlm.prompter)
    call = kind.__call__

    def counted(self, samples):
        prepared.extend(sample.id for sample in samples)
        return call(self, samples)

    monkeypatch.setattr(kind, "__call__", counted)
    kg.answer(vlm, bench_of([choice(name) for name in "abcd"]), batch_size=2)
    assert sorted(prepared) == ["a", "b", "c", "d"]


def test_answers_that_begin_alike_are_refused(vlm):
    with pytest.raises(UserError, match="begin with the same token"):
        first_tokens(vlm.prompter.tokenizer, ["redder than", "redder still"])
