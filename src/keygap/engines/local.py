"""The engine that extracts in this process, one part after another."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

from keygap.engines.part import run_part
from keygap.engines.plan import Plan, WrittenPart
from keygap.store import write_part


class LocalEngine:
    """Extracts the parts of a plan in this process."""

    def run(self, plan: Plan, numbers: Sequence[int], root: Path) -> Generator[WrittenPart]:
        """See ``Engine.run``."""
        for number in numbers:
            yield _written(plan, number, root)


def _written(plan: Plan, number: int, root: Path) -> WrittenPart:
    tables = run_part(plan, number)
    return WrittenPart(number, tables.samples, write_part(root, number, tables))
