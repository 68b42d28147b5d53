"""Tables in a terminal: no column is cut, whatever its width."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len

from keygap import display, terminal

FRAME = pd.DataFrame(
    {
        "model": ["llava-hf/llava-1.5-7b-hf", "视觉语言模型/大"],
        "contrast": ["image_text", "text_vocabulary"],
        "mmd2": [0.24, np.nan],
        "interval": ["1.36 to 1.75", "1.49 to 2.61"],
        "ratio_same": [22.3, np.inf],
        "verdict": ["a sentence that is long enough to be wrapped at its spaces", "w" * 90],
    }
)


@pytest.mark.parametrize("width", [30, 80, 180])
def test_no_column_of_a_table_is_cut(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    terminal.print_table(FRAME, ["a note"])
    said = capsys.readouterr().out
    assert max(map(cell_len, said.splitlines())) <= width
    assert "…" not in said
    found = set()
    for block in said.split("┏")[1:]:
        lines = [re.split("[┃│]", line)[1:-1] for line in block.splitlines() if line[0] in "┃│"]
        found |= {"".join("".join(column).split()) for column in zip(*lines, strict=True)}
    for name in FRAME:
        cells = [str(name), *map(display.shown, FRAME[name])]
        assert "".join("".join(cells).split()) in found


def test_a_table_that_does_not_fit_continues_below_with_numbered_rows(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    frame = pd.DataFrame({f"column_{n}": [n, 10 * n] for n in range(9)})
    terminal.print_table(frame)
    said = capsys.readouterr().out
    found: dict[tuple[str, int], int] = {}
    for block in said.split("┏")[1:]:
        names = re.findall(r"[\w]+", block.splitlines()[1])
        for line in block.splitlines():
            if line.startswith("│"):
                row, *values = re.findall(r"\d+", line)
                found |= {
                    (name, int(row)): int(value)
                    for name, value in zip(names[1:], values, strict=True)
                }
    expected = {(name, row + 1): int(frame[name][row]) for name in frame for row in (0, 1)}
    assert found == expected
