"""The table of environments in which the tests were run, in ``docs/versions.md``.

    .venv-lowest/bin/python tools/tested.py record lowest -- --numprocesses 2 --dist loadgroup
    .venv/bin/python tools/tested.py write

``record`` runs pytest with the Python that runs this file and keeps counts and versions in
``bench/results/tested.json``. ``write`` puts the table of all records between two markers of the
page.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from keygap.reporting.papers import markdown

ROOT = Path(__file__).parent.parent
RECORDS, PAGE = ROOT / "bench/results/tested.json", ROOT / "docs/versions.md"
PACKAGES = ("torch", "transformers", "numpy", "pandas", "scikit-learn", "typer")
TABLE = re.compile(r"(<!-- tested -->\n).*?(<!-- end -->)", re.DOTALL)


def record(name: str, arguments: list[str]) -> int:
    """Run the tests and keep what came of it; returns pytest's exit status."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", f"--junitxml={results}", *arguments]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        (suite,) = ElementTree.parse(results).getroot().iter("testsuite")
    counts = {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
    found = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
    found[name] = {
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
        **counts,
    }
    RECORDS.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    return status


def table() -> str:
    """All records, one row each."""
    rows = []
    for name, each in sorted(json.loads(RECORDS.read_text()).items()):
        failed = each["failures"] + each["errors"]
        passed = each["tests"] - failed - each["skipped"]
        counts = {"passed": passed, "failed": failed, "skipped": each["skipped"]}
        rows.append({"environment": name, "Python": each["python"], **each["packages"], **counts})
    return markdown(pd.DataFrame(rows))


def main() -> int:
    """Record or write, as the first argument says."""
    match sys.argv[1:]:
        case ["record", name, "--", *arguments]:
            return record(name, arguments)
        case ["write"]:
            PAGE.write_text(
                TABLE.sub(
                    lambda found: found[1] + table().strip() + "\n" + found[2], PAGE.read_text()
                )
            )
            return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
