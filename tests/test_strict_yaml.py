"""YAML that a user writes: plain values, or one line that names what is not plain.

The table of ``tests/bad_inputs`` has the files that are refused; here is what is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from keygap import strict_yaml

ROOT = Path(__file__).parents[1]
EXPERIMENTS = [*(ROOT / "experiments").glob("*.yaml"), ROOT / "src/keygap/micro/demo.yaml"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", {"a": 1}),
        ("a: +1", {"a": 1}),
        ("a: 1.5e+3", {"a": 1500.0}),
        ("a: .inf", {"a": float("inf")}),
        ("a: ~\nb:\nc: null", {"a": None, "b": None, "c": None}),
        ("a: True\nb: FALSE", {"a": True, "b": False}),
        ("a: 'yes'\nb: \"010\"", {"a": "yes", "b": "010"}),
        ("a: 2024-01-01", {"a": "2024-01-01"}),  # text here, a date in YAML 1.1
        ("\ufeffa: 1", {"a": 1}),
        ("a: &x [1, 2]\nb: *x", {"a": [1, 2], "b": [1, 2]}),
    ],
)
def test_plain_values(text: str, value: Any) -> None:
    assert strict_yaml.parse(text, "here") == value


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.name)
def test_the_experiments_of_the_repository_read_as_before(path: Path) -> None:
    assert strict_yaml.read(path) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    "text",
    ["yes", "No", "010", "09", "0o17", "1e3", "1.5e3", "nan", ".nan", "12:30", "1_0", "null", "~",
     "", "true", "a: b", "- x", "#", "<<", "1234567", "0x1f", "国", "\x1b", "a\n", "'", '"', "1."],
)  # fmt: skip
def test_text_that_is_written_is_read_as_the_same_text(text: str) -> None:
    for value in ({"key": text}, {text: "value"}, {"key": [text, 1, 1.5, True, None]}):
        assert strict_yaml.parse(strict_yaml.dump(value), "here") == value
        assert yaml.safe_load(strict_yaml.dump(value)) == value
