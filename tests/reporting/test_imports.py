"""A report is made from files: it needs no model library."""

from __future__ import annotations

import subprocess
import sys


def test_a_report_imports_neither_torch_nor_transformers():
    code = "import sys, keygap.reporting.page\nprint({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
