"""``keygap choices``: from a run folder to the files, and one row again."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

import keygap as kg
from keygap.choices.tables import FILES, read_choices
from test_cli import keygap

FEW = ("--tokens", "100", "--estimators", "gaussian_median,energy", "--spaces", "raw,pca_50")


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("choices") / "run"
    shutil.copytree(store.root, folder)
    return folder


def test_a_run_gets_its_table_and_a_row_is_computed_again(run, monkeypatch, capsys):
    status, said, _ = keygap(monkeypatch, capsys, "choices", run, *FEW)
    assert status == 0
    assert "separated" in said
    assert all((run / name).is_file() for name in FILES)
    table = read_choices(run)
    assert f"{len(table.frame)} choices" in said
    row = table.frame[(table.frame["heads"] == "mean") & (table.frame["scale"] == "mmd2")].iloc[0]
    status, said, _ = keygap(monkeypatch, capsys, "choices", run, "--row", row["row"])
    assert status == 0
    shown = dict(line.split(maxsplit=1) for line in said.splitlines() if line.startswith("cross "))
    first, second = map(float, shown["cross"].split())
    assert first == pytest.approx(second, abs=1e-6)
    assert "gap.mmd(" in said


def test_json_has_the_statements_and_both_numbers_of_a_row(run, monkeypatch, capsys):
    status, said, _ = keygap(monkeypatch, capsys, "choices", run, *FEW, "--json")
    assert status == 0
    found = json.loads(said)
    saved = pd.read_csv(run / "choices_statements.csv")
    assert [row["share"] for row in found["rows"]] == pytest.approx(saved["share"].tolist())
    row = found["next"].split()[-1]
    _, said, _ = keygap(monkeypatch, capsys, "choices", run, "--row", row, "--json")
    again = json.loads(said)
    assert again["row"]["cross"] == pytest.approx(again["directly"]["cross"])


def test_a_row_that_does_not_exist_is_one_line(run, monkeypatch, capsys):
    keygap(monkeypatch, capsys, "choices", run, *FEW, "--layers", "first")
    status, _, said = keygap(monkeypatch, capsys, "choices", run, "--row", "0000000000")
    assert status == 2
    assert "no row '0000000000'" in said


def test_a_damaged_run_and_no_folder_are_one_line(run, tmp_path, monkeypatch, capsys):
    """A layer that is not asked for is damaged, too: nothing is computed before that is known."""
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    part = sorted((broken / "vectors" / "site=k_proj").rglob("*.parquet"))[-1]
    part.write_bytes(part.read_bytes()[:-100])
    for folder, what in ((broken, part.name), ("", "DIR is empty: name a folder")):
        status, _, said = keygap(monkeypatch, capsys, "choices", folder, *FEW, "--layers", "first")
        assert status == 2
        assert what in said


@pytest.mark.slow
def test_two_models_of_real_weights_are_in_an_order(store, vlm, easy_vqa, tmp_path):
    """The public function over two stores, and the files of both in one folder."""
    other = kg.load("micro:mlp")
    second = kg.extract(other, easy_vqa, tmp_path / "mlp", layers=["first"], samples=24)
    plan = kg.choices.Plan(tokens=[100], estimators=["gaussian_grid"], layers=["first"])
    table = kg.specifications(store, second, plan=plan)
    order = table.statements[table.statements["statement"] == "order"]
    assert list(order["model"]) == ["micro:linear > micro:mlp"]
    table.save(tmp_path / "both")
    read = read_choices(tmp_path / "both").frame
    pd.testing.assert_frame_equal(read, table.frame[list(read)])
