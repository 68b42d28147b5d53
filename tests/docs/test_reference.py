"""Every public name says what it takes, gives and refuses, and the reference lists all of them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import runpy
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pandas as pd
import pyarrow.parquet
import pytest
import typer.main
import yaml

import keygap as kg
from align.causes.simulated import causes_table
from choices.simulated import choices_table
from documentation import ROOT
from keygap.cli import app
from keygap.contrasts.own import OwnContrast, Selection
from keygap.models.load import wrap
from keygap.registry import Registry
from keygap.reporting.published import Published, PublishedValue
from keygap.store import run
from keygap.study import sections as sections_of_a_study
from keygap.study.experiment import Experiment
from keygap.study.sections import Section
from made import bench_of
from models.zoo import BY_FAMILY
from reporting.explored import looked_at, pictured
from reporting.made_bias import save_bias

MODULES = (kg, kg.benchmarks, kg.gap, kg.align, kg.bias, kg.choices)
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$", re.MULTILINE)


def sections(found: Any) -> dict[str, str]:
    """The sections of a docstring by name, without indentation; the text before them under ""."""
    parts = SECTION.split(inspect.getdoc(found) or "")
    named = zip(parts[1::2], parts[2::2], strict=True)
    return {"": parts[0], **{name: textwrap.dedent(text).strip("\n") for name, text in named}}


def documented(text: str) -> list[str]:
    """The names that begin the entries of a section."""
    return re.findall(r"^\*{0,2}(\w+)(?: \([^)]*\))?:", text, re.MULTILINE)


def public() -> Iterator[tuple[str, Any]]:
    """Every public object once, with its name; registries are tables and have their own test."""
    seen = set()
    for module in MODULES:
        for name in module.__all__:
            found = getattr(module, name)
            if isinstance(found, (ModuleType, Registry)) or found in seen:
                continue
            seen.add(found)
            yield f"{module.__name__}.{name}", found


def methods(found: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class of keygap defines itself."""
    for name, member in vars(found).items():
        if not name.startswith("_"):
            plain = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
            if inspect.isfunction(plain) or isinstance(plain, property):
                yield name, plain


OBJECTS = list(public())
FUNCTIONS = [pytest.param(each, id=name) for name, each in OBJECTS if inspect.isfunction(each)]
CLASSES = [pytest.param(each, id=name) for name, each in OBJECTS if inspect.isclass(each)]
METHODS = [
    pytest.param(member, id=f"{name}.{own}")
    for name, each in OBJECTS
    if inspect.isclass(each)
    for own, member in methods(each)
]


def is_section(found: Any) -> bool:
    return inspect.isclass(found) and issubclass(found, Section) and found is not Section


def parameters(function: Callable[..., Any]) -> list[str]:
    names = list(inspect.signature(function).parameters)
    return [name for name in names if name not in ("self", "cls")]


def raised(function: Callable[..., Any]) -> set[str]:
    """Names of exceptions that the function itself raises."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            made = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = ast.unparse(made)
            found.add("UserError" if name == "unknown" else name)  # keygap.errors.unknown makes one
    return {name for name in found if name[0].isupper()}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_describes_its_arguments_result_and_errors(function: Any) -> None:
    said = sections(function)
    assert said[""].strip()
    assert documented(said.get("Args", "")) == parameters(function)
    if inspect.signature(function).return_annotation not in ("None", "Iterator[None]"):
        assert "Returns" in said or "Yields" in said
    assert raised(function) <= set(documented(said.get("Raises", "")))


@pytest.mark.parametrize("found", CLASSES)
def test_a_class_describes_its_fields_or_arguments(found: Any) -> None:
    said = sections(found)
    assert said[""].strip()
    if dataclasses.is_dataclass(found):
        fields = [field.name for field in dataclasses.fields(found) if field.init]
        listed = documented(said.get("Attributes", "")) or documented(said.get("Args", ""))
        assert [name for name in listed if name in fields] == fields
    elif inspect.isabstract(found):  # its constructor is that of each subclass
        assert documented(said.get("Attributes", "")) == list(inspect.get_annotations(found))
    elif not getattr(found, "_is_protocol", False) and not issubclass(found, Exception):
        assert documented(said.get("Args", "")) == parameters(found.__init__)


@pytest.mark.parametrize("member", METHODS)
def test_a_method_describes_its_arguments_and_errors(member: Any) -> None:
    said = sections(member)
    assert said[""].strip()
    if isinstance(member, property):
        return
    assert documented(said.get("Args", "")) == parameters(member)
    assert raised(member) <= set(documented(said.get("Raises", "")))


# The reference is made by a script, as ``make docs`` runs it.
@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages of the reference by name, as ``python -m tools.reference`` writes them."""
    out = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        patch.setattr(sys, "argv", ["tools.reference", "--out", str(out)])
        runpy.run_module("tools.reference", run_name="__main__")
    return {path.stem: path.read_text() for path in out.glob("*.md")}


