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
from keygap.models.load import wrap
from keygap.reporting import drawing
from keygap.reporting.heads import by_head, titles
from keygap.reporting.run import Run, read_run
from keygap.reporting.samples import SHOWN, samples_of
from keygap.study.experiment import read_experiment
from keygap.study.run import run_study
from made import bench_of
from models.zoo import BY_FAMILY

from .conftest import MODEL, SITES
from .explored import pictured


@pytest.fixture(scope="module")
def answered(two_sites, tmp_path_factory) -> Run:
    """A run whose model is right about every third sample, where its own answer counts as right."""
    folder = tmp_path_factory.mktemp("answered") / "run"
    shutil.copytree(two_sites, folder)
    vlm = wrap(*BY_FAMILY["qwen2_vl"].build(), name=MODEL)
    samples = [pictured(number) for number in range(24)]
    said = kg.answer(vlm, bench_of(samples)).frame.set_index("sample_id")["chosen"]
    samples[::3] = [dataclasses.replace(one, answer=said[one.id]) for one in samples[::3]]
    kg.answer(vlm, bench_of(samples)).save(folder)
    return read_run(folder)


@pytest.fixture(scope="module")
def page(answered) -> str:
    with pytest.MonkeyPatch.context() as patch:
        drawn = drawing.saved

        def heads_only(figure, root, name):
            return drawn(figure, root, name) if name.startswith("heads") else ""

        patch.setattr(drawing, "saved", heads_only)
        return kg.report(answered.root).read_text()


def test_questions_answers_and_gaps_are_those_of_the_files(answered):
    found = samples_of(answered, None)
    assert found is not None
    answers = pd.read_csv(answered.root / "answers.csv", dtype=str).set_index("sample_id")
    samples = pd.read_parquet(answered.root / "samples.parquet").set_index("sample_id")
    store = kg.Store(answered.root)
    site, layer = re.fullmatch(r"(\w+), layer (\d)", found.where).groups()
    gaps = separation(store.vectors(site, int(layer)), ["question"])
    expected = gaps.groupby("sample_id", observed=True)["separation"].mean()
    assert len(found.rows) == SHOWN
    for row in found.rows:
        assert row["question"] == samples.loc[row["id"], "question"]
        assert row["chosen"] == answers.loc[row["id"], "chosen"]
        assert row["answer"] == samples.loc[row["id"], "answer"]
        assert row["correct"] == (answers.loc[row["id"], "correct"] == "True")
        assert row["gap"] == pytest.approx(expected[row["id"]])
        assert len(row["pictures"]) == 1
        assert row["pictures"][0].startswith("data:image/webp;base64,")
    wrong = int((answers["correct"] == "False").sum())
    assert wrong == 16
    assert sum(row["correct"] is False for row in found.rows) == min(wrong, SHOWN // 2)


def test_the_caption_says_how_many_samples_were_answered_wrongly(page):
    assert "Half of them were answered wrongly, if there are that many." in page


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


@pytest.mark.usefixtures("page")
def test_files_for_papers_have_the_numbers_of_gap_csv(answered):
    folder = answered.root / "figures"
    gaps = pd.read_csv(answered.root / "gap.csv", dtype={"head": str})
    gaps = gaps[(gaps["rung"] == "between") & (gaps["head"] == "all") & gaps["confound"].isna()]
    data = pd.read_csv(folder / "ratio.csv")
    both = data.merge(gaps, on=["site", "layer", "contrast"], suffixes=("", "_of"))
    assert len(both) == len(data) == len(gaps) == 4
    assert both["ratio"].tolist() == pytest.approx(both["ratio_of"].tolist())
    latex, markdown = ((folder / f"headline.{kind}").read_text() for kind in ("tex", "md"))
    assert "\\toprule" in latex
    for row in gaps.to_dict("records"):
        number = f"{row['ratio']:.2f} ({row['ratio_ci_low']:.2f} to {row['ratio_ci_high']:.2f})"
        assert number in latex
        assert number in markdown
    assert markdown.count("\n") == 2 + len(gaps)


def test_cells_of_heads_show_the_numbers_of_gap_csv(answered, page):
    shown = set(re.findall(r"<title>(layer \d+, head \d+: [^<]*)</title>", page))
    assert shown == {text for site in SITES for text in titles(answered, site).values()}
    for row in pd.concat([by_head(answered, site) for site in SITES]).to_dict("records"):
        assert any(
            text.startswith(f"layer {row['layer']}, head {row['head']}: {row['mmd2']:.4f} (")
            for text in shown
        )


@pytest.mark.slow
@pytest.mark.usefixtures("not_drawn")
def test_the_experiment_in_a_report_makes_the_same_gap_csv(store, table, tmp_path):
    """The YAML of a single run, which has no study file of its own."""
    shutil.copytree(store.root, tmp_path / "run")
    table.save(tmp_path / "run")
    page = html.unescape(kg.report(tmp_path / "run").read_text())
    found = re.search(r'<pre id="experiment-yaml" tabindex="0">(.*?)</pre>', page, re.DOTALL)
    assert found is not None
    (tmp_path / "again.yaml").write_text(found[1])
    run_study(read_experiment(tmp_path / "again.yaml"), tmp_path / "study")
    again = (tmp_path / "study" / "micro-linear-easy-vqa" / "gap.csv").read_bytes()
    assert again == (tmp_path / "run" / "gap.csv").read_bytes()
