"""A study chooses its samples once, and continues if they cannot be scored."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml

import keygap as kg
from benchmarks import fixtures
from keygap.benchmarks import Benchmark
from keygap.study import run
from keygap.study.experiment import Experiment
from keygap.study.run import run_study


def experiment_with(**section: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "mine",
            "models": [{"name": "micro:linear"}],
            "benchmarks": [{"name": "easy-vqa"}],
            **section,
        }
    )


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({}, True),
        ({"causes": {"samples": 200}}, False),
        ({"causes": {"plan": {"strengths": [-1, 2]}}}, False),
        ({"causes": {"phrasings": ["Is it {answer}?"]}}, False),
        ({"measurement": {"n_bootstraps": 77}}, False),
        ({"seed": 1}, False),
    ],
)
def test_causes_of_other_settings_are_not_those_of_the_study(tmp_path, monkeypatch, other, same):
    """They may be left from before an experiment was changed, or by a command of their own."""
    phrasings = ["I think it is {answer}."]
    asked = {"samples": 8, "phrasings": phrasings, "plan": {"strengths": [-1, 1]}}
    saved: dict[str, Any] = {
        "plan": vars(kg.align.Plan(strengths=(-1, 1))),
        "seed": 0,
        "n_bootstraps": kg.defaults.N_BOOTSTRAPS,
        "text_roles": ["question"],
        "samples": 8,
        "fit_samples": kg.defaults.FIT_SAMPLES,
        "phrasings": phrasings,
    }
    plain = {**saved, "plan": {k: as_list(v) for k, v in saved["plan"].items()}}
    (tmp_path / "causes.yaml").write_text(yaml.safe_dump(plain))
    monkeypatch.setattr(run, "is_whole", lambda *_: True)
    changed = {**other, "causes": asked | other.get("causes", {})}
    assert run._has_causes(tmp_path, experiment_with(**changed)) == same


def as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_causes_that_are_not_there_are_not_those_of_the_study(tmp_path):
    assert not run._has_causes(tmp_path, experiment_with(causes={}))


@pytest.mark.parametrize(("tokens", "seed", "again"), [(200, 0, 0), (300, 0, 1), (200, 5, 1)])
def test_choices_of_other_settings_are_measured_again(tmp_path, monkeypatch, tokens, seed, again):
    """``keygap choices`` may have written others into the folder of the study."""
    experiment = experiment_with(choices={"tokens": [200]})
    there = kg.choices.Plan(tokens=[tokens]).as_settings()
    (tmp_path / "choices.yaml").write_text(yaml.safe_dump({"levels": there, "seed": seed}))
    measured = []

    def specifications(*stores, plan, seed):
        measured.append((plan.as_settings()["tokens"], seed))
        return SimpleNamespace(files=dict)

    monkeypatch.setattr(run, "is_whole", lambda *_: True)
    monkeypatch.setattr(run, "specifications", specifications)
    monkeypatch.setattr(run, "record_results", lambda *_: None)
    run._try_choices(experiment, [], tmp_path)
    assert measured == [([200], 0)] * again


@pytest.mark.slow
def test_a_benchmark_without_answers_is_measured_and_reported(tmp_path, caplog, monkeypatch):
    question = {"question": "Is <image 1> a “bar”?", "answer": "?"}
    rows = [fixtures.mmmu_row(f"test_Art_{n}", **question) for n in range(6)]
    rows += [
        fixtures.mmmu_row(f"test_Art_{n}", **question, question_type="open", options="[]")
        for n in (6, 7)
    ]
    data = fixtures.write_mmmu(tmp_path / "test.parquet", rows)
    experiment = Experiment.model_validate(
        {
            "name": "kept",
            "models": [{"name": "micro:linear"}],
            "benchmarks": [{"name": "mmmu", "split": "test", "data": str(data)}],
            "extraction": {"samples": None, "layers": ["first"]},
            "measurement": {
                "contrasts": ["image_text"],
                "tokens_per_sample": 8,
                "n_permutations": 20,
                "n_bootstraps": 20,
            },
            "projection": {"tokens": 50, "perplexity": 5},
            "bias": {"samples": 9},
        }
    )
    chosen = []
    choose = Benchmark.choose

    def counted(bench, *arguments):
        chosen.append(bench.name)
        return choose(bench, *arguments)

    monkeypatch.setattr(Benchmark, "choose", counted)
    with caplog.at_level(logging.INFO, "keygap"):
        page = run_study(experiment, tmp_path / "out").read_text()
    assert chosen == ["mmmu"]  # checked, extracted and answered from one sample set
    line = "not scored: 6 (answer not published), 2 (no options and no answer)"
    assert f"micro:linear on mmmu: {line}" in caplog.messages
    none = "micro:linear on mmmu has no text bias: no sample of mmmu can be used for any condition"
    assert any(message.startswith(none) for message in caplog.messages)
    fewer = "mmmu: probes are asked of its 8 samples, not of 9 (extraction.samples)"
    assert fewer in caplog.messages
    assert "overall: none scored" in page
    assert "6 not scored: answer not published; 2 not scored: no options and no answer" in page
    folder = tmp_path / "out/micro-linear-mmmu"
    assert pd.read_csv(folder / "answers.csv").empty
    assert pd.read_csv(folder / "accuracy.csv")["total"].tolist() == [0, 6, 2]
