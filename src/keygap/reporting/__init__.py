"""Figures and the HTML report of measured runs.

A report is made from the files of a run alone, so nothing here imports torch or transformers.
"""

from keygap.reporting.page import report
from keygap.reporting.run import Run, read_run

__all__ = ["Run", "read_run", "report"]
