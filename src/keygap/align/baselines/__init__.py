"""Interventions from the literature that change how much a model looks at its image.

Maps of keys are compared with them, so they act on the same stack of interventions and are scored
by the same code. A new baseline is one file with a function that returns an ``Intervention``, and
one line here. Another package adds its own with an entry point of the group ``keygap.baselines``
that names such a function, or with ``BASELINES.register(name, function)``. The keyword arguments of
the function are the baseline's settings. ``layers`` are absolute indices and have no default; a
baseline that acts at no layer of the user's choice has no such setting.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from keygap.errors import UserError, unknown
from keygap.models.interventions import Intervention
from keygap.registry import Registry

BASELINES: Registry[Callable[..., Intervention]] = Registry(
    "baseline",
    "keygap.baselines",
    {
        name.replace("_", "-"): f"keygap.align.baselines.{name}:{name}"
        for name in (
            "attention_bias",
            "pai",
            "vcd",
            "sink_redistribution",
            "back_patching",
            "replaced_attention",
        )
    },
)


def settings_of(name: str) -> tuple[str, ...]:
    """The names of a baseline's settings.

    Raises:
        UserError: there is no such baseline.
    """
    return tuple(inspect.signature(BASELINES[name]).parameters)


def build(name: str, **settings: Any) -> Intervention:
    """Build a baseline.

    Args:
        name: one of ``BASELINES``.
        settings: of that baseline.

    Raises:
        UserError: there is no such baseline or setting, a setting without a default is missing, or
            one has a value that is not possible.
    """
    make = BASELINES[name]
    known = inspect.signature(make).parameters
    for setting in settings:
        if setting not in known:
            raise unknown(f"setting of the baseline {name}", setting, known)
    for setting, parameter in known.items():
        if parameter.default is parameter.empty and setting not in settings:
            raise UserError(f"the baseline {name} needs {setting}: give it, it has no default")
    return make(**settings)
