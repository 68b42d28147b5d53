"""The report: one file that needs nothing else, and no text that acts."""

from __future__ import annotations

import html
import json
import re
import shutil

import pandas as pd
import pytest

import keygap as kg
from keygap.errors import UserError
from keygap.reporting import read_run
from keygap.reporting.page import definitions, fixed


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


def first_table(page: str) -> tuple[list[str], list[list[str]]]:
    """The headings and cells of "The gap and its ladder"."""
    part = page[page.index("The gap and its ladder") :]
    rows = part[: part.index("</table>")].split("<tr")[1:]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    return cells[0], cells[1:]


def test_the_ladder_comes_before_the_halves_and_what_is_not_there_is_blank(run_folder):
    headings, rows = first_table(kg.report(run_folder).read_text())
    assert headings.index("ratio") < headings.index("95 % interval")
    assert headings.index("95 % interval") < headings.index("halves by sample")
    assert len(rows) == 4
    frame = pd.read_csv(run_folder / "gap.csv", dtype={"head": str})
    frame = frame[frame["rung"] != "same"]
    frame.loc[0, "mmd2"] = -0.00001
    frame.to_csv(run_folder / "gap.csv", index=False)
    page = kg.report(run_folder).read_text()
    assert all(row[-2:] == ["", ""] for row in first_table(page)[1])
    assert "nan" not in re.sub(r'src="data:[^"]*"', "", page)
    assert "-0.0000" not in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(-0.00001, "0.0000"), (-0.0002, "-0.0002"), (None, ""), (float("nan"), ""), (1.5, "1.5000")],
)
def test_numbers_in_the_page(value, text):
    assert fixed(value, 4) == text


def test_definitions_are_those_that_the_run_recorded(run_folder):
    page = html.unescape(kg.report(run_folder).read_text())
    assert "<dt>verbs</dt><dd>modality text; role question; token is, are, against" in page
    assert "<dt>image_text</dt><dd>image tokens, text of the chosen roles (between)</dd>" in page
    assert "<dd>text is question; at most 64 tokens of a sample on each side; 20 label" in page
    (run_folder / "measurement.yaml").unlink()
    with pytest.raises(UserError, match=r"does not say how it was measured.*run keygap measure"):
        kg.report(run_folder)


def test_one_name_with_two_meanings_says_which_is_whose(two_sites, run_folder):
    path = run_folder / "measurement.yaml"
    path.write_text(path.read_text().replace("token is, are", "token was"))
    runs = [read_run(two_sites), read_run(run_folder)]
    verbs = [item for item in definitions(runs) if item["name"] == "verbs"]
    assert ["token was" in item["what"] for item in verbs] == [False, True]
    assert all(item["where"] == "micro:linear on easy-vqa" for item in verbs)
    assert not any(item["where"] for item in definitions(runs) if item["name"] == "image_text")


def test_one_word_is_no_rung_in_the_page(run_folder):
    frame = pd.read_csv(run_folder / "gap.csv", dtype={"head": str})
    frame = frame[frame["rung"] != "single"]
    frame.loc[frame["contrast"] == "verbs", "rung"] = "single"
    frame.to_csv(run_folder / "gap.csv", index=False)
    page = kg.report(run_folder).read_text()
    assert page.count('<tr class="single">') == 4
    assert '<td class="name">verbs, one word</td>' in page
    assert "in part one word against the rest: large by construction, not a reference)" in page
    assert "<p>One word against the rest: large by construction, not a reference.</p>" in page


def test_runs_of_different_sites_share_a_report(two_sites, tmp_path):
    for folder, site in (("k", "k_proj"), ("q", "key")):
        shutil.copytree(two_sites, tmp_path / folder)
        for name in ("gap.csv", "jsd.csv", "shape.csv", "dimensions.csv"):
            table = pd.read_csv(tmp_path / folder / name)
            table[table["site"] == site].to_csv(tmp_path / folder / name, index=False)
    path = kg.report(tmp_path / "k", tmp_path / "q", out=tmp_path / "out")
    assert path == tmp_path / "out" / "report.html"
    drawn = {figure.stem for figure in (tmp_path / "out" / "figures").glob("*.png")}
    assert drawn == {"ladder-k_proj", "ladder-key", "tsne-k_proj", "tsne-key"}


def test_a_run_with_nothing_measured_has_a_report_that_says_why(store, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(store.root, folder)
    kg.measure(kg.Store(folder), contrasts=["image_sink"], layers=[0]).save(folder)
    page = kg.report(folder).read_text()
    assert "no image_sink: no image token receives 5 times" in page
    assert first_table(page)[1] == []


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
