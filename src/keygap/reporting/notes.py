"""The notes of a measurement, one line for each reason in place of one for each layer and contrast.

Measurements write a note for every comparison, so that each folder explains itself. A reader of
three models at three layers would read the same reason thirty times.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from keygap.reporting.run import Run

_NOTE = re.compile(r"(?P<model>.*), (?P<site>\w+), layer (?P<layer>\d+): (?P<rest>.*)", re.DOTALL)
_CAUTION = re.compile(r"caution, (?P<what>[^:]*): (?P<side>[^:]*): (?P<reason>.*)", re.DOTALL)
_SKIPPED = re.compile(r"no (?P<what>[^:]*): (?P<reason>.*)", re.DOTALL)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass
class Group:
    """Notes that give one reason, whatever numbers are in it.

    Attributes:
        reason: the reason, with ``{}`` in place of every number.
        numbers: those of every note.
        what: contrasts and sides that it concerns.
        runs: runs that it concerns: their numbers, and the names of their models and benchmarks.
        places: sites and layers that it concerns.
    """

    reason: str
    numbers: list[list[str]] = field(default_factory=list)
    what: dict[str, None] = field(default_factory=dict)
    runs: dict[int, str] = field(default_factory=dict)
    places: dict[str, dict[str, None]] = field(default_factory=dict)

    def line(self, n_runs: int) -> str:
        """The reason with the range of its numbers, then what and where.

        Args:
            n_runs: the number of runs of the report; a reason of all does not list them.
        """
        columns = zip(*self.numbers, strict=True)
        text = self.reason.format(*(_range(column) for column in columns))
        where = [
            f"{site} at layers {', '.join(layers)}" if len(layers) > 1 else f"{site} at layer {one}"
            for site, layers in self.places.items()
            for one in [next(iter(layers), "")]
        ]
        if n_runs > 1:
            every = len(self.runs) == n_runs
            names = dict.fromkeys(self.runs.values())
            where.append("all runs" if every else ", ".join(names))
        parts = [part for part in (", ".join(self.what), *where) if part]
        return f"{text} ({'; '.join(parts)})" if parts else text


@dataclass(frozen=True)
class Notes:
    """What the report says about what was not measured, and how far what was can be trusted.

    Attributes:
        skipped: one line for each reason why something was not measured.
        cautions: one line for each kind of doubt.
    """

    skipped: list[str]
    cautions: list[str]


def notes_of(runs: Sequence[Run]) -> Notes:
    """Group the notes of some runs by their reason."""
    skipped: dict[str, Group] = {}
    cautions: dict[str, Group] = {}
    for number, run in enumerate(runs):
        for note in run.table.notes:
            place = _NOTE.fullmatch(note)
            rest = place["rest"] if place else note
            caution = _CAUTION.fullmatch(rest)
            match = caution or _SKIPPED.fullmatch(rest)
            reason = match["reason"] if match else rest
            what = match["what"] if match else ""
            if caution:
                what = f"{what} ({caution['side']})"
            group = _group(cautions if caution else skipped, reason)
            if what:
                group.what[what] = None
            group.runs[number] = f"{run.model} on {run.manifest['benchmark']}"
            if place:
                group.places.setdefault(place["site"], {})[place["layer"]] = None
    return Notes(
        [group.line(len(runs)) for group in skipped.values()],
        [group.line(len(runs)) for group in cautions.values()],
    )


def _group(groups: dict[str, Group], reason: str) -> Group:
    """The group of a reason, with its numbers added."""
    numbers = _NUMBER.findall(reason)
    pattern = _NUMBER.sub("{}", reason.replace("{", "{{").replace("}", "}}"))
    group = groups.setdefault(pattern, Group(pattern))
    group.numbers.append(numbers)
    return group


def _range(values: Iterable[str]) -> str:
    """One number, or the smallest and the largest of several."""
    ordered = sorted(set(values), key=float)
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"
