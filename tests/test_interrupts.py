"""Ctrl-C and SIGTERM: the status that shells expect, and one line that says what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import keygap as kg
from keygap import interrupts
from keygap.store import StoreWriter
from keygap.store.files import temporary_files
from made import made_vectors
from store.made import IDENTITY, run_of

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
ONE_IS_SLOW = [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "tests", *sys.path[1:]])}


def interrupted(
    command: list[str], number: signal.Signals, ready: Callable[[], bool], after: float = 0.0
) -> tuple[int, str]:
    """Send a signal once something is the case; returns the status and what is on stderr."""
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        cwd=Path(__file__).parents[1],
        # a shell that starts the tests in the background makes them ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 400
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(after)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def at_once() -> bool:
    return True


@pytest.mark.parametrize(
    ("program", "arguments", "number"),
    [
        ("keygap", ["check", "micro:linear"], signal.SIGTERM),
        ("keygap.cli", ["demo", "--out", "none/demo"], signal.SIGINT),
    ],
)
def test_before_the_work_begins(program, arguments, number):
    """While Python imports or the model loads; the first half second is Python's own."""
    status, said = interrupted(["-m", program, *arguments], number, at_once, after=2.0)
    assert status == STATUS[number]
    assert said == (
        f"keygap: interrupted by {number.name}, everything on disk is as it was; "
        f"continue with: keygap {' '.join(arguments)}\n"
    )
    assert not Path("none").exists()


@pytest.mark.parametrize("number", ONE_IS_SLOW)
def test_while_a_run_is_measured(tmp_path, number):
    """The run folder is as it was, without the lock."""
    run_of(made_vectors(samples=48), tmp_path / "a run")
    before = sorted(tmp_path.rglob("*"))
    command = ["-m", "keygap", "measure", str(tmp_path / "a run")]
    status, said = interrupted(command, number, at_once, after=6.0)
    assert status == STATUS[number]
    assert said.splitlines()[-1] == (
        f"keygap: interrupted by {number.name}, everything on disk is as it was; "
        f"continue with: keygap measure '{tmp_path / 'a run'}'"
    )
    assert "Traceback" not in said
    assert sorted(tmp_path.rglob("*")) == before


COMMITTING = """
import itertools, pathlib, sys
from keygap import interrupts
from keygap.store import StoreWriter, write_part
from store.made import IDENTITY, part
root = pathlib.Path(sys.argv[1])
with interrupts.handled(), StoreWriter(root, IDENTITY) as writer:
    for number in itertools.count():
        tables = part(range(2 * number, 2 * number + 2))
        writer.commit(number, tables.samples, write_part(root, number, tables))
"""


@pytest.mark.parametrize("number", ONE_IS_SLOW)
def test_while_parts_are_committed(tmp_path, number):
    """At any moment of a commit: what is said to be kept is there, and it can be continued."""
    out = tmp_path / "run"
    ready = (out / "tokens/part-00003.parquet").exists
    status, said = interrupted(["-c", COMMITTING, str(out)], number, ready)
    assert status == STATUS[number]
    kept = len(kg.Store(out).samples)
    assert f"{kept} samples are kept in {out}" in said
    assert "Traceback" not in said
    assert not (out / ".lock").exists()
    for folder in (out, *out.rglob("*")):
        assert temporary_files(folder) == []
    with StoreWriter(out, IDENTITY) as writer:
        assert len(writer.done) == kept
        assert writer.damaged == set()


@pytest.mark.slow
def test_while_samples_are_extracted(tmp_path):
    out = tmp_path / "run"
    options = ["--samples", "192", "--batch-size", "8", "--layers", "0", "--out", str(out)]
    command = ["extract", "micro:linear", *options]
    status, said = interrupted(
        ["-m", "keygap", *command], signal.SIGINT, (out / "samples.parquet").exists
    )
    assert status == 130
    kept = len(kg.Store(out).samples)
    assert kept in (64, 128)  # whole parts
    assert said.splitlines()[-1] == (
        f"keygap: interrupted by SIGINT, {kept} samples are kept in {out}; "
        f"continue with: keygap {' '.join(command)}"
    )
    assert "Traceback" not in said


SWALLOWED = """
import sys, time
from keygap import interrupts
interrupts.PATIENCE = 0.5
with interrupts.handled(), interrupts.tidied():
    print("ready", flush=True)
    try:
        time.sleep(60)
    except BaseException:  # as some libraries do
        pass
    {then}
"""


@pytest.mark.parametrize("then", ["raise ImportError('half a module')", "time.sleep(60)"])
def test_a_library_that_swallows_the_interrupt(then):
    code = SWALLOWED.format(then=then)
    status, said = interrupted(["-c", code], signal.SIGTERM, at_once, after=1.5)
    assert status == 143
    assert said.startswith("keygap: interrupted by SIGTERM, ")
    assert said.count("\n") == 1


def test_a_commit_finishes(capsys, tmp_path):
    def commit() -> None:
        with interrupts.handled(), interrupts.tidied():
            with interrupts.deferred():
                signal.raise_signal(signal.SIGTERM)
                (tmp_path / "part").write_text("whole")
            raise AssertionError("not reached")

    with pytest.raises(SystemExit) as exit_:
        commit()
    assert exit_.value.code == 143
    assert (tmp_path / "part").read_text() == "whole"
    assert capsys.readouterr().err.startswith("keygap: interrupted by SIGTERM, ")


def test_signals_are_handled_as_before_afterwards():
    before = [signal.getsignal(number) for number in interrupts.SIGNALS]
    with interrupts.handled():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in interrupts.SIGNALS] == before


def test_an_error_without_a_signal_is_raised_as_it_is():
    with pytest.raises(ZeroDivisionError), interrupts.handled():
        raise ZeroDivisionError
