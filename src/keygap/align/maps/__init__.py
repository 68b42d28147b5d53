"""The kinds of map by name, each imported on first use.

A new kind is one file with a function of (image vectors, text vectors, context) of one head that
returns a ``HeadMap``, and one line here. Another package adds its own with an entry point of the
group ``keygap.maps`` that names such a function, or with ``MAPS.register(name, function)``. A
control, which moves vectors as far and not towards text, is marked with ``@control``; a kind that
adds the same vector to all image vectors of a head, with ``@shift_only``.
"""

from __future__ import annotations

from keygap.align.maps.kind import FitContext, HeadMap, Kind, control, shift_only
from keygap.registry import Registry

MAPS: Registry[Kind] = Registry(
    "map",
    "keygap.maps",
    {
        name: "keygap.align.maps.{0}:{0}".format(name.replace("-", "_"))
        for name in (
            "mean-shift",
            "mean-variance",
            "optimal-transport",
            "coral",
            "procrustes",
            "norms",
            "random-direction",
            "shuffled-labels",
            "text-text",
        )
    },
)


def is_control(name: str) -> bool:
    """Whether a kind of map is a control.

    Raises:
        UserError: there is no such kind.
    """
    return bool(getattr(MAPS[name], "control", False))


def only_shifts(name: str) -> bool:
    """Whether a kind of map adds one vector to all; False for a kind that is not known here."""
    return bool(getattr(MAPS.get(name), "shift_only", False))


__all__ = [
    "MAPS", "FitContext", "HeadMap", "Kind", "control", "is_control", "only_shifts", "shift_only",
]  # fmt: skip
