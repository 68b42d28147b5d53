"""Commands of keygap as processes of their own, on a tiny model and small questions on disk."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from keygap.store.files import temporary_files
from made import files_of
from models.zoo import BY_FAMILY

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests"), *sys.path[1:]]),
    "OMP_NUM_THREADS": "1",
}
# ``keygap`` with parts so small that a run has many
KEYGAP = """
from keygap.interrupts import install
install()
from keygap.engines import plan
plan.PART_SAMPLES = 4
from keygap.cli import main
main()
"""
OF_PAGE = ("report.html", "figures/")  # say when they were made


def study_on_disk(folder: Path, samples: int = 48) -> None:
    """Write a tiny model, questions with pictures of noise, and an experiment about both."""
    model, processor = BY_FAMILY["llava"].build()
    model.save_pretrained(folder / "tiny")
    processor.save_pretrained(folder / "tiny")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(samples):
        pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(
            {
                "id": f"q{number:03}",
                "image": f"{number}.png",
                "question": f"Which colour is shape number {number}?",
                "options": ["red", "blue", "green"],
                "answer": ("red", "blue", "green")[number % 3],
            }
        )
    (folder / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    experiment = {
        "name": "tiny",
        "models": [{"name": str(folder / "tiny")}],
        "benchmarks": [{"name": f"jsonl:{folder / 'own.jsonl'}"}],
        "extraction": {"samples": samples, "layers": ["first", "last"], "batch_size": 4},
        "measurement": {"contrasts": ["image_text"], "n_permutations": 20, "n_bootstraps": 20},
        "projection": {"tokens": 50, "perplexity": 5},
        "bias": {"samples": 8, "probes": {"blank": {}}},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(experiment))


class Command:
    """A command of keygap that was begun; what it says goes to a file.

    A pipe would stay open until the last process of its Ray ends, a minute after it was killed.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-c", KEYGAP, *arguments],
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            cwd=ROOT,
            # a shell that starts the tests in the background makes them ignore Ctrl-C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def ended(self, timeout: float) -> str:
        """Wait for its end; returns what it said.

        Raises:
            TimeoutExpired: it takes longer.
        """
        self.process.wait(timeout)
        self._output.seek(0)
        return self._output.read()


def finished(arguments: Sequence[str]) -> None:
    """Run a command to its end."""
    command = Command(arguments)
    said = command.ended(600)
    assert command.process.returncode == 0, said


def killed_and_continued(
    arguments: Sequence[str], out: Path, kills: int, files: int, seed: int
) -> None:
    """Kill a command at random moments, each time it is repeated, and let it end.

    A moment is soon after there are so many files, or any while the command begins if there are
    already as many.

    Args:
        arguments: of the command.
        out: its folder. A command that ends before its moment is begun anew with an empty one.
        kills: how often.
        files: that the folder has when the command has ended.
        seed: of the moments.
    """
    moments = random.Random(seed)
    while kills:
        number = moments.randrange(files)
        late = moments.uniform(0.0, 0.5 if files_in(out) < number else 10.0)
        command = Command(arguments)
        while files_in(out) < number and command.process.poll() is None:
            time.sleep(0.005)
        try:
            said = command.ended(late)
            assert command.process.returncode == 0, said
            shutil.rmtree(out)
        except subprocess.TimeoutExpired:
            command.process.kill()
            command.ended(60)
            kills -= 1
    finished(arguments)


def files_in(folder: Path) -> int:
    """How many files are in a folder and below, also while they change."""
    return sum(len(files) for _, _, files in os.walk(folder))


def refuse_leftovers(folder: Path) -> None:
    """No temporary file and no lock is in a folder or below."""
    for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        assert temporary_files(place) == []
        assert not (place / ".lock").exists()


def results_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the pages and figures."""
    return {
        name: data
        for name, data in files_of(folder).items()
        if not any(part in name for part in OF_PAGE)
    }
