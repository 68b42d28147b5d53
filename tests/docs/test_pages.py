"""The examples of the documentation's pages run from top to bottom, as a reader would type them.

A block with a title is a file. All other blocks of Python and of commands run one after another in
the folder of these files. An installation goes into a folder beside them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from documentation import ROOT, Block, blocks

FOLDERS = [ROOT / "docs" / name for name in ("concepts", "howto")]
PAGES = sorted(path for folder in FOLDERS for path in folder.glob("*.md"))
# Commands that name a model or data which a reader has and the tests do not.
ELSEWHERE = re.compile(r"my-org/")
INSTALL = "{python} -m pip install --quiet --no-deps --no-build-isolation --target lib ."


def examples(page: Path) -> list[Block]:
    """Every block of a page that can be run, or is a file."""
    found = blocks(page, "python", "bash", "toml")
    return [block for block in found if not ELSEWHERE.search(block.text)]


WITH_EXAMPLES = [page for page in PAGES if examples(page)]


def run(arguments: list[str], folder: Path) -> None:
    """Run a command in the folder of a page, and show what it printed if it fails."""
    paths = [str(folder), str(folder / "lib"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def test_pages_have_examples() -> None:
    names = {page.stem for page in WITH_EXAMPLES}
    assert names >= {"benchmark", "images", "map", "model", "probe", "production", "statistic"}


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path) -> None:
    for block in examples(page):
        if block.title:
            (tmp_path / block.title).write_text(block.text)
        elif block.language == "python":
            run([sys.executable, "-c", block.text], tmp_path)
        elif block.language == "bash":
            install = INSTALL.format(python=sys.executable)
            text = block.text.replace("pip install .", install)
            run(["bash", "-euo", "pipefail", "-c", text], tmp_path)
