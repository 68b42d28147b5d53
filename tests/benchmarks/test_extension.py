"""A benchmark from outside keygap: one file and one registration, and ``kg.benchmark`` opens it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import keygap as kg
from keygap.benchmarks import (
    REGISTRY,
    Benchmark,
    Entry,
    Sample,
    benchmark,
    described,
)
from keygap.benchmarks.scoring import RULES, Accuracy, scores
from keygap.errors import UserError
from made import made_sample

SOURCE = '''
"""A benchmark in a package of its own."""

from PIL import Image

from keygap.benchmarks import Benchmark, Entry, Sample, image_then_question


class Colours(Benchmark):
    """Plain images and their colours."""

    name = "colours"
    names = ("red", "green", "blue")

    def __init__(self, split="bright"):
        self.split = split

    @property
    def answers(self):
        return self.names

    def index(self):
        return [Entry(name) for name in self.names]

    def sample(self, number):
        name = self.names[number]
        image = Image.new("RGB", (8, 8), name)
        prompt = image_then_question("which colour?")
        return Sample(name, (image,), "which colour?", prompt, name)
'''
USE = """
import sys
import keygap as kg
from keygap.benchmarks import described

assert "their_package" not in sys.modules
asked = kg.benchmark("colours", split="dark").choose(2, seed=0)
print(asked)
print(sorted(asked.benchmark.answers), asked.sample(0).question)
print(dict(described())["colours"])
kg.benchmark("colors")
"""


def test_a_package_adds_a_benchmark_by_an_entry_point(tmp_path: Path) -> None:
    (tmp_path / "their_package.py").write_text(SOURCE)
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[keygap.benchmarks]\ncolours = their_package:Colours\n")
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", USE],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.stdout.splitlines() == [
        "SampleSet(2 of 3 samples of colours, split dark, seed 0)",
        "['blue', 'green', 'red'] which colour?",
        "Plain images and their colours.",
    ]
    assert "UserError: unknown benchmark 'colors'; did you mean 'colours'" in done.stderr


class Mine(Benchmark):
    """Images of one colour, in a script of my own."""

    name, split, scoring = "mine", "all", "half"

    def __init__(self, language: str = "en") -> None:
        self.language = language

    @property
    def answers(self) -> tuple[str, ...]:
        return ("red", "blue")

    def index(self) -> list[Entry]:
        return [Entry(f"m{number}") for number in range(3)]

    def sample(self, number: int) -> Sample:
        return made_sample(f"m{number}", "what colour is it?")


@pytest.fixture
def registered():
    """The benchmark and its scoring rule, registered for one test."""
    REGISTRY.register("mine", Mine)
    RULES.register("half", lambda judged: {"overall": Accuracy(1, 2)})
    yield
    REGISTRY.unregister("mine")
    RULES.unregister("half")


@pytest.mark.usefixtures("registered")
def test_a_script_adds_a_benchmark_and_a_scoring_rule(vlm) -> None:
    asked = kg.benchmark("mine", language="zh").choose(2, seed=1)
    assert (len(asked), asked.benchmark.language) == (2, "zh")
    answers = kg.answer(vlm, asked)
    assert sorted(answers.frame["sample_id"]) == sorted(entry.id for entry in asked.entries)
    assert answers.accuracy.to_dict("records") == [
        {"rule": "overall", "correct": 1, "total": 2, "accuracy": 0.5}
    ]
    assert described()[-1] == ("mine", "Images of one colour, in a script of my own.")
    with pytest.raises(UserError, match="benchmark 'mine' has no split to choose"):
        kg.benchmark("mine", split="test")


def test_what_is_no_longer_registered_is_unknown() -> None:
    with pytest.raises(UserError, match="unknown benchmark 'mine'"):
        benchmark("mine")
    with pytest.raises(UserError, match="unknown scoring rule 'half'"):
        scores("half", [])


def test_every_benchmark_is_described_in_a_line() -> None:
    lines = dict(described())
    assert list(lines) == list(REGISTRY)
    assert {"easy-vqa", "mmmu-pro-vision", "mmbench-cn-circular", "jsonl:PATH"} <= set(lines)
    for name, line in lines.items():
        assert line.endswith("."), name
        assert line == str(REGISTRY[name].__doc__).partition("\n")[0]


def test_listing_benchmarks_imports_none_of_them() -> None:
    code = (
        "import sys; from keygap import cli; sys.argv = ['keygap', 'benchmarks']\n"
        "try: cli.main()\n"
        "finally: print(*sorted(sys.modules), file=sys.stderr)"
    )
    # readline adds COLUMNS to the environment of a process, which the workers of pytest inherit
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name, line in described():
        assert any(text.split() == [name, *line.split()] for text in done.stdout.splitlines())
    loaded = set(done.stderr.split())
    assert "keygap.benchmarks" in loaded
    assert not loaded & {"torch", "transformers", "pyarrow", "pandas", "lmms_eval", "easy_vqa"}
    assert not any(name.startswith("keygap.benchmarks.sources.") for name in loaded)
