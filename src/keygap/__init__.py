"""keygap: does a vision-language model keep image and text in the same attention key space?

The public API, on one screen. What it needs (torch, transformers) is imported on first use, so that
the command line answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from keygap import gap
    from keygap.benchmarks import benchmark
    from keygap.bias.answers import Answers, answer
    from keygap.engines.extract import extract
    from keygap.errors import UserError
    from keygap.measurement.measure import measure
    from keygap.measurement.tables import GapTable
    from keygap.models import VLM, load
    from keygap.models.masking import mask
    from keygap.projection.project import Projection, project
    from keygap.reporting import report
    from keygap.store import Store

_HOMES = {
    "load": "keygap.models",
    "mask": "keygap.models.masking",
    "VLM": "keygap.models",
    "benchmark": "keygap.benchmarks",
    "extract": "keygap.engines.extract",
    "answer": "keygap.bias.answers",
    "Answers": "keygap.bias.answers",
    "Store": "keygap.store",
    "measure": "keygap.measurement.measure",
    "GapTable": "keygap.measurement.tables",
    "project": "keygap.projection.project",
    "Projection": "keygap.projection.project",
    "report": "keygap.reporting.page",
    "UserError": "keygap.errors",
}

__all__ = [
    "VLM",
    "Answers",
    "GapTable",
    "Projection",
    "Store",
    "UserError",
    "answer",
    "benchmark",
    "extract",
    "gap",
    "load",
    "mask",
    "measure",
    "project",
    "report",
]


def __getattr__(name: str) -> Any:
    if name == "gap":
        return importlib.import_module("keygap.gap")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'keygap' has no attribute {name!r}")
