"""Probes, attention and the link of one run, from the model to the files."""

from __future__ import annotations

import errno
import shutil
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

import keygap as kg
from keygap.bias import PROBES
from keygap.errors import UserError
from keygap.store.files import explained
from keygap.study import bias
from keygap.study.experiment import Experiment
from made import SAMPLES, files_of

HINT = {"phrasings": ["Hint: the answer is {answer}."], "positions": ["after"]}
FILES = {
    "bias.csv", "bias_differences.csv", "bias_samples.parquet", "bias.yaml",
    "attention.parquet", "attention_indices.csv", "link.csv",
}  # fmt: skip


@pytest.mark.slow
def test_a_run_is_probed_to_the_end_and_continued(
    vlm, easy_vqa, store, tmp_path, monkeypatch, caplog
):
    folder = tmp_path / "run"
    shutil.copytree(store.root, folder)
    before = set(files_of(folder))
    arguments: dict[str, Any] = {
        "attention": True,
        "batch_size": 8,
        "n_bootstraps": 20,
        "resume": True,
    }
    asked, probes = easy_vqa.choose(SAMPLES), [PROBES["hint"](**HINT)]
    with caplog.at_level("INFO", logger="keygap"):
        table = bias.bias_of_run(vlm, asked, folder, probes, store=kg.Store(folder), **arguments)
    assert set(files_of(folder)) - before == FILES
    for name in (
        "separation -> similarity: ",
        "similarity -> attention: ",
        "attention -> answer: ",
    ):
        assert name in caplog.text
    link = pd.read_csv(folder / "link.csv")
    of_keys = link["link"] == "separation -> similarity"
    assert set(link["layer"][of_keys]) == {0, 15, 29}  # those of the store
    assert set(link["layer"]) == set(range(30))
    assert (link["n_samples"] == SAMPLES).all()
    attention = pd.read_parquet(folder / "attention.parquet")
    assert attention["layer"].nunique() == 30
    assert attention["sample_id"].nunique() == SAMPLES

    def refused(*arguments, **keywords):
        raise AssertionError("what is whole is not computed again")

    for name in ("probe", "measure_attention", "link", "attention_indices"):
        monkeypatch.setattr(bias, name, refused)
    again = bias.bias_of_run(vlm, asked, folder, probes, store=kg.Store(folder), **arguments)
    pd.testing.assert_frame_equal(again.summary(), table.summary())


def test_a_run_of_another_model_is_refused(vlm, easy_vqa, tmp_path):
    other: Any = SimpleNamespace(manifest={"model": "micro:mlp"})
    with pytest.raises(UserError, match="is a run of micro:mlp and not of micro:linear"):
        bias.bias_of_run(
            vlm, easy_vqa.choose(2), tmp_path, [PROBES["absent"]()],
            attention=False, batch_size=2, n_bootstraps=2, store=other,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_attention_that_cannot_be_measured_does_not_stop_a_study(
    vlm, easy_vqa, tmp_path, monkeypatch, caplog
):
    def unreadable(*arguments, **keywords):
        raise UserError("its attention cannot be read")

    monkeypatch.setattr(bias, "measure_attention", unreadable)
    with caplog.at_level("INFO", logger="keygap"):
        bias.bias_of_run(
            vlm, easy_vqa.choose(2), tmp_path, [PROBES["absent"]()],
            attention=True, batch_size=2, n_bootstraps=2,
        )  # fmt: skip
    assert "not measured: its attention cannot be read" in caplog.text
    assert {name for name in files_of(tmp_path) if "bias" in name} == {
        name for name in FILES if "bias" in name
    }


def test_a_disk_that_fills_while_attention_is_saved_stops_a_study(tmp_path, monkeypatch):
    """It is no reason to go on without it."""
    full = explained(OSError(errno.ENOSPC, "No space left on device"), tmp_path / "x")

    def save(folder):
        raise full

    vlm: Any = SimpleNamespace(name="made")
    asked: Any = SimpleNamespace(name="made")
    probed = SimpleNamespace(
        save=lambda folder: None, notes=(), settings={"seed": 0, "n_bootstraps": 2}
    )
    monkeypatch.setattr(bias, "probe", lambda *_, **__: probed)
    measured = SimpleNamespace(save=save)
    monkeypatch.setattr(bias, "measure_attention", lambda *_, **__: measured)
    with pytest.raises(UserError, match="is full: free some space"):
        bias.bias_of_run(vlm, asked, tmp_path, [], attention=True, batch_size=2, n_bootstraps=2)


@pytest.mark.parametrize(
    ("probes", "said"),
    [
        ({"hin": {}}, "did you mean 'hint'"),
        ({"hint": {"position": ["after"]}}, "did you mean 'positions'"),
        ({"hint": {"positions": ["above"]}}, "unknown position"),
        ({}, "no probe"),
    ],
)
def test_a_mistake_in_an_experiment_is_found_before_a_model_is_loaded(probes, said):
    values = {
        "name": "x",
        "models": [{"name": "micro:linear"}],
        "benchmarks": [{"name": "easy-vqa"}],
        "bias": {"probes": probes},
    }
    with pytest.raises(ValueError, match=said):
        Experiment.model_validate(values)
