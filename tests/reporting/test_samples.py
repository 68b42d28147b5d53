"""Single samples in the report: what the run's own files say of them."""

from __future__ import annotations

import dataclasses
import html
import re
import shutil

import pandas as pd
import pytest

import keygap as kg
from keygap.bias.separation import separation
from keygap.reporting.heads import by_head, titles
from keygap.reporting.run import Run, read_run
from keygap.reporting.samples import SHOWN, samples_of
from keygap.study.experiment import read_experiment
from keygap.study.run import run_study


@pytest.fixture(scope="module")
def answered(store, table, vlm, easy_vqa, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("answered") / "run"
    shutil.copytree(store.root, folder)
    table.save(folder)
    kg.answer(vlm, easy_vqa.choose(24, seed=0), batch_size=8).save(folder)
    return read_run(folder)


def test_questions_answers_and_gaps_are_those_of_the_files(answered):
    found = samples_of(answered, None)
    assert found is not None
    answers = pd.read_csv(answered.root / "answers.csv", dtype=str).set_index("sample_id")
    samples = pd.read_parquet(answered.root / "samples.parquet").set_index("sample_id")
    store = kg.Store(answered.root)
    gaps = separation(store.vectors("k_proj", 15), ["question"])
    expected = gaps.groupby("sample_id", observed=True)["separation"].mean()
    assert len(found.rows) == SHOWN
    assert found.where == "k_proj, layer 15"
    for row in found.rows:
        assert row["question"] == samples.loc[row["id"], "question"]
        assert row["chosen"] == answers.loc[row["id"], "chosen"]
        assert row["answer"] == answers.loc[row["id"], "answer"]
        assert row["correct"] == (answers.loc[row["id"], "correct"] == "True")
        assert row["gap"] == pytest.approx(expected[row["id"]])
        assert len(row["pictures"]) == 1
        assert row["pictures"][0].startswith("data:image/webp;base64,")
    wrong = int((answers["correct"] == "False").sum())
    assert sum(row["correct"] is False for row in found.rows) == min(wrong, SHOWN // 2)


def test_attention_is_the_share_of_the_last_position(answered):
    ids = [row["id"] for row in samples_of(answered, None).rows]
    made = pd.DataFrame([
        {"sample_id": name, "layer": layer, "head": 0, "queries": queries, "modality": modality,
         "mass": mass}
        for name in ids
        for layer, image in ((0, 0.2), (1, 0.4))
        for queries in ("last", "question")
        for modality, mass in (("image", image if queries == "last" else 0.9), ("text", 0.5))
    ])  # fmt: skip
    assert [row["attention"] for row in samples_of(answered, made).rows] == [
        pytest.approx(0.3)
    ] * len(ids)


def test_tables_without_a_store_have_no_samples(answered):
    assert samples_of(dataclasses.replace(answered, store=None), None) is None


def test_files_for_papers_have_the_numbers_of_gap_csv(answered):
    kg.report(answered.root)
    folder = answered.root / "figures"
    gaps = pd.read_csv(answered.root / "gap.csv", dtype={"head": str})
    gaps = gaps[(gaps["rung"] == "between") & (gaps["head"] == "all") & gaps["confound"].isna()]
    data = pd.read_csv(folder / "ratio.csv")
    assert data["ratio"].tolist() == pytest.approx(gaps["ratio"].tolist())
    latex, markdown = ((folder / f"headline.{kind}").read_text() for kind in ("tex", "md"))
    assert "\\toprule" in latex
    for row in gaps.to_dict("records"):
        number = f"{row['ratio']:.2f} ({row['ratio_ci_low']:.2f} to {row['ratio_ci_high']:.2f})"
        assert number in latex
        assert number in markdown
    assert markdown.count("\n") == 2 + len(gaps)


def test_cells_of_heads_show_the_numbers_of_gap_csv(answered):
    page = kg.report(answered.root).read_text()
    shown = set(re.findall(r"<title>(layer \d+, head \d+: [^<]*)</title>", page))
    assert shown == set(titles(answered, "k_proj").values())
    for row in by_head(answered, "k_proj").to_dict("records"):
        assert any(
            text.startswith(f"layer {row['layer']}, head {row['head']}: {row['mmd2']:.4f} (")
            for text in shown
        )


@pytest.mark.slow
def test_the_experiment_in_a_report_makes_the_same_gap_csv(answered, tmp_path):
    """The YAML of a single run, which has no study file of its own."""
    page = html.unescape(kg.report(answered.root).read_text())
    found = re.search(r'<pre id="experiment-yaml" tabindex="0">(.*?)</pre>', page, re.DOTALL)
    assert found is not None
    (tmp_path / "again.yaml").write_text(found[1])
    run_study(read_experiment(tmp_path / "again.yaml"), tmp_path / "study")
    again = (tmp_path / "study" / "micro-linear-easy-vqa" / "gap.csv").read_bytes()
    assert again == (answered.root / "gap.csv").read_bytes()
