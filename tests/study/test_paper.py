"""The paper's whole study, with the embedded models on small files in the publishers' formats."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import keygap as kg
from benchmarks import study_files
from keygap.benchmarks import BadSample, as_rgb, benchmark
from keygap.cli import app
from keygap.errors import UserError
from keygap.reporting.page import fixed
from keygap.store import Store
from keygap.study.experiment import Experiment, read_experiment
from keygap.study.run import folders_of, run_study, runs_in

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
BENCHES = ("mmmu-pro", "mmmu", "mmbench-cn")
# by benchmark: the bad row, its reason, and how many questions of 24 are answered
BAD = {
    "mmmu-pro": ("test_Physics_23", "the answer 'K' is not among the options", 23),
    "mmmu": ("validation_Art_99", "missing image: the text shows <image 2>", 23),
    "mmbench-cn": ("1023", "broken base64", 23),
}


def small(experiment: Experiment) -> Experiment:
    """The same study with a model, two benchmarks, the first layer and the paper's contrasts.

    It is without ``choices``, which tests/choices looks at.
    """
    return experiment.model_copy(
        update={
            "models": experiment.models[:1],
            "benchmarks": experiment.benchmarks[1:],
            "extraction": experiment.extraction.model_copy(update={"layers": ["first"]}),
            "measurement": experiment.measurement.model_copy(
                update={
                    "contrasts": ["image_text", "image_image", "text_text"],
                    "tokens_per_sample": 8,
                    "n_permutations": 50,
                    "n_bootstraps": 50,
                }
            ),
            "projection": experiment.projection.model_copy(update={"tokens": 60}),
            "choices": None,
        }
    )


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return small(read_experiment(EXPERIMENTS / "paper-micro.yaml"))


@pytest.fixture(scope="module")
def study(experiment, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("studies") / "paper-micro"
    run_study(experiment, out)
    return out


def check(out: Path, experiment: Experiment, layers: dict[str, list[int]]) -> None:
    """What every run of the study has, whatever its layers and contrasts."""
    models = [model.name for model in experiment.models]
    table = pd.read_csv(out / "gap.csv", dtype={"head": str})
    main = table[table["confound"].isna()]
    for folder in folders_of(experiment, out):
        manifest = Store(folder).manifest
        name, why, scored = BAD[manifest["benchmark"]]
        failed = Store(folder).samples.dropna(subset="failure").set_index("sample_id")["failure"]
        assert list(failed.index) == [name]
        assert why in failed[name]
        assert (manifest["n_samples"], manifest["n_failed"]) == (23, 1)
        assert manifest["failures"] == failed.to_dict()
        answers = pd.read_csv(folder / "answers.csv")
        accuracy = pd.read_csv(folder / "accuracy.csv").set_index("rule")
        assert accuracy.index[0] == "overall"
        assert len(answers) == accuracy["total"]["overall"] == scored
        assert accuracy["accuracy"]["overall"] == pytest.approx(answers["correct"].mean())
        assert accuracy["total"]["not scored: bad sample"] == 1
        here = main[(main["model"] == manifest["model"])]
        here = here[here["benchmark"] == manifest["benchmark"]]
        assert sorted(here["layer"].unique()) == layers[manifest["model"]]
        assert {"image_text", "image_image", "text_text"} <= set(here["contrast"])
        assert set(here["head"]) == {"all", "0", "1", "2"}
    assert set(zip(table["model"], table["benchmark"], strict=True)) == {
        (model, bench.name) for model in models for bench in experiment.benchmarks
    }
    assert np.isfinite(main[["mmd2", "mmd2_ci_low", "mmd2_ci_high", "jsd_nats"]]).all(axis=None)
    whole = main[main["head"] == "all"].pivot_table(
        index=["model", "benchmark", "layer"], columns="contrast", values="mmd2"
    )
    # a gap between the modalities, and nearly none between two halves of one
    baselines = whole[["image_image", "text_text"]].max(axis=1)
    assert (whole["image_text"] > 2 * baselines).all()
    assert (whole["image_text"] > 0.05).all()


def test_the_study_runs_whole(study: Path, experiment: Experiment) -> None:
    check(study, experiment, {model.name: [0] for model in experiment.models})
    answers = pd.read_csv(study / "micro-linear-mmmu/answers.csv")
    assert answers["log_probability"].isna().sum() == 1  # the open question


@pytest.mark.slow
def test_the_experiment_of_the_repository_runs_whole(tmp_path: Path) -> None:
    experiment = read_experiment(EXPERIMENTS / "paper-micro.yaml")
    run_study(experiment, tmp_path / "out")
    layers = {model.name: [0, 15, 29] for model in experiment.models}
    check(tmp_path / "out", experiment, layers)


def test_the_report_has_the_comparison(study: Path) -> None:
    page = (study / "report.html").read_text()
    section = page[page.index("Between modalities and within one modality") :]
    section = section[: section.index('<section id="figures"')]
    table = pd.read_csv(study / "gap.csv", dtype={"head": str})
    table = table[(table["head"] == "all") & table["confound"].isna()]
    assert section.count("<td>0 of 30</td>") == 2
    for row in table.to_dict("records"):
        value, low, high = (fixed(row[key], 4) for key in ("mmd2", "mmd2_ci_low", "mmd2_ci_high"))
        if row["mmd2_null_low"] <= row["mmd2"] <= row["mmd2_null_high"]:
            value = f"0 ± {max(abs(row['mmd2_null_low']), abs(row['mmd2_null_high'])):.4f}"
        assert f"<td>{value} ({low} to {high})<br>{row['mmd']:.3f}</td>" in section
    for manifest in (Store(folder).manifest for folder in study.glob("micro-*")):
        assert manifest["connector"].replace(">", "&gt;") in section
    ours = table[table["contrast"] == "image_text"]["mmd"]
    cells = f'<td>0.408</td><td class="name">image_text</td><td>{ours.mean():.4f} ('
    assert cells in section.replace("\n", "")
    assert '<td>0.012</td><td class="name">image_image, text_text</td>' in section
    assert "No measurement can confirm" in section
    assert "the kernel; its bandwidth; whether the value is MMD or MMD squared" in section


def test_failures_and_unscored_questions_are_in_the_report(study: Path) -> None:
    page = (study / "report.html").read_text()
    assert page.count("23 read, 1 failed") == 2
    assert "missing image: the text shows &lt;image 2&gt;" in page
    assert page.count("1 not scored: bad sample") == 2


@pytest.mark.slow
def test_a_report_made_later_has_the_published_numbers_too(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "study")
    folders = sorted((tmp_path / "study").glob("micro-linear-*"))[:2]
    assert "Comparison with arXiv 2510.26721" in kg.report(*folders).read_text()
    assert "Comparison with arXiv 2510.26721" in kg.report(folders[0]).read_text()
    (tmp_path / "study/study.yaml").unlink()
    page = kg.report(*folders).read_text()
    assert "Between modalities" in page
    assert "Comparison with arXiv 2510.26721" not in page
    assert "Between modalities" not in kg.report(folders[0]).read_text()


def test_the_folder_of_a_study_is_not_taken_for_a_run(study: Path) -> None:
    with pytest.raises(UserError, match="is the folder of a study: name one of the runs in it"):
        Store(study)


@pytest.mark.slow
def test_a_report_about_the_folder_of_a_study_is_about_its_runs(study: Path, tmp_path: Path):
    shutil.copytree(study, tmp_path / "study")
    (tmp_path / "study/report.html").unlink()
    result = CliRunner().invoke(app, ["report", str(tmp_path / "study")])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "study/report.html").read_text()
    assert all(page.count(folder.name) for folder in runs_in(study))


@pytest.mark.parametrize("name", BENCHES)
def test_the_files_beside_the_experiment_are_what_the_script_writes(name: str, tmp_path) -> None:
    study_files.write(tmp_path)
    ours = benchmark(name, data=EXPERIMENTS / "paper-micro" / name)
    made = benchmark(name, data=tmp_path / name)
    assert ours.index() == made.index()
    assert len(ours.index()) == study_files.ROWS
    for number in range(len(made.index()) - 1):
        one, other = ours.sample(number), made.sample(number)
        assert (one.prompt, one.answer, one.meta) == (other.prompt, other.answer, other.meta)
        pixels = [[as_rgb(image).tobytes() for image in s.images] for s in (one, other)]
        assert pixels[0] == pixels[1]
    for bench in (ours, made):
        with pytest.raises(BadSample, match=r"K|image 2|base64"):
            bench.sample(len(made.index()) - 1)


def test_the_papers_own_experiment_names_what_exists() -> None:
    experiment = read_experiment(EXPERIMENTS / "paper.yaml")
    assert [model.name for model in experiment.models] == [
        "llava-hf/llava-1.5-7b-hf", "Qwen/Qwen2.5-VL-7B-Instruct"
    ]  # fmt: skip
    for source in experiment.benchmarks:
        folder = EXPERIMENTS / "paper-micro" / source.name  # the same names, splits and columns
        bench = benchmark(**{**source.model_dump(), "data": folder})
        assert (bench.name, len(bench.index())) == (source.name, study_files.ROWS)
    micro = read_experiment(EXPERIMENTS / "paper-micro.yaml")
    same = ("sites", "layers")
    assert micro.measurement.contrasts == experiment.measurement.contrasts
    assert micro.measurement.text_roles == experiment.measurement.text_roles
    assert micro.measurement.tokens_per_sample == experiment.measurement.tokens_per_sample
    assert all(
        getattr(micro.extraction, key) == getattr(experiment.extraction, key) for key in same
    )
    assert micro.published is not None
    assert experiment.published is not None
    assert micro.published.values == experiment.published.values
    assert micro.published.unpublished == experiment.published.unpublished
