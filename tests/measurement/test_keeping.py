"""A measurement that was interrupted goes on with the layers that are left, and ends the same."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import keygap as kg
from keygap import cli, gap
from keygap.contrasts import contrast_of
from keygap.contrasts.contrast import Contrast
from keygap.contrasts.own import OwnContrast
from keygap.measurement.keeping import forget_layers
from keygap.measurement.layer import LayerMeasurement
from made import as_of_keygap_0_1, files_of, made_vectors
from store.made import run_of

LAYERS = (0, 1, 2)
FEW: dict[str, Any] = {"n_permutations": 20, "n_bootstraps": 20}


def made_run(folder: Path, seed: int = 0) -> Path:
    run_of(made_vectors(samples=12, gap=1.0, seed=seed), folder, layers=LAYERS)
    return folder


@pytest.fixture(autouse=True)
def code(monkeypatch) -> None:
    """Someone who edits the source while tests run does not make them fail."""
    monkeypatch.setattr("keygap.measurement.keeping._digest_of_code", lambda: "one")


@pytest.fixture
def run(tmp_path) -> Path:
    return made_run(tmp_path / "run")


@pytest.fixture
def measured_layers(monkeypatch) -> list[int]:
    """The layers that are measured and not taken from a file, in order."""
    found: list[int] = []
    measure = LayerMeasurement.measure

    def counted(self, vectors, contrasts):
        found.append(self.key["layer"])
        measure(self, vectors, contrasts)

    monkeypatch.setattr(LayerMeasurement, "measure", counted)
    return found


def stopped_at(monkeypatch, run: Path, layer: int, **options: Any) -> None:
    """Measure a run until a layer ends it."""
    measure = LayerMeasurement.measure

    def stopping(self, vectors, contrasts):
        if self.key["layer"] == layer:
            raise KeyboardInterrupt
        measure(self, vectors, contrasts)

    with monkeypatch.context() as patch:
        patch.setattr(LayerMeasurement, "measure", stopping)
        with pytest.raises(KeyboardInterrupt):
            kg.measure(kg.Store(run), **FEW, **options, resume=True)


def resumed(run: Path, **options: Any) -> kg.GapTable:
    return kg.measure(kg.Store(run), **FEW, **options, resume=True)


def kept(run: Path) -> list[Path]:
    return sorted((run / "measured").rglob("*.json"))


def test_it_continues_with_the_layer_that_stopped_it(monkeypatch, run, measured_layers, tmp_path):
    kg.measure(kg.Store(run), **FEW).save(tmp_path / "whole")
    assert kept(run) == []
    measured_layers.clear()
    stopped_at(monkeypatch, run, layer=2)
    assert measured_layers == [0, 1]
    assert [file.name for file in kept(run)] == ["k_proj-0.json", "k_proj-1.json"]
    table = resumed(run)
    assert measured_layers == [0, 1, 2]
    table.save(tmp_path / "resumed")
    assert files_of(tmp_path / "resumed") == files_of(tmp_path / "whole")
    forget_layers(run)
    assert not (run / "measured").exists()


@pytest.mark.parametrize("other", [{"seed": 1}, {"text_roles": ["question", "template"]}])
def test_other_options_find_nothing(monkeypatch, run, measured_layers, other):
    stopped_at(monkeypatch, run, layer=1)
    measured_layers.clear()
    resumed(run, **other)
    assert measured_layers == list(LAYERS)


def own_contrast(**side: Any) -> Contrast:
    text = {"modality": "text"} | side
    mine = {"name": "mine", "a": {"modality": "image"}, "b": text, "rung": "own"}
    return OwnContrast.model_validate(mine).contrast()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (own_contrast(token=["circle", "image"]), own_contrast(token=["circle, image"])),
        (own_contrast(), own_contrast(role=["question"])),
    ],
)
def test_another_contrast_of_the_same_name_finds_nothing(
    monkeypatch, run, measured_layers, first, second
):
    stopped_at(monkeypatch, run, layer=2, contrasts=["image_text", first])
    assert len(kept(run)) == 2
    measured_layers.clear()
    resumed(run, contrasts=["image_text", second])
    assert measured_layers == list(LAYERS)
    measured_layers.clear()
    resumed(run, contrasts=["image_text", first])
    assert measured_layers == [2]


def test_a_changed_copy_of_a_contrast_keeps_nothing(monkeypatch, run):
    without = replace(contrast_of("image_text"), with_confounds=False)
    stopped_at(monkeypatch, run, layer=2, contrasts=[without])
    assert kept(run) == []


def test_another_source_finds_nothing(monkeypatch, run, measured_layers):
    """As after a change of the code of an editable installation."""
    stopped_at(monkeypatch, run, layer=2)
    monkeypatch.setattr("keygap.measurement.keeping._digest_of_code", lambda: "another")
    measured_layers.clear()
    resumed(run)
    assert measured_layers == list(LAYERS)


def test_fewer_layers_make_fewer_label_swaps_and_find_nothing(monkeypatch, run, measured_layers):
    stopped_at(monkeypatch, run, layer=1)
    measured_layers.clear()
    resumed(run, layers=[0, 1])
    assert measured_layers == [0, 1]


def test_another_extraction_finds_nothing(monkeypatch, run, measured_layers, tmp_path):
    stopped_at(monkeypatch, run, layer=1)
    other = made_run(tmp_path / "other", seed=1)
    (run / "measured").rename(other / "measured")
    measured_layers.clear()
    resumed(other)
    assert measured_layers == list(LAYERS)


def test_a_damaged_layer_is_measured_again(monkeypatch, run, measured_layers, caplog):
    whole = kg.measure(kg.Store(run), **FEW)
    stopped_at(monkeypatch, run, layer=2)
    first, second = kept(run)
    text = first.read_text()
    value = re.search(r'"value": (\d\.\d+)', text)
    assert value is not None
    first.write_text(text.replace(value[1], "0.5", 1))
    second.write_text(second.read_text()[:100])
    measured_layers.clear()
    found = resumed(run)
    assert measured_layers == list(LAYERS)
    assert found.frame.equals(whole.frame)
    for file in (first, second):
        assert f"{file} is damaged" in caplog.text


@dataclass(frozen=True)
class Fraction:
    readings: tuple[gap.Reading, ...] = (gap.Reading("fraction", 0.5, "nothing"),)


def fraction(x, y, sides):
    return Fraction()


def select(labels, roles, seed):
    is_image = (labels["modality"] == "image").to_numpy()
    return is_image, ~is_image


def test_contrasts_and_statistics_of_other_packages_may_have_changed(
    monkeypatch, run, measured_layers
):
    own = Contrast("own", "image, text", select, "own")
    stopped_at(monkeypatch, run, layer=2, contrasts=["image_text", own])
    assert kept(run) == []
    gap.STATISTICS.register("more", replace(gap.STATISTICS["moments"], compute=fraction))
    try:
        stopped_at(monkeypatch, run, layer=2)
    finally:
        gap.STATISTICS.unregister("more")
    assert kept(run) == []


def test_a_run_without_checksums_keeps_nothing(monkeypatch, run):
    as_of_keygap_0_1(run)
    stopped_at(monkeypatch, run, layer=2)
    assert kept(run) == []


def test_nothing_is_kept_unless_asked_for(run):
    before = files_of(run)
    kg.measure(kg.Store(run), **FEW)
    assert files_of(run) == before


def test_the_command_removes_what_it_kept(monkeypatch, run, measured_layers):
    options = ["--n-permutations", "20", "--n-bootstraps", "20"]
    stopped_at(monkeypatch, run, layer=2)
    monkeypatch.setattr("sys.argv", ["keygap", "measure", str(run), *options])
    measured_layers.clear()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert measured_layers == [2]
    assert (run / "gap.csv").is_file()
    assert not (run / "measured").exists()
