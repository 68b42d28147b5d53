"""The wheel that users install: what is in it, how large it is, and what importing it costs."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import keygap

ROOT = Path(__file__).parents[1]
MOST_BYTES = 12_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the working tree with the installed backend."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_is_small_and_pure(wheel) -> None:
    assert wheel.name == f"keygap-{keygap.__version__}-py3-none-any.whl"
    assert wheel.stat().st_size <= MOST_BYTES


def test_every_file_of_the_package_is_in_the_wheel_and_nothing_else(unpacked) -> None:
    package = {name for name in names(ROOT / "src") if "__pycache__" not in name}
    found = names(unpacked)
    assert {name for name in found if not name.startswith("keygap-")} == package
    info = f"keygap-{keygap.__version__}.dist-info"
    assert found - package == {
        f"{info}/{name}"
        for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    }


@pytest.mark.parametrize(
    "name",
    [
        "keygap/py.typed",
        "keygap/micro/demo.yaml",
        "keygap/micro/weights/linear.safetensors",
        "keygap/micro/weights/mlp.safetensors",
        "keygap/micro/weights/qformer.safetensors",
        "keygap/reporting/templates/report.html",
        "keygap/reporting/explorer/js/main.js",
        "keygap/reporting/explorer/third_party/d3-zoom.min.js",
        "keygap/reporting/explorer/third_party/LICENSE",
        "keygap/reporting/view/js/live.js",
    ],
)
def test_what_commands_read_is_in_the_wheel_unchanged(unpacked, name) -> None:
    ours, theirs = ((root / name).read_bytes() for root in (unpacked, ROOT / "src"))
    assert hashlib.sha256(ours).digest() == hashlib.sha256(theirs).digest()


def test_an_extra_names_no_package_that_is_compiled_where_it_is_installed(unpacked) -> None:
    (path,) = unpacked.glob("*.dist-info/METADATA")
    metadata = HeaderParser().parsestr(path.read_text(encoding="utf-8"))
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["Requires-Python"] == declared["requires-python"]
    assert set(metadata.get_all("Provides-Extra")) == {"micro", "lmms", "ray", "atlas"}
    needs = " ".join(metadata.get_all("Requires-Dist"))
    assert "smollm2" not in needs  # it names llama-cpp-python, which is


def test_importing_it_loads_no_torch_and_takes_less_than_numpy_and_pandas(unpacked) -> None:
    code = """
import sys, time
started = time.perf_counter()
import keygap
dir(keygap)
took = time.perf_counter() - started
assert keygap.__file__.startswith(sys.argv[1]), keygap.__file__
heavy = {"torch", "transformers", "numpy", "pandas"} & set(sys.modules)
assert not heavy, heavy
import keygap.cli
heavy = {"torch", "transformers"} & set(sys.modules)
assert not heavy, heavy
started = time.perf_counter()
import numpy, pandas
print(took / (time.perf_counter() - started))
"""
    ratios = []
    for _ in range(3):  # the first reads the files and compiles them
        done = subprocess.run(
            [sys.executable, "-c", code, str(unpacked)],
            env={"PYTHONPATH": str(unpacked), "PATH": ""}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        ratios.append(float(done.stdout))
    assert min(ratios) < 0.5, ratios
