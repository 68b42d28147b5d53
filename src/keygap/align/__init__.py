"""Move image vectors towards text vectors, and see what a model does.

Names are imported on first use: a report reads the tables of this room, and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keygap.align.baselines import BASELINES as BASELINES
    from keygap.align.causes.points import Plan as Plan
    from keygap.align.causes.tables import CausesTable as CausesTable
    from keygap.align.causes.tables import read_causes as read_causes
    from keygap.align.fitting import fit as fit
    from keygap.align.fitting import fit_layer_by_layer as fit_layer_by_layer
    from keygap.align.map import Map as Map
    from keygap.align.map import load_map as load_map
    from keygap.align.maps import MAPS as MAPS
    from keygap.align.remedy.change import Change as Change
    from keygap.align.remedy.change import load_remedy as load_remedy
    from keygap.align.remedy.result import Remedy as Remedy
    from keygap.align.remedy.searching import search as search
    from keygap.align.steering import steer as steer
    from keygap.align.steering import steering_of as steering_of
    from keygap.align.vectors import read_vectors as read_vectors

_PUBLIC = {
    "fit": "fitting",
    "fit_layer_by_layer": "fitting",
    "read_vectors": "vectors",
    "Map": "map",
    "load_map": "map",
    "MAPS": "maps",
    "BASELINES": "baselines",
    "steer": "steering",
    "steering_of": "steering",
    "search": "remedy.searching",
    "Remedy": "remedy.result",
    "Change": "remedy.change",
    "load_remedy": "remedy.change",
    "Plan": "causes.points",
    "CausesTable": "causes.tables",
    "read_causes": "causes.tables",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
