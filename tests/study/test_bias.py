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
from keygap.store.checksums import read_checksums
from keygap.store.files import explained
from keygap.store.results import record_results, save_results
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
    (tmp_path / "manifest.json").write_text('{"model": "micro:mlp", "benchmark": "easy-vqa"}')
    with pytest.raises(UserError, match="results of the model micro:mlp and not of micro:linear"):
        bias.bias_of_run(
            vlm, easy_vqa.choose(2), tmp_path, [PROBES["absent"]()],
            attention=False, batch_size=2, n_bootstraps=2,
        )  # fmt: skip
    assert list(files_of(tmp_path)) == ["manifest.json"]


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


ABSENT: dict[str, Any] = {"attention": False, "batch_size": 2, "n_bootstraps": 2}


def test_what_was_computed_from_former_answers_is_removed(vlm, easy_vqa, tmp_path):
    """Otherwise one report shows new answers and old attention."""
    names = ("attention.parquet", "attention_indices.csv", "link.csv", "gap.csv")
    record_results(tmp_path, dict.fromkeys(names, "old"), begin=True)
    bias.bias_of_run(vlm, easy_vqa.choose(2), tmp_path, [PROBES["absent"]()], **ABSENT)
    left = {"gap.csv", "checksums.sha256", *(name for name in FILES if "bias" in name)}
    assert set(files_of(tmp_path)) == left
    assert set(read_checksums(tmp_path)) == left - {"checksums.sha256"}


def test_answers_stay_where_their_attention_cannot_be_linked(vlm, easy_vqa, tmp_path, monkeypatch):
    """A link of former attention would be one between two experiments."""

    def unlinked(*arguments, **keywords):
        raise UserError("there is nothing to link")

    asked, probes = easy_vqa.choose(2), [PROBES["absent"]()]
    bias.bias_of_run(vlm, asked, tmp_path, probes, **ABSENT)
    save_results(tmp_path, {"link.csv": "old"})
    arguments: Any = {**ABSENT, "attention": True, "resume": True, "store": object()}
    monkeypatch.setattr(bias, "probe", None)  # the answers are not asked for again
    monkeypatch.setattr(bias, "link", unlinked)
    bias.bias_of_run(vlm, asked, tmp_path, probes, **arguments)
    assert {"attention.parquet", "attention_indices.csv"} <= set(files_of(tmp_path))
    assert "link.csv" not in files_of(tmp_path)


@pytest.mark.parametrize(
    ("probes", "samples", "asks"),
    [
        ([PROBES["noise"](levels=[1.0])], 2, False),
        ([PROBES["noise"](levels=[0.5])], 2, True),
        ([PROBES["noise"](levels=[1.0])], 3, True),
        ([PROBES["absent"]()], 2, True),
    ],
)
def test_a_study_keeps_only_the_answers_to_what_it_asks(
    vlm, easy_vqa, tmp_path, monkeypatch, probes, samples, asks
):
    first = [PROBES["noise"](levels=[1.0])]
    bias.bias_of_run(vlm, easy_vqa.choose(2), tmp_path, first, **ABSENT)
    calls = []

    def counted(*arguments, **keywords):
        calls.append(1)
        return kg.probe(*arguments, **keywords)

    monkeypatch.setattr(bias, "probe", counted)
    chosen = easy_vqa.choose(samples)
    table = bias.bias_of_run(vlm, chosen, tmp_path, probes, **ABSENT, resume=True)
    assert bool(calls) == asks
    assert table.settings["samples"] == samples
    assert set(table.settings["probes"]) == {each.name for each in probes}


def test_a_study_does_not_keep_answers_to_as_many_other_questions(vlm, easy_vqa, tmp_path):
    probes = [PROBES["absent"]()]
    first, other = easy_vqa.choose(2), easy_vqa.choose(2, 0, ["shape"])
    bias.bias_of_run(vlm, first, tmp_path, probes, **ABSENT)
    table = bias.bias_of_run(vlm, other, tmp_path, probes, **ABSENT, resume=True)
    assert set(table.samples["sample_id"]) == {entry.id for entry in other.entries}


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
