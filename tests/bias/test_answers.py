"""Answers: likelihoods are the model's own, in batches as alone; what is not scored is counted."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import keygap as kg
from keygap.benchmarks import Piece
from keygap.benchmarks.scoring import Judged
from keygap.bias import answers as module
from keygap.bias.intervals import proportion
from made import bench_of, made_sample


def test_the_embedded_model_answers_shapes_and_colours(vlm, easy_vqa, tmp_path):
    answers = kg.answer(vlm, easy_vqa, samples=32, batch_size=16)
    seen = answers.frame[answers.frame["subject"] != "yes/no"]
    assert seen["correct"].mean() > 0.9
    assert answers.accuracy["total"].tolist() == [32]
    answers.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"answers.csv", "accuracy.csv"}


def choice(name: str, answer: str | None = "A"):
    prompt = (Piece("image"), Piece("text", text="Which?"), Piece("text", "option", "A. red"))
    return replace(made_sample(name), options=("red", "blue"), answer=answer, prompt=prompt)


def test_what_cannot_be_scored_is_counted_by_reason(vlm, tmp_path):
    bad = replace(choice("bad"), images=())
    unanswered = replace(made_sample("open"), answer=None)
    answers = kg.answer(vlm, bench_of([choice("choice"), unanswered, choice("kept", None), bad]))
    assert answers.frame["sample_id"].tolist() == ["choice"]
    assert answers.left_out == {
        "open": "no options and no answer",
        "kept": "answer not published",
        "bad": "the sample has no image",
    }
    answers.save(tmp_path)
    table = pd.read_csv(tmp_path / "accuracy.csv").set_index("rule")["total"]
    assert table.to_dict() == {
        "overall": 1,
        "not scored: answer not published": 1,
        "not scored: bad sample": 1,
        "not scored: no options and no answer": 1,
    }


def test_nothing_to_score_is_no_error(vlm):
    unanswered = replace(made_sample("open"), answer=None)
    answers = kg.answer(vlm, bench_of([unanswered, choice("kept", None)]))
    assert answers.frame.empty
    overall = answers.accuracy.iloc[0]
    assert (overall["rule"], overall["total"]) == ("overall", 0)
    assert np.isnan(overall["accuracy"])
    line = "not scored: 1 (answer not published), 1 (no options and no answer)"
    assert answers.what_is_left_out() == line


def test_an_open_question_is_scored_by_what_is_generated(vlm, tmp_path):
    """The embedded model was trained to name shapes, and its benchmark lists them."""
    source = kg.benchmark("easy-vqa", split="test")
    chosen = source.choose(12, seed=1)
    asked = [chosen.sample(number) for number in range(12)]
    answers = kg.answer(vlm, bench_of(asked), batch_size=4)
    assert answers.frame["correct"].mean() > 0.8
    assert answers.frame["log_probability"].isna().all()
    assert not answers.left_out
    listed = kg.answer(vlm, chosen, batch_size=4).frame.set_index("sample_id")
    generated = answers.frame.set_index("sample_id")
    assert (listed["chosen"] == generated["chosen"].reindex(listed.index)).mean() > 0.8
    answers.save(tmp_path)
    assert pd.read_csv(tmp_path / "answers.csv")["log_probability"].isna().all()


def test_each_sample_is_prepared_once(vlm, monkeypatch):
    prepared: list[str] = []
    kind = type(vlm.prompter)
    call = kind.__call__

    def counted(self, samples, **keywords):
        prepared.extend(sample.id for sample in samples)
        return call(self, samples, **keywords)

    monkeypatch.setattr(kind, "__call__", counted)
    kg.answer(vlm, bench_of([choice(name) for name in "abcd"]), batch_size=2)
    assert sorted(prepared) == ["a", "b", "c", "d"]


def circular(right: np.ndarray) -> kg.Answers:
    """Answers to the copies (columns) of some questions (rows), of a circular benchmark."""
    judged = [
        Judged(f"q{row}-{copy}", "", "A" if hit else "B", "A", ("A", "B", "C", "D"), f"q{row}")
        for row, hits in enumerate(right)
        for copy, hit in enumerate(hits)
    ]
    asked: Any = SimpleNamespace(benchmark=SimpleNamespace(scoring="circular"))
    return module._answers_of(asked, judged, {})


def test_copies_of_a_question_do_not_tighten_the_interval():
    alike = np.repeat(np.arange(200) < 119, 4).reshape(200, 4)
    overall, plain = circular(alike).summary().to_dict("records")
    assert (overall["rule"], plain["rule"]) == ("overall", "plain")
    assert (overall["total"], plain["total"]) == (200, 800)
    ends = overall["ci_low"], overall["ci_high"]
    assert ends == pytest.approx((0.526, 0.661), abs=1e-3)
    assert (plain["ci_low"], plain["ci_high"]) == pytest.approx(ends, abs=1e-3)


def test_an_interval_of_copies_is_that_of_their_questions():
    rng = np.random.default_rng(2)
    right = rng.random((150, 4)) < rng.beta(0.6, 0.4, (150, 1))
    plain = circular(right).summary().set_index("rule").loc["plain"]
    found = proportion(right.ravel(), np.repeat(np.arange(150), 4))
    assert (plain["ci_low"], plain["ci_high"]) == (found.low, found.high)


def test_a_question_without_copies_is_its_own_cluster():
    judged = [Judged(f"s{n}", "", "A", "A" if n < 30 else "B", ("A", "B")) for n in range(40)]
    asked: Any = SimpleNamespace(benchmark=SimpleNamespace(scoring="plain"))
    found = module._answers_of(asked, judged, {"s40": "bad sample"})
    assert found.frame["question"].tolist() == found.frame["sample_id"].tolist()
    row = found.summary().iloc[0]
    expected = proportion(np.arange(40) < 30)
    assert (row["ci_low"], row["ci_high"]) == (expected.low, expected.high)
