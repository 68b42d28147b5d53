"""The interventions applied to a model, in order.

Everything that is measured under an intervention must say so, so the stack has an identity of plain
values that a run folder and its manifest record.
"""

from __future__ import annotations

from typing import Any, Protocol


class Intervention(Protocol):
    """Something that changes a forward pass."""

    def identity(self) -> dict[str, Any]:
        """Plain values that tell this intervention from any other."""
        ...


class InterventionStack:
    """The interventions applied to one model, in the order in which they were applied."""

    def __init__(self) -> None:
        self._applied: list[Intervention] = []

    @property
    def identity(self) -> list[dict[str, Any]]:
        """The identity of each applied intervention, in order; empty if there is none."""
        return [intervention.identity() for intervention in self._applied]
