"""``bench/compare_gap.py`` on tables whose differences are known."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest

SCRIPT = Path(__file__).parents[1] / "bench" / "compare_gap.py"
HEADER = "model,connector,benchmark,site,layer,head,contrast,confound,mmd2,bandwidth,p_holm,highest"
ROWS = (
    "m,linear,easy-vqa,k_proj,0,all,image_text,,0.25,100.0,0.025,text_vocabulary",
    "m,linear,easy-vqa,k_proj,0,all,image_text,with_template,0.5,90.0,,",
    "m,linear,easy-vqa,k_proj,0,0,image_text,,-0.125,inf,1.0,text_vocabulary",
)


def compared(
    folder: Path, a: tuple[str, ...], b: tuple[str, ...], *options: str
) -> tuple[int, str]:
    """Exit status of the comparison and what it printed."""
    for name, rows in (("a", a), ("b", b)):
        (folder / name).mkdir()
        (folder / name / "gap.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return run(folder / "a", folder / "b" / "gap.csv", *options)


def run(*arguments: str | Path) -> tuple[int, str]:
    said = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [str(SCRIPT), *map(str, arguments)]),
        contextlib.redirect_stdout(said),
        pytest.raises(SystemExit) as stopped,
    ):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    if isinstance(stopped.value.code, str):  # the interpreter prints it and exits with 1
        return 1, said.getvalue() + stopped.value.code + "\n"
    return int(stopped.value.code or 0), said.getvalue()


def changed(row: int, old: str, new: str) -> tuple[str, ...]:
    rows = list(ROWS)
    assert rows[row].count(old) == 1
    rows[row] = rows[row].replace(old, new)
    return tuple(rows)


def test_equal_tables_in_another_order_are_equal(tmp_path):
    status, said = compared(tmp_path, ROWS, ROWS[::-1])
    assert status == 0
    assert said.splitlines()[-1] == "3 rows, 5 columns compared to 1e-06: equal"


@pytest.mark.parametrize(
    ("row", "old", "new", "column"),
    [
        (0, "0.25,", "0.250002,", "mmd2"),
        (2, "-0.125", "0.125", "mmd2"),
        (0, "100.0", "100.0002", "bandwidth"),
        (2, "inf", "1e300", "bandwidth"),
        (2, "inf", "-inf", "bandwidth"),
        (1, "90.0,,", "90.0,0.5,", "p_holm"),
        (0, ",0.025,", ",,", "p_holm"),
        (2, "text_vocabulary", "image_region", "highest"),
        (0, "text_vocabulary", "", "highest"),
        (1, "linear", "mlp", "connector"),
    ],
)
def test_a_difference_is_found_and_named(tmp_path, row, old, new, column):
    status, said = compared(tmp_path, ROWS, changed(row, old, new))
    assert status == 1
    assert said.splitlines()[-1] == f"3 rows, 5 columns compared to 1e-06: differ in {column}"


@pytest.mark.parametrize(("old", "new"), [("0.25,", "0.2500009,"), ("100.0", "100.00009")])
def test_a_difference_below_the_tolerance_is_shown_and_passes(tmp_path, old, new):
    status, said = compared(tmp_path, ROWS, changed(0, old, new))
    assert status == 0
    assert "9.00e-07   m easy-vqa k_proj 0 all image_text" in said


def test_the_tolerance_can_be_chosen(tmp_path):
    status, _ = compared(tmp_path, ROWS, changed(0, "0.25,", "0.251,"), "--tolerance", "0.01")
    assert status == 0


def test_the_largest_difference_of_a_column_is_the_one_printed(tmp_path):
    b = (changed(0, "0.25,", "0.26,")[0], changed(1, "0.5,", "0.7,")[1], ROWS[2])
    _, said = compared(tmp_path, ROWS, b)
    assert "mmd2              2.00e-01   m easy-vqa k_proj 0 all image_text with_template" in said


def test_a_row_on_one_side_only_fails(tmp_path):
    status, said = compared(tmp_path, ROWS[:2], ROWS)
    assert status == 1
    assert "row only in B: m easy-vqa k_proj 0 0 image_text" in said
    assert said.rstrip().endswith("equal; 1 rows or columns are on one side only")


def test_a_column_on_one_side_only_fails(tmp_path):
    (tmp_path / "more.csv").write_text("\n".join([f"{HEADER},new", *(f"{r},1" for r in ROWS)]))
    (tmp_path / "less.csv").write_text("\n".join([HEADER, *ROWS]))
    status, said = run(tmp_path / "more.csv", tmp_path / "less.csv")
    assert status == 1
    assert "column only in A: new" in said


def test_two_rows_of_one_key_are_refused(tmp_path):
    status, said = compared(tmp_path, ROWS, (*ROWS, ROWS[0]))
    assert status == 1
    assert "has two rows of m easy-vqa k_proj 0 all image_text" in said


def test_a_missing_file_is_one_line(tmp_path):
    assert run(tmp_path, tmp_path) == (1, f"no file {tmp_path / 'gap.csv'}\n")
