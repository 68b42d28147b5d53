"""Tests mirror the source: each package has tests in the folder of its name."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
OF_ALL_PACKAGES = {"bad_inputs", "docs"}  # through the command line; the reference and the site


def packages(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/__init__.py")}


def test_each_package_has_tests():
    tested = {
        name
        for name in packages(ROOT / "tests")
        if list((ROOT / "tests" / name).rglob("test_*.py"))
    }
    assert packages(ROOT / "src" / "keygap") - tested == set()


def test_each_folder_of_tests_has_its_package():
    assert packages(ROOT / "tests") - packages(ROOT / "src" / "keygap") == OF_ALL_PACKAGES
