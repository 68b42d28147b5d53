"""Commands of keygap as processes of their own, on a tiny model and small questions on disk."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from keygap.engines.distributed import Work
from keygap.store.files import temporary_files
from keygap.store.run import CHECKSUMS
from made import files_of
from models.zoo import BY_FAMILY

ROOT = Path(__file__).parents[1]
# imported once by the process that commands are forked from, instead of by every command
PRELOADED = ["keygap.study.run", "transformers.models.llava.modeling_llava"]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(PRELOADED)
PART = 4  # samples of a part, so few that a run has many
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
    """A command of keygap that was begun, in a process of its own.

    What it says goes to a file: a pipe would stay open until the last process of its Ray ends, a
    minute after it was killed.

    Args:
        arguments: of the command.
        theirs: the folder that its workers find in the place of the run folder, as if they were on
            another node; None: they find the run folder.
    """

    def __init__(self, arguments: Sequence[str], theirs: Path | None = None) -> None:
        descriptor, self._said = tempfile.mkstemp()
        os.close(descriptor)
        self.process = FORKS.Process(target=_run, args=(list(arguments), self._said, theirs))
        self.process.start()

    def ended(self, timeout: float) -> str:
        """Wait for its end; returns what it said.

        Raises:
            TimeoutError: it takes longer.
        """
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise TimeoutError
        return Path(self._said).read_text()


def on_other_nodes(theirs: Path) -> Callable[..., Work]:
    """What makes the work of workers that find another folder in the place of the run folder."""
    of = Work.of

    def elsewhere(*arguments: Any) -> Work:
        return replace(of(*arguments), root=theirs, mark=theirs / "mark")

    return elsewhere


def _run(arguments: list[str], said: str, theirs: Path | None) -> None:
    """Be the command ``keygap``, with one thread."""
    import torch

    from keygap import cli, interrupts
    from keygap.engines import plan

    os.setsid()
    output = os.open(said, os.O_WRONLY | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(ROOT)
    known = [str(ROOT / "src"), *sys.path[1:]]
    os.environ["PYTHONPATH"] = os.pathsep.join(known)  # for the workers of Ray
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    # a shell that starts the tests in the background makes them ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.install()
    plan.PART_SAMPLES = PART
    if theirs is not None:
        Work.of = on_other_nodes(theirs)  # type: ignore[method-assign]
    sys.argv = ["keygap", *arguments]
    cli.main()


def finished(arguments: Sequence[str]) -> None:
    """Run a command to its end."""
    command = Command(arguments)
    said = command.ended(600)
    assert command.process.exitcode == 0, said


def killed_and_continued(
    arguments: Sequence[str],
    out: Path,
    kills: int,
    files: int,
    seed: int,
    lost: Path | None = None,
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
        lost: a folder that goes with the machine at every kill.
    """
    moments = random.Random(seed)
    while kills:
        number = moments.randrange(files)
        late = moments.uniform(0.0, 0.5 if files_in(out) < number else 10.0)
        command = Command(arguments)
        while files_in(out) < number and command.process.is_alive():
            time.sleep(0.005)
        try:
            said = command.ended(late)
            assert command.process.exitcode == 0, said
            shutil.rmtree(out)
        except TimeoutError:
            command.process.kill()
            command.ended(60)
            kills -= 1
            if lost is not None:
                shutil.rmtree(lost, ignore_errors=True)
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
    """Every file of a folder but pages and figures, and without how long anything took."""
    return {
        name: _without_times(name, data)
        for name, data in files_of(folder).items()
        if not any(part in name for part in OF_PAGE)
    }


def _without_times(name: str, data: bytes) -> bytes:
    """A file without its rows named ``seconds``, or a list of checksums without those files."""
    if name.endswith(".json") and b'"seconds"' in data:
        values = json.loads(data)
        for key, rows in values.items():
            if isinstance(rows, list):
                values[key] = [row for row in rows if "seconds" not in row.values()]
        return json.dumps(values).encode()
    if name.endswith(".csv"):
        return b"\n".join(line for line in data.splitlines() if b",seconds," not in line)
    if name == CHECKSUMS:
        return b"\n".join(line for line in data.splitlines() if b"alignment.csv" not in line)
    return data
