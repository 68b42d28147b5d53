"""A study chooses its samples once, and continues if they cannot be scored."""

from __future__ import annotations

import logging

import pandas as pd
import pytest

from benchmarks import fixtures
from keygap.benchmarks import Benchmark
from keygap.study.experiment import Experiment
from keygap.study.run import run_study


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
    assert "overall: none scored" in page
    assert "6 not scored: answer not published; 2 not scored: no options and no answer" in page
    folder = tmp_path / "out/micro-linear-mmmu"
    assert pd.read_csv(folder / "answers.csv").empty
    assert pd.read_csv(folder / "accuracy.csv")["total"].tolist() == [0, 6, 2]
