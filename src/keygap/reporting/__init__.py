"""Figures and the HTML report of measured runs.

A report is made from the files of a run alone, so nothing here imports torch or transformers. What
draws figures is imported when it is used: looking at a run (``keygap.reporting.view``) needs none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keygap.lazy import lazy

if TYPE_CHECKING:
    from keygap.reporting.page import report as report
    from keygap.reporting.run import Run as Run
    from keygap.reporting.run import read_run as read_run

_PUBLIC = {
    "Run": "keygap.reporting.run:Run",
    "read_run": "keygap.reporting.run:read_run",
    "report": "keygap.reporting.page:report",
}
__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy(__name__, _PUBLIC)
