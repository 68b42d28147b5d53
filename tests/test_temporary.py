"""Temporary folders end with the block, and those of killed processes with the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from keygap.errors import UserError
from keygap.temporary import temporary_folder

HOLDING = """
import sys, time
from keygap.temporary import temporary_folder
with temporary_folder(sys.argv[1]) as folder:
    (folder / "part").write_text("half")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_folders_that_killed_processes_have_left_are_removed(tmp_path):
    other = tmp_path / "keygap-other"  # without a lock: not one of these
    other.mkdir()
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = tmp_path / os.path.basename(process.stdout.readline().strip())
        with temporary_folder(str(tmp_path)) as mine:
            assert set(tmp_path.iterdir()) == {mine, theirs, other}
        process.send_signal(signal.SIGKILL)
    assert set(tmp_path.iterdir()) == {theirs, other}
    with temporary_folder(str(tmp_path)) as mine:
        assert set(tmp_path.iterdir()) == {mine, other}
    assert set(tmp_path.iterdir()) == {other}


def test_a_place_that_is_not_there_is_one_line(tmp_path):
    with (
        pytest.raises(UserError, match=r"^no temporary folder can be made \(No such file"),
        temporary_folder(str(tmp_path / "missing")),
    ):
        pass
