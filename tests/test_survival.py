"""Whatever ends a command, repeating it ends with the same rows and leaves nothing behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import keygap as kg
from keygap import cli
from made import files_of, without_commits
from store.test_faults import fill
from store.test_files import mounted
from survival import (
    Command,
    files_in,
    finished,
    killed_and_continued,
    refuse_leftovers,
    results_of,
    study_on_disk,
)

HOLDING = Path(__file__).parent / "store/holding.py"
KILLS = 2  # of each of the ten runs of an engine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    study_on_disk(folder)
    return folder


def arguments_of(command: str, tiny: Path, out: Path) -> list[str]:
    """A command with few samples."""
    if command == "run":
        return ["run", str(tiny / "study.yaml"), "--out", str(out)]
    benchmark = ["--benchmark", f"jsonl:{tiny / 'own.jsonl'}", "--out", str(out)]
    few = {
        "extract": ["--samples", "48", "--batch-size", "4"],
        "answer": ["--samples", "8"],
        "bias": ["--samples", "8", "--probes", "blank", "--n-bootstraps", "20"],
        "causes": ["--samples", "6", "--fit-samples", "6", "--n-bootstraps", "20"],
        "align": ["--search", "--samples", "6", "--fit-samples", "6"],
    }
    return [command, str(tiny / "tiny"), *benchmark, *few[command]]


WRITING = ("answer", "bias", "causes", "align", "run")


def refusal(monkeypatch, capsys, arguments: list[str]) -> str:
    """The one line of a command that is refused."""
    monkeypatch.setattr(sys, "argv", ["keygap", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    said = capsys.readouterr().err.strip().splitlines()
    assert exit_.value.code == 2, said
    assert said[-1].startswith("keygap: ")
    return said[-1]


@pytest.mark.parametrize("command", WRITING)
def test_a_folder_that_another_process_works_in(monkeypatch, capsys, tiny, tmp_path, command):
    monkeypatch.setattr("keygap.store.lock.SHORT", 0.0)
    command_line = [sys.executable, str(HOLDING), str(tmp_path / "run")]
    with subprocess.Popen(command_line, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        said = refusal(monkeypatch, capsys, arguments_of(command, tiny, tmp_path / "run"))
        assert f"is being written by process {holder.pid} on " in said
        holder.kill()
    assert list(files_of(tmp_path)) == ["run/.lock"]


@pytest.mark.parametrize("command", WRITING)
def test_a_disk_without_space(monkeypatch, capsys, tiny, tmp_path, command):
    with mounted(tmp_path / "small", "size=1m"):
        (tmp_path / "small/run").mkdir()
        fill(tmp_path / "small")
        said = refusal(monkeypatch, capsys, arguments_of(command, tiny, tmp_path / "small/run"))
        assert "is full: free some space and repeat the command" in said
        assert list(files_of(tmp_path / "small")) == ["filler"]


def ready_when(command: str, out: Path) -> Path:
    """A file that is there while a command works."""
    return {"causes": out / "causes/identity.json", "align": out / "remedy/identity.json"}.get(
        command, out / ".lock"
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", WRITING)
def test_an_interrupted_command_says_how_it_continues(tiny, tmp_path, command, number):
    arguments = arguments_of(command, tiny, tmp_path / "run")
    begun = Command(arguments)
    process = begun.process
    while not ready_when(command, tmp_path / "run").exists() and process.is_alive():
        time.sleep(0.02)
    time.sleep(0.2)
    os.kill(process.pid, number)
    said = begun.ended(120)
    assert process.exitcode == 128 + number, said
    last = said.splitlines()[-1]
    assert last.startswith(f"keygap: interrupted by {number.name}, ")
    assert last.endswith(f"; continue with: keygap {' '.join(arguments)}")
    assert "Traceback" not in said
    refuse_leftovers(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["bias", "causes", "align"])
def test_a_killed_command_leaves_nothing_once_repeated(tiny, tmp_path, command):
    finished(arguments_of(command, tiny, tmp_path / "whole"))
    arguments = arguments_of(command, tiny, tmp_path / "killed")
    files = files_in(tmp_path / "whole")
    killed_and_continued(arguments, tmp_path / "killed", 3, files, seed=0)
    refuse_leftovers(tmp_path / "killed")
    assert results_of(tmp_path / "killed") == results_of(tmp_path / "whole")


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory) -> Path:
    """An extraction that nobody disturbed, measured."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finished(arguments_of("extract", tiny, out))
    measured(out)
    return out


def measured(out: Path) -> None:
    table = kg.measure(kg.Store(out), contrasts=["image_text"], n_permutations=20, n_bootstraps=20)
    table.save(out)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
@pytest.mark.parametrize("seed", range(10))
def test_an_extraction_killed_at_random_moments(tiny, whole, tmp_path, engine, seed):
    """Two kills for each seed, so twenty for each engine."""
    more = [] if engine == "local" else ["--engine", "ray", "--workers", "2"]
    arguments = [*arguments_of("extract", tiny, tmp_path / "run"), *more]
    killed_and_continued(arguments, tmp_path / "run", KILLS, 60, seed)
    refuse_leftovers(tmp_path / "run")
    measured(tmp_path / "run")
    assert files_of(tmp_path / "run") == files_of(whole)


