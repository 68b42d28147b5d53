"""One gap under every choice that a paper may leave open: a specification curve.

Names are imported on first use: a report reads the tables of this room, and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keygap.choices.direct import again as again
    from keygap.choices.levels import Plan as Plan
    from keygap.choices.running import specifications as specifications
    from keygap.choices.tables import ChoicesTable as ChoicesTable
    from keygap.choices.tables import read_choices as read_choices

_PUBLIC = {
    "specifications": "running",
    "Plan": "levels",
    "again": "direct",
    "ChoicesTable": "tables",
    "read_choices": "tables",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
