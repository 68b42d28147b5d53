"""Ray on this machine for the tests of a module, and work that its workers can be sent."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from keygap.errors import UserError
from keygap.workers import Workers, workers_of

ROOT = Path(__file__).parents[2]


@contextmanager
def ray_here() -> Iterator[Workers]:
    """Two workers of a Ray of this process; they find the tests' modules."""
    with pytest.MonkeyPatch.context() as patch:
        known = [str(ROOT / "src"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(known).rstrip(os.pathsep))
        patch.delenv("RAY_ADDRESS", raising=False)
        with workers_of("ray", 2) as workers:
            yield workers


@dataclass(frozen=True)
class Task:
    """Squares numbers, and notes in files what happened.

    Attributes:
        folder: of the notes.
        dies: the numbers whose worker is killed over them once.
        always: the numbers whose worker is killed over them each time.
        fails: the numbers that raise a user error, by message.
        breaks: the numbers that divide by zero.
        slow: the numbers that take half a second.
        awaits: the numbers that wait until two workers have begun.
    """

    folder: Path
    dies: tuple[int, ...] = ()
    always: tuple[int, ...] = ()
    fails: tuple[int, ...] = ()
    breaks: tuple[int, ...] = ()
    slow: tuple[int, ...] = ()
    awaits: tuple[int, ...] = ()

    def begin(self):
        (self.folder / f"began-{os.getpid()}").touch()
        return self.square

    def square(self, number: int) -> int:
        if number in self.slow:
            time.sleep(0.5)
        while number in self.awaits and len(list(self.folder.glob("began-*"))) < 2:
            time.sleep(0.05)
        once = self.folder / f"died-{number}"
        if number in self.always or (number in self.dies and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number in self.fails:
            raise UserError(f"{number} cannot be squared: give another")
        if number in self.breaks:
            return number // 0
        return number**2


def never_begins():
    raise UserError("there is nothing here to begin with: install it")


def killed_at_once():
    os.kill(os.getpid(), signal.SIGKILL)
