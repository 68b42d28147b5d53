"""YAML that a user writes: plain values, or one line that names what is not plain.

The table of ``tests/bad_inputs`` has the files that are refused; here is what is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from keygap import strict_yaml
from keygap.errors import UserError
from keygap.model_options import as_yaml, assigned

ROOT = Path(__file__).parents[1]
EXPERIMENTS = [*(ROOT / "experiments").glob("*.yaml"), ROOT / "src/keygap/micro/demo.yaml"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", {"a": 1}),
        ("a: +1", {"a": 1}),
        ("a: 1.5e+3\nb: 1.0e-3\nc: -.5", {"a": 1500.0, "b": 0.001, "c": -0.5}),
        ("a: 1.2.3\nb: 1e3.5\nc: 1e", {"a": "1.2.3", "b": "1e3.5", "c": "1e"}),
        ("a: '1e-3'", {"a": "1e-3"}),
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


@pytest.mark.parametrize(
    "word",
    ["1e-3", "1e3", "1E+3", "-1e3", "+1e3", "1.5e3", "1.5E3", "1.e3", ".5e3", "0e0", "12e4567"],
)
def test_a_number_of_one_version_of_yaml_is_refused_in_one_line(word: str) -> None:
    """These are numbers in YAML 1.2 and text in YAML 1.1."""
    for text in (f"a: {word}", f"- {word}", f"{word}: a"):
        with pytest.raises(UserError) as error:
            strict_yaml.parse(text, "here")
        assert f"{word} may be read in two ways" in str(error.value)
        assert "such as 0.001 or 1.0e-3, or put the word into quotes" in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"the value of --setting p\.x is not valid YAML"):
        as_yaml(assigned([f"p.x={word}"], "--setting", "NAME=VALUE"), "--setting")
    assert as_yaml({"p.x": f"'{word}'"}, "--setting") == {"p.x": word}


@pytest.mark.parametrize("word", ["01.5", "00.5", "1_000.5", "1.5_0", "1.0_0e+3", ".5_0"])
def test_a_number_in_an_unusual_form_is_no_text(word: str) -> None:
    assert isinstance(yaml.safe_load(word), float)
    with pytest.raises(UserError, match="may be read in two ways: write a decimal number"):
        strict_yaml.parse(word, "here")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.name)
def test_the_experiments_of_the_repository_read_as_before(path: Path) -> None:
    assert strict_yaml.read(path) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    "text",
    ["yes", "No", "010", "09", "0o17", "1e3", "1.5e3", "1e-3", "01.5", "1_0.5", "nan", ".nan",
     "12:30", "1_0", "null", "~", "", "true", "a: b", "- x", "#", "<<", "1234567", "0x1f", "国",
     "\x1b", "a\n", "'", '"', "1."],
)  # fmt: skip
def test_text_that_is_written_is_read_as_the_same_text(text: str) -> None:
    for value in ({"key": text}, {text: "value"}, {"key": [text, 1, 1.5, True, None]}):
        assert strict_yaml.parse(strict_yaml.dump(value), "here") == value
        assert yaml.safe_load(strict_yaml.dump(value)) == value
