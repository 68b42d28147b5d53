"""The experiment that a report shows: it repeats the runs, or the page says why it does not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from keygap import strict_yaml
from keygap.reporting.again import missing_in, plan_of
from keygap.reporting.page import _template
from keygap.reporting.provenance import provenance
from keygap.reporting.run import Run
from keygap.study.experiment import Experiment, read_experiment

MANIFEST = {
    "model": "micro:linear", "revision": None, "weights": "12", "dtype": "float32",
    "device": "cpu", "prompt": {"form": "chat", "system": None, "template_arguments": {}},
    "interventions": [], "benchmark": "easy-vqa", "split": "test", "data": None, "language": "en",
    "samples": 200, "seed": 0, "layers": [0, 29], "sites": ["k_proj"], "batch_size": 8,
    "tokens": 64, "thumbnails": True, "versions": {"keygap": "0"},
}  # fmt: skip
IMAGE_TEXT = {"name": "image_text", "rung": "between"}
SETTINGS = {
    "text_roles": ["question"], "tokens_per_sample": None, "n_permutations": 20,
    "n_bootstraps": 20, "seed": 0, "contrasts": [IMAGE_TEXT],
}  # fmt: skip


def made(root: Path = Path("nowhere"), settings: Any = None, **manifest: Any) -> Run:
    table = SimpleNamespace(settings=SETTINGS | (settings or {}))
    return Run(root, MANIFEST | manifest, cast(Any, table), None, None)


def read_back(runs: list[Run], folder: Path) -> Experiment:
    path = folder / "this.yaml"
    path.write_text(strict_yaml.dump(plan_of(runs)))
    return read_experiment(path)


def shown(runs: list[Run], folder: Path) -> str:
    section = _template().environment.get_template("provenance.html")
    return section.render(provenance=provenance(runs, folder))


def test_all_samples_are_read_back_as_all(tmp_path):
    assert read_back([made(samples=None)], tmp_path).extraction.samples is None
    assert read_back([made()], tmp_path).extraction.samples == 200
    assert missing_in([made(samples=None)]) == []


def test_what_is_said_is_said_and_the_page_claims_the_same_tables(tmp_path):
    prompt = {"system": "", "template_arguments": {"enable_thinking": False}}
    runs = [made(prompt=prompt, thumbnails=False), made(model="micro:mlp", thumbnails=False)]
    found = read_back(runs, tmp_path)
    assert [one.system for one in found.models] == ["", None]
    assert found.models[0].template_arguments == {"enable_thinking": False}
    assert not found.extraction.thumbnails
    assert found.measurement.tokens_per_sample is None
    assert missing_in(runs) == []
    assert "this.yaml</code> makes the same tables again</summary>" in shown(runs, tmp_path)


def test_a_benchmark_with_captions_is_named_as_keygap_run_takes_it(tmp_path):
    runs = [made(benchmark="easy-vqa+captions")]
    assert read_back(runs, tmp_path).benchmarks[0].name == "easy-vqa"
    (line,) = missing_in(runs)
    assert line.startswith("captions in the prompts")


@pytest.mark.parametrize(
    ("other", "settings", "line"),
    [
        ({"seed": 1}, {"seed": 1}, "differ in seed: the values are those of micro:linear on easy-"),
        ({"samples": 10, "layers": [1]}, {}, "differ in samples, layers: the values"),
        ({}, {"text_roles": ["option"]}, "differ in text_roles:"),
        ({}, {"contrasts": []}, "differ in contrasts:"),
        ({"benchmark": "mmmu"}, {}, "every model on every benchmark, 4 runs: the report has only"),
        ({"model": "micro:linear", "dtype": "bfloat16"}, {}, "the model micro:linear was run with"),
        ({"interventions": [{"name": "shift"}]}, {}, "1 intervention on the model (micro:mlp on "),
        ({}, {"seed": 3}, "the seed of the measurement, 3, which is not that of the extraction"),
        ({}, {"contrasts": [IMAGE_TEXT, {"name": "mine"}]}, "contrasts of your own, "),
    ],
)
def test_what_the_experiment_cannot_say_is_listed(tmp_path, other, settings, line):
    runs = [made(), made(settings=settings, **({"model": "micro:mlp"} | other))]
    found = missing_in(runs)
    assert any(line in one for one in found), found
    page = shown(runs, tmp_path)
    assert "same tables again</summary>" not in page
    assert "makes only a part again</summary>" in page
    assert page.count("<li>") == len(found)


def test_tables_with_settings_of_their_own_are_listed(tmp_path):
    (tmp_path / "bias.csv").write_text("")
    assert "these tables: bias.csv (micro:linear on easy-vqa)" in missing_in([made(tmp_path)])[0]


def test_a_study_is_shown_beside_exactly_its_runs(tmp_path):
    study = {"models": [{"name": "micro:linear"}, {"name": "micro:mlp"}],
             "benchmarks": [{"name": "easy-vqa"}]}  # fmt: skip
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    runs = [
        made(tmp_path / "micro-linear-easy-vqa"),
        made(tmp_path / "micro-mlp-easy-vqa", model="micro:mlp"),
    ]
    assert provenance(runs, tmp_path)["command"] == "keygap run study.yaml --out DIR"
    for other in (runs[:1], [*runs, made(tmp_path / "elsewhere" / "run")]):
        found = provenance(other, tmp_path)
        assert found["command"] == "keygap run this.yaml"
        assert yaml.safe_load(found["yaml"])["name"] == "again"
