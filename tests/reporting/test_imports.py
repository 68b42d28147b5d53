"""A report is made from files: it needs no model library."""

from __future__ import annotations

import subprocess
import sys


def test_a_report_imports_neither_torch_nor_transformers():
    code = "import sys, keygap.reporting.page\nprint({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_looking_at_a_run_imports_no_figures_either():
    code = (
        "import sys, keygap.reporting.view\n"
        "print({'torch', 'transformers', 'matplotlib', 'openTSNE'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
