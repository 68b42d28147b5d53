"""The page of the reference about the files of a run and the columns of its tables.

Columns, their order and types come from the code, and what a column means from ``columns.yaml``.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

COLUMNS = Path(__file__).with_name("columns.yaml")
INTRO = """\
# Files and columns

A run is one folder of plain Parquet, CSV and YAML files. Only files of commands that were run on it
are there. `keygap run` and `keygap demo` make a study folder, with one run folder for each model
and benchmark, `study.yaml`, and tables over all runs.

A table can be read without keygap, with pandas, Polars or DuckDB. The classes of [kg](api.md) read
it too, and verify its checksum.
"""


def described() -> dict[str, Any]:
    """The contents of ``columns.yaml``."""
    return yaml.safe_load(COLUMNS.read_text())


def columns_of(table: dict[str, Any]) -> dict[str, str]:
    """The columns of a table in their order, each with its type, empty where text files have none.

    Args:
        table: an entry of ``tables`` in ``columns.yaml``.
    """
    if isinstance(table["columns_of"], list):
        return dict.fromkeys(table["columns_of"], "")
    module, _, name = table["columns_of"].partition(":")
    found = getattr(import_module(module), name)
    if callable(found):  # a schema that depends on the model
        found = found(2, 64)
    if isinstance(found, pa.Schema):
        return {field.name: _type(field.type) for field in found}
    return dict.fromkeys(found, "")


def _type(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return "dictionary of string"
    if pa.types.is_fixed_size_list(kind):
        return "list of heads × head_dim numbers"
    return str(kind)


def files_page() -> str:
    """The page."""
    known = described()
    parts = [INTRO.rstrip()]
    for name, table in known["tables"].items():
        about = f"Written by {table['written_by']}. {_sentence(table['rows'])}"
        parts += [f"## {name}", about]
        parts.append(_table(table, known["shared"]))
    rows = [f"| `{name}` | {what} |" for name, what in known["others"].items()]
    parts += ["## Other files", "\n".join(["| file | what it is |", "|---|---|", *rows])]
    return "\n\n".join(parts) + "\n"


def _table(table: dict[str, Any], shared: dict[str, str]) -> str:
    columns = columns_of(table)
    typed = any(columns.values())
    head = ["column", *(["type"] if typed else []), "what it is"]
    lines = [_row(head), _row(["---"] * len(head))]
    for name, kind in columns.items():
        cells = [f"`{name}`", *([kind] if typed else []), meaning(name, table["columns"], shared)]
        lines.append(_row(cells))
    return "\n".join(lines)


def meaning(name: str, own: dict[str, str], shared: dict[str, str]) -> str:
    """What a column is.

    Args:
        name: of the column.
        own: what the columns of its table are, by name.
        shared: the same of columns of any table.

    Raises:
        KeyError: nothing is said about it.
    """
    for side, end in (("lower", "_low"), ("upper", "_high")):
        if name.endswith(end) and not {name} & {*own, *shared}:
            return f"{side} end of the 95 % interval of `{name.removesuffix(end)}` over samples"
    return own[name] if name in own else shared[name]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
