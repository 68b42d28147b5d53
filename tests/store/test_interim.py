"""Values that a command keeps while it works come back as they were, or not at all."""

from __future__ import annotations

import json
import math

import pytest

from keygap.errors import UserError
from keygap.store.interim import read_interim, write_interim

VALUES = {"third": 1 / 3, "big": 1e300, "none": None, "text": "Ġcafé", "rows": [{"a": 1}, {"b": 2}]}


def test_they_come_back_to_the_last_bit(tmp_path):
    write_interim(tmp_path / "new/values.json", VALUES)
    assert read_interim(tmp_path / "new/values.json", "run again") == VALUES
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["values.json"]


def test_infinity_and_nan(tmp_path):
    write_interim(tmp_path / "a.json", {"high": math.inf, "low": -math.inf, "nan": math.nan})
    found = read_interim(tmp_path / "a.json", "run again")
    assert (found["high"], found["low"]) == (math.inf, -math.inf)
    assert math.isnan(found["nan"])


def test_other_programs_can_read_them(tmp_path):
    write_interim(tmp_path / "a.json", VALUES)
    assert json.loads((tmp_path / "a.json").read_text())["values"] == VALUES


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("0.333", "0.335"),
        lambda text: text.replace("none", "gone"),
        lambda text: text[:-20],
        lambda text: "",
        lambda text: json.dumps(VALUES),
        lambda text: "[1]",
    ],
)
def test_damage_is_one_line(tmp_path, damage):
    file = tmp_path / "a.json"
    write_interim(file, VALUES)
    file.write_text(damage(file.read_text()))
    with pytest.raises(UserError, match=r"a\.json is damaged .*: run again$"):
        read_interim(file, "run again")


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"a\.json .*: run again$"):
        read_interim(tmp_path / "a.json", "run again")
