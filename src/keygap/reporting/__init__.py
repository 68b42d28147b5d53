"""Figures and the HTML page."""

from keygap.reporting.page import report
from keygap.reporting.run import Run, read_run

__all__ = ["Run", "read_run", "report"]
