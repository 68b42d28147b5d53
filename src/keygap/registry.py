"""Named things that are imported when they are first used, and that other packages can add to.

A registry maps a name to ``"module:object"``. Nothing is imported until a name is looked up, so the
command line can list what exists without loading torch. An installed package adds its own through
an entry point of the registry's group; a script adds its own with ``register``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from keygap.errors import UserError, unknown

Item = TypeVar("Item")


class Registry(Mapping[str, Item], Generic[Item]):
    """A mapping from names to objects that are imported on first use.

    keygap's own names come first, in the order given, then those of entry points by name, then
    those that were registered at run time.

    Args:
        kind: what one entry is called in messages, such as ``"benchmark"``.
        group: the entry-point group that other packages use, such as ``"keygap.benchmarks"``.
        targets: keygap's own entries, each as ``"module:object"``.
    """

    def __init__(self, kind: str, group: str, targets: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._targets = dict(targets)
        self._objects: dict[str, Item] = {}
        self._entry_points_read = False

    def register(self, name: str, item: Item) -> None:
        """Add an object under a name for this process.

        Raises:
            UserError: the name is taken by another object.
        """
        if name in self and self[name] is not item:
            raise UserError(f"the {self.kind} {name!r} exists already: choose another name")
        self._targets.setdefault(name, "")
        self._objects[name] = item

    def unregister(self, name: str) -> None:
        """Remove an object that ``register`` added.

        Raises:
            UserError: no object was registered under this name at run time.
        """
        if self._targets.get(name) != "":
            raise UserError(f"the {self.kind} {name!r} was not registered at run time")
        del self._targets[name], self._objects[name]

    def __getitem__(self, name: str) -> Item:
        self._read_entry_points()
        if name not in self._targets:
            raise unknown(self.kind, name, self._targets)
        if name not in self._objects:
            self._objects[name] = self._imported(name)
        return self._objects[name]

    def __contains__(self, name: object) -> bool:
        self._read_entry_points()
        return name in self._targets

    def __iter__(self) -> Iterator[str]:
        self._read_entry_points()
        return iter(list(self._targets))

    def __len__(self) -> int:
        self._read_entry_points()
        return len(self._targets)

    def _imported(self, name: str) -> Item:
        module, _, attribute = self._targets[name].partition(":")
        try:
            found = import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"the {self.kind} {name!r} cannot be imported from {module}:{attribute}: {error}"
            ) from error
        return found  # type: ignore[return-value]

    def _read_entry_points(self) -> None:
        if self._entry_points_read:
            return
        self._entry_points_read = True
        for point in sorted(entry_points(group=self.group), key=lambda point: point.name):
            self._targets.setdefault(point.name, point.value)
