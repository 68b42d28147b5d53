"""Every public name says what it takes, gives and refuses, and the reference lists all of them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

import keygap as kg
from keygap.registry import Registry

MODULES = (kg, kg.gap, kg.align, kg.bias, kg.choices)
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
    if inspect.signature(function).return_annotation not in (None, "None"):
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
    elif found.__init__ is not object.__init__ and not issubclass(found, Exception):
        assert documented(said.get("Args", "")) == parameters(found.__init__)


@pytest.mark.parametrize("member", METHODS)
def test_a_method_describes_its_arguments_and_errors(member: Any) -> None:
    said = sections(member)
    assert said[""].strip()
    if isinstance(member, property):
        return
    assert documented(said.get("Args", "")) == parameters(member)
    assert raised(member) <= set(documented(said.get("Raises", "")))
