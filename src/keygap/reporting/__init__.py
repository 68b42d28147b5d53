"""Figures and the HTML report of measured runs.

A report is made from the files of a run alone, so nothing here imports torch or transformers. What
draws figures is imported when it is used: looking at a run (``keygap.reporting.view``) needs none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keygap.reporting.page import report
    from keygap.reporting.run import Run, read_run

__all__ = ["Run", "read_run", "report"]

_HOMES = {"report": "page", "Run": "run", "read_run": "run"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'keygap.reporting' has no attribute {name!r}")
    return getattr(importlib.import_module(f"keygap.reporting.{_HOMES[name]}"), name)
