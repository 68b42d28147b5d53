"""The probes by name, each imported on first use.

A new probe is one file with a function that returns a ``Probe``, and one line here. Another package
adds its own with an entry point of the group ``keygap.probes`` that names such a function, or with
``PROBES.register(name, function)``. The arguments of the function are the probe's settings, and
each has a default.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from keygap.bias.condition import Probe
from keygap.errors import UserError, unknown
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


def build(probes: Mapping[str, Mapping[str, Any]]) -> list[Probe]:
    """Build the probes of these names and settings.

    Raises:
        UserError: there is none, a probe or a setting is unknown, or a setting has a value that is
            not possible.
    """
    if not probes:
        raise UserError("no probe: name at least one, such as hint")
    found = []
    for name, settings in probes.items():
        make = PROBES[name]
        known = inspect.signature(make).parameters
        for setting in settings:
            if setting not in known:
                raise unknown(f"setting of the probe {name}", setting, known)
        found.append(make(**settings))
    return found
