"""Where the report of several runs goes, and when it is the one of their study."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

import keygap as kg
from choices.simulated import choices_table
from keygap.errors import UserError
from keygap.reporting.study_folder import default_folder, is_study_of
from keygap.study.experiment import Experiment
from keygap.study.run import folders_of

STUDY = {
    "name": "mine",
    "models": [{"name": "micro:linear"}, {"name": "./check points/own"}],
    "benchmarks": [{"name": "easy-vqa"}, {"name": "jsonl:data/.own.jsonl"}],
}


def study_in(folder: Path) -> list[Path]:
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    return folders_of(Experiment.model_validate(STUDY), folder)


def test_the_runs_of_a_study_are_those_that_keygap_run_makes(tmp_path):
    roots = study_in(tmp_path / "study")
    assert len(roots) == 4
    assert is_study_of(tmp_path / "study", roots)
    assert default_folder(roots) == tmp_path / "study"
    assert not is_study_of(tmp_path / "study", roots[1:])
    assert not is_study_of(tmp_path / "study", [*roots, tmp_path / "run"])
    assert not is_study_of(tmp_path, roots)


def test_the_report_of_other_runs_needs_a_folder(tmp_path):
    one, two = study_in(tmp_path / "one"), study_in(tmp_path / "two")
    with pytest.raises(UserError, match=r"several folders, such as .*one and .*two: name"):
        default_folder([*one, *two])
    with pytest.raises(UserError, match=r"one is a study, and these are not exactly its runs"):
        default_folder(one[:2])
    assert default_folder(one[:1]) == one[0]
    assert default_folder([tmp_path / "a", tmp_path / "b"]) == tmp_path


@pytest.mark.usefixtures("not_drawn")
def test_the_report_of_a_study_is_not_replaced_by_one_on_two(two_sites, tmp_path):
    for name in ("one", "two"):
        (root,) = {path.parent / "run" for path in study_in(tmp_path / name)}
        shutil.copytree(two_sites, root)
        choices_table({"mmd": 30}).save(tmp_path / name)
    (tmp_path / "one" / "report.html").write_text("of one")
    folders = [tmp_path / name / "run" for name in ("one", "two")]
    with pytest.raises(UserError, match="the runs lie in several folders"):
        kg.report(*folders)
    assert (tmp_path / "one" / "report.html").read_text() == "of one"
    page = kg.report(*folders, out=tmp_path / "one").read_text()
    assert "What depends on analysis choices?" not in page
    assert "keygap run study.yaml" not in page
