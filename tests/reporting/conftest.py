"""Measured runs of a tiny model, each made once, and the report of one with all sections."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

import keygap as kg
from align.causes.simulated import causes_table
from choices.simulated import choices_table
from keygap.contrasts import CONTRASTS
from keygap.contrasts.own import OwnContrast, Selection
from keygap.reporting import drawing
from made import as_of_keygap_0_1

from .explored import BROWSER, looked_at
from .made_bias import save_bias

SITES = ["k_proj", "key"]
MODEL, BENCHMARK, LAST = "tiny qwen2_vl", "made", 1  # of the run, and its last layer


def own(name: str, words: list[str]) -> OwnContrast:
    question = {"modality": "text", "role": ["question"]}
    return OwnContrast(
        name=name,
        a=Selection.model_validate({**question, "token": words}),
        b=Selection.model_validate({**question, "token": ["?"]}),
    )


ALL_FORMATS = dict(drawing._OTHERS)


@pytest.fixture(autouse=True)
def as_svg_alone(monkeypatch) -> None:
    """Figures are drawn as SVG alone. Their other formats take most of the time."""
    monkeypatch.setattr(drawing, "_OTHERS", {})


@pytest.fixture
def in_all_formats(as_svg_alone, monkeypatch) -> None:
    """Figures are drawn as a user gets them."""
    monkeypatch.setattr(drawing, "_OTHERS", ALL_FORMATS)


@pytest.fixture(scope="session")
def explored(tmp_path_factory) -> Path:
    """A run of two sites and layers that the explorer shows."""
    folder = tmp_path_factory.mktemp("explored") / "run"
    return looked_at("qwen2_vl", folder, layers=[0, 1], sites=SITES)


@pytest.fixture(scope="session")
def two_sites(explored, tmp_path_factory) -> Path:
    """A run of two sites and layers with every contrast and two of the user's own."""
    folder = tmp_path_factory.mktemp("two") / "run"
    shutil.copytree(explored, folder)
    store = kg.Store(folder)
    mine = [own("openers", ["is", "Ġthe"]), own("letters", ["t", "h"])]
    table = kg.measure(
        store,
        contrasts=[mine[0].contrast(), *CONTRASTS, mine[1].contrast()],
        tokens_per_sample=8,
        n_permutations=20,
        n_bootstraps=20,
    )
    table.save(folder)
    kg.project(store, tokens=100, perplexity=5).save(folder)
    return folder


@pytest.fixture
def run_folder(two_sites: Path, tmp_path: Path) -> Path:
    """A copy that a test may change: it has no checksums."""
    shutil.copytree(two_sites, tmp_path / "run")
    as_of_keygap_0_1(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="session")
def whole(two_sites: Path, tmp_path_factory) -> Path:
    """A run with every section that a report has, and names as long as those of real models."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(two_sites, folder)
    as_of_keygap_0_1(folder)
    model, bench = "llava-hf/llava-onevision-qwen2-7b-ov-hf", "mmmu-pro-vision"
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(
        json.dumps(manifest | {"model": model, "benchmark": bench})
    )
    for name in ("gap.csv", "jsd.csv", "shape.csv"):
        table = pd.read_csv(folder / name)
        table.assign(model=model, benchmark=bench).to_csv(folder / name, index=False)
    save_bias(folder, (0, LAST))
    causes_table("attention", n=60, n_bootstraps=60).save(folder)
    choices_table().save(folder)
    return folder


@pytest.fixture(scope="session")
def whole_page(whole: Path) -> Path:
    """Its report, with all figures as SVG."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_OTHERS", {})
        return kg.report(whole)


@pytest.fixture
def not_drawn(monkeypatch) -> list[Path]:
    """Make figures without drawing them, which takes most of the time; list them."""
    names: list[Path] = []

    def saved(figure, root, name):
        names.append(root / name)
        return '<svg width="72pt" viewBox="0 0 72 72"></svg>'

    monkeypatch.setattr(drawing, "saved", saved)
    return names


@pytest.fixture(scope="session")
def browser():
    """Chromium, driven by Playwright; tests that use it are skipped where one is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER)
        yield found
        found.close()
