"""Experiment files: validated, and an unknown key names the nearest known one."""

from __future__ import annotations

from pathlib import Path

import pytest

from keygap.errors import UserError
from keygap.experiment import read_experiment
from keygap.study import folder_name, run_study

GOOD = """
name: mine
models: [{name: micro:linear}]
benchmarks: [{name: easy-vqa}]
"""


def test_every_experiment_of_the_repository_is_valid():
    files = sorted((Path(__file__).parents[1] / "experiments").glob("*.yaml"))
    assert files
    for path in files:
        read_experiment(path)


def test_defaults_are_filled_in(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    experiment = read_experiment(path)
    assert experiment.extraction.samples == 200
    assert experiment.extraction.layers == ["first", "middle", "last"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (GOOD + "sede: 1\n", "unknown key 'sede'; did you mean 'seed'"),
        (GOOD + "extraction: {smaples: 5}\n", "unknown key 'smaples'; did you mean 'samples'"),
        (GOOD.replace("{name: micro", "{nam: micro"), "name"),
        (GOOD + "seed: many\n", "seed: Input should be a valid integer"),
        (
            GOOD + "measurement: {contrasts: [{name: x, a: {modalty: text}, b: {}}]}\n",
            "measurement.contrasts.0",
        ),
        ("- a\n- b\n", "it must be keys and values"),
        ("name: [", "is no YAML"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, text, line):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_experiment(path)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


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
    (out / "experiment.yaml").write_text("name: other\n")
    with pytest.raises(UserError, match="holds another experiment"):
        run_study(read_experiment(tmp_path / "mine.yaml"), out)


@pytest.mark.parametrize("model", ["org/model", "../../etc", "/abs/path", "micro:linear"])
def test_a_run_folder_never_leaves_its_parent(model):
    name = folder_name(model, "easy-vqa")
    assert "/" not in name
    assert not name.startswith(".")