def test_the_reference_lists_every_public_name(pages: dict[str, str]) -> None:
    for module in MODULES:
        page = "api" if module is kg else module.__name__.rpartition(".")[2]
        short = module.__name__.replace("keygap", "kg")
        shown = set(re.findall(r"(?:heading: |^### |\[`)(kg[\w.]*)", pages[page], re.MULTILINE))
        assert shown == {f"{short}.{name}" for name in module.__all__}


def test_every_object_is_described_once_where_it_is_defined(pages: dict[str, str]) -> None:
    placed = re.findall(r"^::: (\S+)$", "\n".join(pages.values()), re.MULTILINE)
    assert len(placed) == len(set(placed)) == len(OBJECTS)
    assert set(placed) == {f"{each.__module__}.{each.__qualname__}" for _, each in OBJECTS}


def test_every_name_that_can_be_given_is_listed(pages: dict[str, str]) -> None:
    text = "\n".join(pages.values())
    for registry in (kg.gap.STATISTICS, kg.align.MAPS, kg.align.BASELINES, kg.bias.PROBES):
        for name, what in registry.described():
            assert f"| `{name}` | {what[:20]}" in text


def test_every_command_and_option_is_in_the_reference(pages: dict[str, str]) -> None:
    parts = dict(
        re.findall(r"^## (keygap[\w ]*)\n(.*?)(?=^## |\Z)", pages["cli"], re.M | re.DOTALL)
    )
    root: Any = typer.main.get_command(app)
    commands = {f"keygap {name}": each for name, each in root.commands.items()}
    commands |= {f"keygap micro {n}": each for n, each in root.commands["micro"].commands.items()}
    assert set(parts) == set(commands)
    for name, command in commands.items():
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else ():
                assert option in re.findall(r"-[\w-]+", parts[name]), (name, option)
    assert re.search(r"^\| `--samples (<int range>|INTEGER RANGE)` \| .* At least 1\. \| `200` \|$",
                     parts["keygap extract"], re.MULTILINE)  # fmt: skip


def test_every_key_of_an_experiment_file_is_in_the_reference(pages: dict[str, str]) -> None:
    """Each with what it is, and with the section that a value of several keys has."""
    page = pages["experiment"]
    anchors = set(re.findall(r"\{ #(\w+) \}$", page, re.MULTILINE))
    assert set(re.findall(r"\]\(#(\w+)\)", page)) == anchors
    parts = re.split(r"^## .*$", page, flags=re.MULTILINE)[1:]
    own = [each for each in vars(sections_of_a_study).values() if is_section(each)]
    classes = [Experiment, *own, OwnContrast, Selection, Published, PublishedValue]
    tables = [dict(re.findall(r"^\| `(\w+)` \| (\S.*?) \|", part, re.MULTILINE)) for part in parts]
    assert len(tables) == len(classes)
    assert sorted(map(list, tables)) == sorted(list(each.model_fields) for each in classes)
    assert "| integer, at least 1 | `200` |" in page


def test_every_file_of_a_run_is_in_the_reference(pages: dict[str, str]) -> None:
    constants = {name: value for name, value in vars(run).items() if name.isupper()}
    for name in ("PARTS", "FORMER", "TOKENS", "VECTORS", "THUMBNAILS"):  # shown with their folders
        constants.pop(name)
    for name in constants.values():
        assert re.search(
            rf"^(## {re.escape(name)}$|\| `{re.escape(name)}`)", pages["files"], re.M
        ), name


def table_of(pages: dict[str, str], name: str) -> list[str]:
    """The columns that the reference has for a file."""
    heading = rf"^## {re.escape(name)}$(.*?)(?=^## |\Z)"
    (text,) = re.findall(heading, pages["files"], re.MULTILINE | re.DOTALL)
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The columns of tables that keygap writes, by the name of their file."""
    folder = tmp_path_factory.mktemp("run") / "run"
    looked_at("qwen2_vl", folder)
    save_bias(folder, (0, 1))
    causes_table("attention", n=20, n_bootstraps=9).save(folder)
    choices_table().save(folder)
    model = wrap(*BY_FAMILY["qwen2_vl"].build(), name="tiny")
    kg.answer(model, bench_of([pictured(number) for number in range(2)])).save(folder)
    names = {path.name: list(pd.read_csv(path).columns) for path in folder.glob("*.csv")}
    for path in folder.rglob("*.parquet"):
        place = path.relative_to(folder).as_posix().replace("part-00000", "part-*")
        place = re.sub(r"site=\w+/layer=\w+", "site=SITE/layer=LAYER", place)
        names[place] = pyarrow.parquet.read_schema(path).names
    return names


def test_columns_in_the_reference_are_those_of_the_files(
    pages: dict[str, str], written: dict[str, list[str]]
) -> None:
    assert len(written) > 18
    for name, columns in written.items():
        assert table_of(pages, name) == columns, name


def test_nothing_is_said_about_a_column_that_does_not_exist(pages: dict[str, str]) -> None:
    said = yaml.safe_load((ROOT / "tools" / "columns.yaml").read_text())
    inherited: set[str] = set()
    for name, table in said["tables"].items():
        columns = set(table_of(pages, name))
        assert set(table["columns"]) <= columns, name
        inherited |= columns - set(table["columns"])
    assert set(said["shared"]) <= inherited
