"""What tests of the store share: another process with a lock, and a finished run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import keygap as kg
from keygap.bias.answers import Answers
from made import made_vectors

from .made import run_of

VECTORS = made_vectors(gap=1.0)
OTHER_VECTORS = made_vectors(gap=1.0, seed=1)
OTHER_VECTORS.labels["language"] = "fr"
HOLDING = Path(__file__).parent / "holding.py"


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of ``tmp_path / "run"``."""
    command = [sys.executable, str(HOLDING), str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()


def finish(root: Path, seed: int = 0) -> None:
    """Measure, project and answer a run."""
    store = kg.Store(root)
    few: dict[str, Any] = {
        "n_permutations": 20,
        "n_bootstraps": 20,
        "contrasts": ["image_text"],
        "seed": seed,
    }
    kg.measure(store, **few).save(root)
    kg.project(store, tokens=50, perplexity=5, seed=seed).save(root)
    answers = pd.DataFrame({"sample_id": ["s000"], "subject": ["x"], "correct": [True]})
    accuracy = pd.DataFrame({"rule": ["overall"], "correct": [1], "total": [2], "accuracy": [0.5]})
    Answers(answers, accuracy, {}).save(root)


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """A finished run and, beside it, another with the same schema."""
    folder = tmp_path_factory.mktemp("runs")
    run_of(VECTORS, folder / "run", [0])
    run_of(OTHER_VECTORS, folder / "other", [0])
    finish(folder / "run")
    finish(folder / "other", seed=1)
    return folder


@pytest.fixture
def run(whole, tmp_path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(whole, tmp_path / "runs")
    return tmp_path / "runs/run"
