"""Experiment files are validated, and the error for an unknown key names the nearest known one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import fixtures
from keygap.benchmarks import benchmark
from keygap.errors import UserError
from keygap.store.run import run_folder_name
from keygap.study.experiment import read_experiment
from keygap.study.run import run_study
from made import files_of

GOOD = """
name: mine
models: [{name: micro:linear}]
benchmarks: [{name: easy-vqa}]
"""


def test_every_experiment_of_the_repository_is_valid():
    files = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))
    assert files
    for path in files:
        read_experiment(path)


def test_defaults_are_filled_in(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    experiment = read_experiment(path)
    assert experiment.extraction.samples == 200
    assert experiment.extraction.layers == ["first", "middle", "last"]
    assert experiment.extraction.thumbnails
    path.write_text(GOOD + "extraction: {thumbnails: false}\n")
    assert not read_experiment(path).extraction.thumbnails


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (GOOD + "sede: 1\n", "unknown key 'sede'; did you mean 'seed'"),
        (GOOD + "picture: {tokens: 50}\n", "the key 'picture' is now 'projection': rename it"),
        (GOOD + "projection: {tokns: 5}\n", "unknown key 'tokns'; did you mean 'tokens'"),
        (GOOD + "extraction: {smaples: 5}\n", "unknown key 'smaples'; did you mean 'samples'"),
        (
            GOOD.replace("{name: micro", "{nam: micro"),
            "unknown key 'nam'; did you mean 'name'? known: name, dtype",
        ),
        (GOOD + "seed: many\n", "seed: Input should be a valid integer"),
        (
            GOOD + "measurement: {contrasts: [{name: x, a: {modalty: text}, b: {}}]}\n",
            "unknown key 'modalty'; did you mean 'modality'",
        ),
        (GOOD + "seed: -1\n", "seed: Input should be greater than or equal to 0"),
        (
            GOOD + "measurement: {text_roles: [question, options]}\n",
            "measurement.text_roles: unknown role 'options'; did you mean 'option'",
        ),
        (GOOD + "measurement: {text_roles: []}\n", "text_roles: no role: choose among system"),
        (
            GOOD + "measurement: {contrasts: [{name: x, a: {role: [anser]}, b: {}}]}\n",
            "a.role: unknown role 'anser'; did you mean 'answer'",
        ),
        (
            GOOD + "measurement: {contrasts: [image_txt]}\n",
            "unknown contrast 'image_txt'; did you mean 'image_text'",
        ),
        (
            GOOD + "measurement: {contrasts: [image_text, text_text, image_text]}\n",
            "contrasts: the contrast 'image_text' is listed 2 times: name each once",
        ),
        (
            GOOD + "measurement: {contrasts: [{name: x, a: {}, b: {}}, {name: x, a: {}, b: {}}]}\n",
            "the contrast 'x' is listed 2 times",
        ),
        ("- a\n- b\n", "it must be a mapping of keys to values"),
        ("name: [", "is not valid YAML"),
    ],
)
def test_a_mistake_is_explained_in_one_line(tmp_path, text, line):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_experiment(path)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_the_engine_decides_nothing_of_a_study(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    plain = read_experiment(path)
    assert plain.engine.options() == {"engine": "local", "workers": None, "gpus_per_worker": None}
    path.write_text(GOOD + "engine: {name: ray, workers: 2}\n")
    there = read_experiment(path)
    assert there.engine.options() == {"engine": "ray", "workers": 2, "gpus_per_worker": None}
    assert there.asked() == plain.asked()
    assert "engine" not in there.asked()
    assert there.on({"workers": 3}).engine.options()["workers"] == 3
    assert plain.on({"name": "ray"}).engine.name == "ray"
    with pytest.raises(UserError) as error:
        plain.on({"workers": 3})
    assert str(error.value).startswith("workers is 3, and the engine is local")


def test_a_batch_size_that_is_found_is_the_study_of_the_one_with_which_it_begins(tmp_path):
    path = tmp_path / "mine.yaml"
    asked = []
    for size in ("8", "auto", "4"):
        path.write_text(GOOD + f"extraction: {{batch_size: {size}}}\n")
        asked.append(read_experiment(path).asked())
    path.write_text(GOOD)
    assert read_experiment(path).extraction.batch_size == "auto"
    assert read_experiment(path).asked() == asked[0] == asked[1] != asked[2]
    path.write_text(GOOD + "extraction: {batch_size: many}\n")
    with pytest.raises(UserError, match="batch_size"):
        read_experiment(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no experiment file at"):
        read_experiment(tmp_path / "none.yaml")


def test_a_folder_with_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.yaml").write_text(GOOD)
    with pytest.raises(UserError, match=r"holds something else \(mine.yaml\)"):
        run_study(read_experiment(tmp_path / "mine.yaml"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_a_folder_with_another_study_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text(GOOD)
    out = tmp_path / "out"
    out.mkdir()
    (out / "study.yaml").write_text("name: other\n")
    with pytest.raises(UserError, match="holds another study: name another folder with --out"):
        run_study(read_experiment(tmp_path / "mine.yaml"), out)


def test_the_choices_of_a_study_belong_to_it(tmp_path):
    (tmp_path / "mine.yaml").write_text(GOOD)
    out = tmp_path / "out"
    out.mkdir()
    for name in (".parquet", "_statements.csv", "_variance.csv", ".yaml"):
        (out / f"choices{name}").write_text("")
    (out / "study.yaml").write_text("name: other\n")
    with pytest.raises(UserError, match="holds another study"):  # and not something else
        run_study(read_experiment(tmp_path / "mine.yaml"), out)


def test_a_study_of_an_earlier_version_is_refused_in_one_line(tmp_path):
    (tmp_path / "mine.yaml").write_text(GOOD)
    out = tmp_path / "out"
    out.mkdir()
    (out / "experiment.yaml").write_text("name: mine\npicture: {tokens: 1000}\n")
    before = files_of(out)
    with pytest.raises(UserError, match=r"an earlier version .*experiment.yaml, not study.yaml"):
        run_study(read_experiment(tmp_path / "mine.yaml"), out)
    assert files_of(out) == before


def test_paths_of_data_are_relative_to_the_experiment_file(tmp_path, monkeypatch):
    files = tmp_path / "mine" / "files"
    files.mkdir(parents=True)
    (files / "own.jsonl").write_text("")
    path = tmp_path / "mine" / "mine.yaml"
    named = "[{name: mmmu, data: files}, {name: 'jsonl:files/own.jsonl'}]"
    path.write_text(GOOD.replace("[{name: easy-vqa}]", named))
    for place in (tmp_path, tmp_path / "mine"):
        monkeypatch.chdir(place)
        first, second = read_experiment(os.path.relpath(path)).benchmarks
        assert first.data == str(files)
        # what the user wrote stays the name; the file is found from wherever the study is run
        assert (second.name, second.data) == ("jsonl:files/own.jsonl", str(files / "own.jsonl"))
        bench = benchmark(**second.model_dump())
        assert (bench.name, bench.index()) == (second.name, [])


@pytest.mark.parametrize("bench", ["{name: mmmu, data: none}", "{name: 'folder:none'}"])
def test_missing_data_are_explained_in_one_line(tmp_path, bench):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace("{name: easy-vqa}", bench))
    with pytest.raises(UserError, match=rf"no data at {tmp_path}/none: a path is relative"):
        read_experiment(path)


def test_one_model_and_benchmark_twice_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace("[{name: easy-vqa}]", "[{name: easy-vqa}, {name: easy-vqa}]"))
    with pytest.raises(UserError, match="would share the folder micro-linear-easy-vqa"):
        run_study(read_experiment(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_question_inside_the_image_is_refused_before_the_model_is_loaded(tmp_path):
    fixtures.write_all(tmp_path)
    path = tmp_path / "mine.yaml"
    bench = f"{{name: mmmu-pro-vision, data: {tmp_path / 'mmmu-pro'}}}"
    path.write_text(GOOD.replace("{name: easy-vqa}", bench).replace("micro:linear", "none/such"))
    line = "mmmu-pro-vision have no text of role question, only of template: choose among these"
    with pytest.raises(UserError, match=line):
        run_study(read_experiment(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("{source: x, values: []}", "published.values: "),
        ("{source: x, values: [{kind: both, what: x, value: 1}]}", "published.values.0.kind: "),
        ("{source: x, valeus: []}", "unknown key 'valeus'; did you mean 'values'"),
    ],
)
def test_published_numbers_are_checked(tmp_path, section, line):
    path = tmp_path / "mine.yaml"
    path.write_text(f"{GOOD}published: {section}\n")
    with pytest.raises(UserError) as error:
        read_experiment(path)
    assert line in str(error.value)


@pytest.mark.parametrize("model", ["org/model", "../../etc", "/abs/path", "micro:linear"])
def test_a_run_folder_never_leaves_its_parent(model):
    name = run_folder_name(model, "easy-vqa")
    assert "/" not in name
    assert not name.startswith(".")
