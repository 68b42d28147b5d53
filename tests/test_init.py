"""The public API: its names are listed, typed and imported on first use."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import resources

import pytest

import keygap as kg

NAMES = {
    "Answers", "AttentionMap", "AttentionTable", "BiasTable", "ChoicesTable", "GapTable",
    "LinkTable",
    "Projection", "ReadingTable", "Store", "UserError", "VLM", "align", "answer",
    "choices", "specifications",
    "attention_indices", "attention_map",
    "benchmark", "benchmarks", "bias", "causes", "extract", "gap", "link", "load", "mask",
    "measure", "measure_attention",
    "probe", "project", "reading_layers", "report",
}  # fmt: skip


def test_dir_lists_every_public_name():
    assert set(dir(kg)) == NAMES | {"__version__"}
    assert set(kg.__all__) == NAMES


def test_every_public_name_can_be_imported():
    for name in kg.__all__:
        assert getattr(kg, name) is not None
    with pytest.raises(AttributeError, match="module 'keygap' has no attribute 'measuer'"):
        kg.measuer  # noqa: B018


def test_type_checkers_see_the_same_objects():
    source = resources.files("keygap").joinpath("__init__.py").read_text()
    imported = {}
    (block,) = (node for node in ast.parse(source).body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for name in node.names:
            assert name.asname == name.name  # a re-export, to a type checker
            imported[name.name] = f"{node.module}:{name.name}"
    public = dict(kg._PUBLIC)
    for module in ("align", "benchmarks", "bias", "choices", "gap"):
        assert imported.pop(module) == f"keygap:{module}"
        assert public.pop(module) == f"keygap.{module}"
    assert imported == public


def test_the_package_says_that_it_is_typed():
    assert resources.files("keygap").joinpath("py.typed").is_file()


def test_the_package_is_imported_without_its_dependencies():
    code = "import sys, keygap; dir(keygap); print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
