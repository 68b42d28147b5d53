"""A report is made from files: it needs no model library, and looking at a run no figures."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
unwanted = {"torch", "transformers", "matplotlib", "openTSNE"}
import keygap.reporting.view
print(sorted(unwanted & set(sys.modules)))
import keygap.reporting.page
print(sorted(unwanted & set(sys.modules)))
"""


def test_what_a_view_and_a_report_import():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    view, report = done.stdout.splitlines()
    assert view == "[]"
    assert report == "['matplotlib']"
