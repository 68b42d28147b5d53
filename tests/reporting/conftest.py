"""One measured run with two sites, a contrast of the user's own and a one-word contrast."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import keygap as kg
from keygap.contrasts import CONTRASTS
from keygap.contrasts.own import OwnContrast, Selection
from keygap.reporting import drawing
from made import as_of_keygap_0_1

from .explored import BROWSER, looked_at

SITES = ["k_proj", "key"]


def own(name: str, words: list[str]) -> OwnContrast:
    question = {"modality": "text", "role": ["question"]}
    return OwnContrast(
        name=name,
        a=Selection.model_validate({**question, "token": words}),
        b=Selection.model_validate({**question, "token": ["?"]}),
    )


@pytest.fixture(scope="session")
def two_sites(vlm, easy_vqa, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "run"
    store = kg.extract(vlm, easy_vqa, folder, layers=[0, 29], sites=SITES, samples=12)
    mine = [own("verbs", ["is", "are"]), own("articles", ["the", "a"])]
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


@pytest.fixture(scope="session")
def explored(tmp_path_factory) -> Path:
    """A run of two sites and layers that the explorer shows."""
    folder = tmp_path_factory.mktemp("explored") / "run"
    return looked_at("qwen2_vl", folder, layers=[0, 1], sites=["k_proj", "key"])


@pytest.fixture
def run_folder(two_sites: Path, tmp_path: Path) -> Path:
    """A copy that a test may change: it has no checksums."""
    shutil.copytree(two_sites, tmp_path / "run")
    as_of_keygap_0_1(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def not_drawn(monkeypatch):
    """Make figures without drawing them, which takes most of the time of a report."""
    monkeypatch.setattr(drawing, "saved", lambda figure, root, name: "")


@pytest.fixture(scope="session")
def browser():
    """Chromium, driven by Playwright; tests that use it are skipped where one is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER)
        yield found
        found.close()
