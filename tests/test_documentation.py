"""What the documentation tells a reader to type can be typed, and the README's blocks run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from documentation import PAGES, ROOT, blocks, commands
from keygap.cli import app

README = ROOT / "README.md"
CALLS = [
    pytest.param(call, id=f"{page.relative_to(ROOT)}:{' '.join(call)[:60]}")
    for page in PAGES
    for block in blocks(page, "bash")
    for call in commands(block)
]
INSTALLS = "pip install"  # a block with it needs an empty environment
FEWER = re.compile(r"(samples[ =])\d+")  # so that all blocks take minutes


def test_the_readme_has_commands_and_python():
    assert len(blocks(README, "bash")) >= 5
    assert len(blocks(README, "python")) >= 1
    assert len(CALLS) > 30


@pytest.mark.parametrize("call", CALLS)
def test_every_command_of_the_documentation_is_accepted(call):
    """Names of options and their values are checked, and nothing is run."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands") and call and call[0] in command.commands:
        command, call = command.commands[call[0]], call[1:]
    assert not hasattr(command, "commands") or not call or call[0].startswith("-"), call
    if "--help" not in call and "--version" not in call:
        command.make_context("keygap", list(call))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder in which a reader types the blocks, one after another."""
    return tmp_path_factory.mktemp("reader")


def in_a_fresh_shell(arguments: list[str], folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: os.environ[name] for name in ("HOME", "OMP_NUM_THREADS") if name in os.environ}
    done = subprocess.run(
        arguments, cwd=folder, env={"PATH": path, **kept}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_every_block_of_the_readme_runs(folder):
    """With fewer samples, and the run of one block in place of the demo that another looks at."""
    for block in blocks(README, "python"):
        in_a_fresh_shell([sys.executable, "-c", FEWER.sub(r"\g<1>24", block.text)], folder)
    shutil.copytree(folder / "runs/python", folder / "runs/demo")
    for block in blocks(README, "bash"):
        if INSTALLS not in block.text:
            text = FEWER.sub(r"\g<1>24", block.text)
            in_a_fresh_shell(["bash", "-euo", "pipefail", "-c", text], folder)
    assert {"python", "demo", "mine", "bias", "causes", "remedy"} <= {
        place.name for place in (folder / "runs").iterdir()
    }