FEW = ["--n-permutations", "20", "--n-bootstraps", "20"]


@pytest.fixture(scope="module")
def two_sites(tiny, tmp_path_factory) -> tuple[Path, Path]:
    """An extraction of four sites and layers, and one that was measured as well."""
    run = tmp_path_factory.mktemp("sites") / "run"
    finished([*arguments_of("extract", tiny, run), "--layers", "all", "--sites", "k_proj,v_proj"])
    shutil.copytree(run, run.with_name("whole"))
    finished(["measure", str(run.with_name("whole")), *FEW])
    return run, run.with_name("whole")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
@pytest.mark.parametrize("seed", range(5))
def test_a_measurement_killed_at_random_moments(two_sites, tmp_path, engine, seed):
    """Four kills for each seed, so twenty for each engine."""
    extraction, whole = two_sites
    run = tmp_path / "run"
    shutil.copytree(extraction, run)
    more = [] if engine == "local" else ["--engine", "ray", "--workers", "2"]
    moments = random.Random(seed)
    for kept in range(4):  # layers, of which there are four
        command = Command(["measure", str(run), *FEW, *more])
        while files_in(run / "measured") < kept and command.process.is_alive():
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, 4.0 if kept == 0 else 1.0))
        command.process.kill()
        command.ended(60)
    finished(["measure", str(run), *FEW, *more])
    refuse_leftovers(run)
    assert files_of(run) == files_of(whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_an_extraction_whose_disk_is_lost_continues_from_its_copy(tiny, whole, tmp_path, seed):
    run, copy = tmp_path / "run", tmp_path / "copy"
    arguments = [*arguments_of("extract", tiny, run), "--mirror", f"file://{copy}"]
    killed_and_continued(arguments, copy, KILLS, 60, seed, lost=run)
    refuse_leftovers(run)
    assert not (copy / ".lock").exists()
    assert without_commits(copy) == files_of(run)
    measured(run)
    assert files_of(run) == files_of(whole)


@pytest.fixture(scope="module")
def whole_study(tiny, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "study"
    finished(arguments_of("run", tiny, out))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_study_killed_at_random_moments(tiny, whole_study, tmp_path, seed):
    arguments = arguments_of("run", tiny, tmp_path / "run")
    killed_and_continued(arguments, tmp_path / "run", KILLS, files_in(whole_study), seed)
    refuse_leftovers(tmp_path / "run")
    assert results_of(tmp_path / "run") == results_of(whole_study)
    assert files_of(tmp_path / "run").keys() == files_of(whole_study).keys()


def workers_of_ray(process: psutil.Process) -> list[psutil.Process]:
    """The processes of a command's Ray that do its work."""
    found = []
    for child in process.children(recursive=True):
        try:
            if any(part.startswith("ray::_Actor") for part in child.cmdline()):
                found.append(child)
        except psutil.Error:  # it has ended
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_workers_of_ray_killed_at_random_moments(tiny, whole, tmp_path, seed, shared):
    """Two kills for each seed, so ten of workers that see the run folder and ten of others."""
    out, copy = tmp_path / "run", tmp_path / "copy"
    arguments = [*arguments_of("extract", tiny, out), "--engine", "ray", "--workers", "2"]
    if shared:
        command = Command(arguments)
    else:
        command = Command([*arguments, "--mirror", f"file://{copy}"], theirs=tmp_path / "theirs")
    process = command.process
    moments = random.Random(seed)
    kills = KILLS
    while kills and process.is_alive():
        if not (living := workers_of_ray(psutil.Process(process.pid))):
            time.sleep(0.01)
            continue
        time.sleep(moments.uniform(0.0, 6.0))
        victim = moments.choice(living)
        if victim.is_running():
            os.kill(victim.pid, signal.SIGKILL)
            kills -= 1
    said = command.ended(300)
    assert kills == 0, "it ended before all kills"
    assert process.exitcode == 0, said
    assert said.count("died while it") == KILLS
    refuse_leftovers(out)
    if not shared:
        assert without_commits(copy) == files_of(out)
    measured(out)
    assert files_of(out) == files_of(whole)


@pytest.mark.slow
def test_ray_ends_with_a_command_that_is_killed_or_interrupted(tiny, tmp_path):
    arguments = [*arguments_of("extract", tiny, tmp_path / "run"), "--engine", "ray"]
    for number in (signal.SIGKILL, signal.SIGINT):
        command = Command(arguments)
        process = command.process
        while not workers_of_ray(psutil.Process(process.pid)):
            assert process.is_alive()
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, number)
        said = command.ended(60)
        # what watches a node of Ray tries to report its death for a minute
        assert psutil.wait_procs(children, 120)[1] == []
    assert process.exitcode == 130, said
    assert said.splitlines()[-1].startswith("keygap: interrupted by SIGINT, everything on disk")
    assert list(files_of(tmp_path)) == []
