"""The check of sizes, run as ``make lint`` runs it, on trees written for the purpose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "check_sizes.py"


def run(root: Path) -> tuple[int, list[str]]:
    """Exit status and lines of the check, with ``root/`` cut from paths."""
    done = subprocess.run([sys.executable, SCRIPT, root], capture_output=True, text=True)
    return done.returncode, (done.stdout + done.stderr).replace(f"{root}/", "").splitlines()


def written(root: Path, path: str, text: str) -> None:
    (root / "src").mkdir(exist_ok=True)
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def function(body: int, docstring: int = 0) -> str:
    """A function of ``body + 1`` lines and a docstring of so many lines."""
    document = ['    """First.', *["    more"] * (docstring - 2), '    """'] if docstring else []
    return "\n".join(["def long():", *document, *["    x = 1"] * body]) + "\n"


def nested(*headers: str, module: str = "") -> str:
    """A function whose blocks lie each inside the one before."""
    lines = ["def deep():", *(f"{'    ' * n}{h}" for n, h in enumerate(headers, start=1))]
    return module + "\n".join([*lines, "    " * (len(headers) + 1) + "pass"]) + "\n"


def test_a_function_of_61_lines_fails(tmp_path):
    written(tmp_path, "src/pkg/a.py", "x = 1\n\n\n" + function(body=60))
    assert run(tmp_path) == (
        1,
        ["src/pkg/a.py:4: function long has 61 lines, at most 60 are allowed"],
    )


def test_a_docstring_is_not_counted(tmp_path):
    written(tmp_path, "src/pkg/a.py", function(body=59, docstring=30))
    assert run(tmp_path) == (0, [])


def test_a_method_and_an_async_function_are_functions(tmp_path):
    method = "class A:\n" + "".join(f"    {line}\n" for line in function(60).splitlines())
    written(tmp_path, "src/a.py", method)
    written(tmp_path, "src/b.py", "async " + function(body=60))
    status, lines = run(tmp_path)
    assert status == 1
    assert [line.split(":")[0] for line in lines] == ["src/a.py", "src/b.py"]


@pytest.mark.parametrize(
    "headers",
    [
        ("for a in b:", "if a:", "with a:", "while a:", "if b:"),
        ("if a:", "if a:", "if a:", "if a:", "async def inner():", "async for x in a:"),
        ("match a:", "case 1:", "if a:", "if a:", "if a:", "if a:"),
    ],
)
def test_five_blocks_deep_fails(tmp_path, headers):
    written(tmp_path, "src/a.py", nested(*headers))
    status, lines = run(tmp_path)
    assert status == 1
    assert lines == ["src/a.py:1: function deep nests blocks 5 deep, at most 4 are allowed"]


def test_four_blocks_deep_pass(tmp_path):
    written(tmp_path, "src/a.py", nested("for a in b:", "if a:", "with a:", "while a:"))
    assert run(tmp_path) == (0, [])


def test_a_try_and_its_handler_are_one_level(tmp_path):
    text = nested("if a:", "if a:", "if a:", "try:")
    text += "                except OSError:\n                    pass\n"
    written(tmp_path, "src/a.py", text)
    assert run(tmp_path) == (0, [])


def test_elif_is_no_deeper_than_its_if(tmp_path):
    chain = "".join(f"    elif a == {n}:\n        pass\n" for n in range(9))
    written(tmp_path, "src/a.py", "def flat(a):\n    if a:\n        pass\n" + chain)
    assert run(tmp_path) == (0, [])


def test_if_inside_else_is_deeper(tmp_path):
    lines = ["def deep(a):"]
    for level in range(1, 6):
        lines += [f"{'    ' * level}if a:", f"{'    ' * (level + 1)}pass", f"{'    ' * level}else:"]
    written(tmp_path, "src/a.py", "\n".join([*lines, "    " * 6 + "pass"]) + "\n")
    status, lines = run(tmp_path)
    assert status == 1
    assert "nests blocks 5 deep" in lines[0]


@pytest.mark.parametrize("folder", ["src", "tests"])
def test_a_file_of_401_lines_fails(tmp_path, folder):
    written(tmp_path, f"{folder}/a.py", "x = 1\n" * 401)
    written(tmp_path, f"{folder}/b.py", "x = 1\n" * 400)
    assert run(tmp_path) == (1, [f"{folder}/a.py has 401 lines, at most 400 are allowed"])


def test_functions_of_tests_may_be_long(tmp_path):
    written(tmp_path, "tests/a.py", function(body=100))
    assert run(tmp_path) == (0, [])


def test_a_folder_without_sources_is_refused(tmp_path):
    status, lines = run(tmp_path)
    assert status == 1
    assert lines == ["no folder src: give the root of the repository"]
