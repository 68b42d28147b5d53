"""The report: one file that needs nothing else, and no text that acts."""

from __future__ import annotations

import json
import re
import shutil

import pandas as pd
import pytest

import keygap as kg
from keygap.errors import UserError


@pytest.fixture(scope="module")
def measured(store, table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(store.root, folder)
    table.save(folder)
    kg.project(kg.Store(folder), tokens=200).save(folder)
    return folder


def test_the_report_stands_alone(measured):
    page = kg.report(measured).read_text()
    assert page.count('<img src="data:image/png;base64,') >= 4
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    for name in (
        "ladder-k_proj",
        "tsne-k_proj",
        "gap-by-layer-k_proj",
        "heads-k_proj",
        "shape-k_proj",
    ):
        assert (measured / "figures" / f"{name}.svg").stat().st_size > 1000
    assert "What kind of gap: image against text at k_proj" in page
    assert "null 0.6" in page  # the histogram's, saturated


def test_a_run_measured_by_another_version_says_what_to_do(measured, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(measured, folder)
    frame = pd.read_csv(folder / "gap.csv").drop(columns="mmd2_null_low")
    frame.to_csv(folder / "gap.csv", index=False)
    with pytest.raises(UserError, match=r"no column mmd2_null_low.*run keygap measure"):
        kg.report(folder)


def test_hostile_text_is_shown_and_not_run(measured, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(measured, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["failures"] = {"<script>alert(1)</script>": "<img src=x onerror=alert(1)>"}
    manifest["n_failed"] = 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    page = kg.report(folder).read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page


def test_several_runs_share_one_report(measured, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        shutil.copytree(measured, folder)
    path = kg.report(*folders)
    assert path == tmp_path / "report.html"
    assert path.read_text().count("<h2>micro:linear") == 2


def test_a_run_that_was_not_measured_says_what_to_do(store, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(store.root, folder, ignore=shutil.ignore_patterns("gap.csv"))
    with pytest.raises(UserError, match="was not measured: run keygap measure"):
        kg.report(folder)
