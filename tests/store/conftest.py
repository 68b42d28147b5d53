"""What tests of the store share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
