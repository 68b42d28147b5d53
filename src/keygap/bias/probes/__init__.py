"""The probes by name, each imported on first use.

A new probe is one file with a function that returns a ``Probe``, and one line here. Another package
adds its own with an entry point of the group ``keygap.probes`` that names such a function, or with
``PROBES.register(name, function)``. The arguments of the function are the probe's settings, and
each has a default.
"""

from __future__ import annotations

from collections.abc import Callable

from keygap.bias.condition import Probe
from keygap.registry import Registry

PROBES: Registry[Callable[..., Probe]] = Registry(
    "probe",
    "keygap.probes",
    {
        name: f"keygap.bias.probes.{name}:{name}"
        for name in (
            "hint",
            "description",
            "shuffle",
            "blank",
            "noise",
            "absent",
            "balance",
            "rendered",
        )
    },
)
