"""Checks that functions stay short and flat, and files short.

Prints one line for each function in ``src`` that is longer than 60 lines (its docstring apart) or
nests blocks more than 4 deep, and for each file in ``src`` or ``tests`` that is longer than 400
lines. The exit status is 1 if there is any.

    python tools/check_sizes.py [ROOT]
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FUNCTION_LINES = 60
FUNCTION_DEPTH = 4
FILE_LINES = 400

Function = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (
    ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar,
    ast.Match,
)  # fmt: skip


def function_lines(function: Function) -> int:
    """Lines from ``def`` to the end of the body, less those of the docstring."""
    lines = function.end_lineno - function.lineno + 1  # type: ignore[operator]
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= docstring.end_lineno - docstring.lineno + 1  # type: ignore[operator]
    return lines


def depth(node: ast.AST) -> int:
    """How deep blocks nest inside a node; an ``elif`` is as deep as its ``if``."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        opens = isinstance(child, BLOCKS) and not is_elif(node, child)
        deepest = max(deepest, depth(child) + opens)
    return deepest


def is_elif(parent: ast.AST, child: ast.AST) -> bool:
    """Whether ``child`` is written as an ``elif`` of ``parent``, which begins in its column."""
    return (
        isinstance(parent, ast.If)
        and isinstance(child, ast.If)
        and parent.orelse == [child]
        and parent.col_offset == child.col_offset
    )


def offences_of_functions(path: Path) -> Iterator[str]:
    """One line for each function of a file that is too long or nests too deep."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, Function):
            continue
        place = f"{path}:{node.lineno}: function {node.name}"
        if (lines := function_lines(node)) > FUNCTION_LINES:
            yield f"{place} has {lines} lines, at most {FUNCTION_LINES} are allowed"
        if (deepest := depth(node)) > FUNCTION_DEPTH:
            yield f"{place} nests blocks {deepest} deep, at most {FUNCTION_DEPTH} are allowed"


def offences(root: Path) -> Iterator[str]:
    """One line for each offence under ``root/src`` and ``root/tests``."""
    for folder in ("src", "tests"):
        for path in sorted((root / folder).rglob("*.py")):
            if (lines := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES:
                yield f"{path} has {lines} lines, at most {FILE_LINES} are allowed"
            if folder == "src":
                yield from offences_of_functions(path)


def main() -> None:
    """Print every offence and exit with 1 if there is any."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    if not (root / "src").is_dir():
        sys.exit(f"no folder {root / 'src'}: give the root of the repository")
    found = list(offences(root))
    for line in found:
        print(line)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
