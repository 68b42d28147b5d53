"""Named objects that are imported on first use and that other packages can add to.

A registry maps a name to ``"module:object"``. It imports nothing until a name is looked up, and
reads descriptions from source code, so that the command line lists what exists without loading
torch. An installed package adds entries through an entry point of the registry's group::

    [project.entry-points."keygap.benchmarks"]
    my-benchmark = "my_package.my_module:MyBenchmark"

A script or notebook adds one with ``register``.
"""

from __future__ import annotations

import ast
import inspect
import logging
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, overload

from keygap.errors import UserError, unknown

logger = logging.getLogger("keygap")
Item = TypeVar("Item")
Default = TypeVar("Default")


class Registry(Mapping[str, Item]):
    """A mapping from names to objects that are imported on first use.

    keygap's own names come first, in the order given, then those of entry points in alphabetical
    order, then those that were registered in this process.

    Args:
        kind: what one entry is called in messages, such as ``"benchmark"``.
        group: the entry-point group that other packages use, such as ``"keygap.benchmarks"``.
        targets: keygap's own entries, each as ``"module:object"``.
    """

    def __init__(self, kind: str, group: str, targets: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._targets = dict(targets)
        self._own = frozenset(targets)
        self._imported: dict[str, Item] = {}
        self._registered: dict[str, Item] = {}
        self._entry_points_read = False

    def register(self, name: str, item: Item) -> None:
        """Add an object under a name, for this process.

        Registering the same object twice has no effect.

        Raises:
            UserError: the name is taken by another object.
        """
        if self._registered.get(name) is item:
            return
        if name in self:
            raise UserError(f"there is already a {self.kind} {name!r}: choose another name")
        self._registered[name] = item

    def unregister(self, name: str) -> None:
        """Remove an object that ``register`` added.

        Raises:
            UserError: no object was registered under this name in this process.
        """
        if name not in self._registered:
            raise UserError(f"the {self.kind} {name!r} was not registered in this process")
        del self._registered[name]

    def added(self) -> list[str]:
        """List the names that other packages, or this process, have added to keygap's own."""
        return [name for name in self if name not in self._own]

    def described(self) -> list[tuple[str, str]]:
        """List every name with the first line of its docstring, importing no entry.

        The line is read from the source of the entry's module. It is empty where that module does
        not define the object itself, and says so where the module cannot be found.
        """
        return [(name, self._description(name)) for name in self]

    def __getitem__(self, name: str) -> Item:
        """The object of this name.

        Raises:
            UserError: there is no such name, or its object cannot be imported.
        """
        if name not in self:
            raise unknown(self.kind, name, self)
        if name in self._registered:
            return self._registered[name]
        if name not in self._imported:
            self._imported[name] = self._load(name)
        return self._imported[name]

    @overload
    def get(self, name: str, /) -> Item | None: ...

    @overload
    def get(self, name: str, /, default: Item | Default) -> Item | Default: ...

    def get(self, name: str, /, default: Any = None) -> Any:
        """The object of this name, or the default if there is no such name.

        Raises:
            UserError: its object cannot be imported.
        """
        if name not in self:  # Mapping.get would wait for a KeyError
            return default
        return self[name]

    def __contains__(self, name: object) -> bool:
        self._read_entry_points()
        return name in self._targets or name in self._registered

    def __iter__(self) -> Iterator[str]:
        self._read_entry_points()
        return iter([*self._targets, *self._registered])

    def __len__(self) -> int:
        self._read_entry_points()
        return len(self._targets) + len(self._registered)

    def _load(self, name: str) -> Item:
        module, _, attribute = self._targets[name].partition(":")
        try:
            found: Any = import_module(module)
        except ImportError as error:
            raise self._broken(name, error) from error
        try:
            for step in attribute.split("."):
                found = getattr(found, step)
        except AttributeError as error:
            raise self._broken(name, error) from error
        return found

    def _broken(self, name: str, error: Exception) -> UserError:
        return UserError(
            f"the {self.kind} {name!r} cannot be imported from {self._targets[name]!r}: {error}"
        )

    def _read_entry_points(self) -> None:
        if self._entry_points_read:
            return
        self._entry_points_read = True
        points = sorted(entry_points(group=self.group), key=lambda point: (point.name, point.value))
        for point in points:
            target = f"{point.module}:{point.attr}"
            if self._targets.setdefault(point.name, target) != target:
                logger.warning(
                    "the %s %r from %s is ignored: there is already one of that name",
                    self.kind, point.name, target,
                )  # fmt: skip

    def _description(self, name: str) -> str:
        if name in self._registered:
            return _first_line(inspect.getdoc(self._registered[name]))
        module, _, attribute = self._targets[name].partition(":")
        try:
            spec = find_spec(module)
        except ImportError:  # a package around the module is missing or broken
            spec = None
        if spec is None or not spec.origin:
            return f"not installed: {self._targets[name]}"
        return _first_line(_docstring_in(Path(spec.origin), attribute))


def _docstring_in(path: Path, attribute: str) -> str | None:
    """The docstring of a class or function at the top level of a Python file."""
    if path.suffix != ".py":
        return None
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == attribute:
            return ast.get_docstring(node)
    return None


def _first_line(docstring: str | None) -> str:
    return (docstring or "").partition("\n")[0]
