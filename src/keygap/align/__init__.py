"""Move image vectors towards text vectors, and see what a model does.

Names are imported on first use, so that a report can read the tables of this package without
importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keygap.lazy import lazy

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
    "fit": "keygap.align.fitting:fit",
    "fit_layer_by_layer": "keygap.align.fitting:fit_layer_by_layer",
    "read_vectors": "keygap.align.vectors:read_vectors",
    "Map": "keygap.align.map:Map",
    "load_map": "keygap.align.map:load_map",
    "MAPS": "keygap.align.maps:MAPS",
    "BASELINES": "keygap.align.baselines:BASELINES",
    "steer": "keygap.align.steering:steer",
    "steering_of": "keygap.align.steering:steering_of",
    "search": "keygap.align.remedy.searching:search",
    "Remedy": "keygap.align.remedy.result:Remedy",
    "Change": "keygap.align.remedy.change:Change",
    "load_remedy": "keygap.align.remedy.change:load_remedy",
    "Plan": "keygap.align.causes.points:Plan",
    "CausesTable": "keygap.align.causes.tables:CausesTable",
    "read_causes": "keygap.align.causes.tables:read_causes",
}
__all__ = list(_PUBLIC)


__getattr__, __dir__ = lazy(__name__, _PUBLIC)
