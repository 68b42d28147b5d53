"""The value of a default in a signature, where the code has the name of a constant.

``batch_size: int = defaults.BATCH_SIZE`` is read from source code, so the documentation would show
that name. A constant that is a plain number, text or tuple is shown as its value instead.
"""

from __future__ import annotations

import ast
from typing import Any

from griffe import Alias, Expr, Extension, Function, Module, Object


class DefaultValues(Extension):
    """Puts values of constants into the signatures of a package."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Go through a package when all of it is read."""
        for function in _functions(pkg):
            for parameter in function.parameters:
                if isinstance(parameter.default, Expr):
                    value = _value(pkg, parameter.default)
                    parameter.default = parameter.default if value is None else value


def _functions(found: Object) -> list[Function]:
    """The functions of a module or class, and of all below it."""
    functions = []
    for member in found.members.values():
        if isinstance(member, Alias):  # it is elsewhere too
            continue
        if isinstance(member, Function):
            functions.append(member)
        else:
            functions += _functions(member)
    return functions


def _value(package: Module, default: Expr) -> str | None:
    """The literal value of the constant that an expression names; None if it names none."""
    place = default.canonical_path.removeprefix(f"{package.name}.")
    try:
        found = package[place]
        value = str(found.value)
        ast.literal_eval(value)
    except (KeyError, AttributeError, ValueError, SyntaxError):  # no constant, or a computed one
        return None
    return value
