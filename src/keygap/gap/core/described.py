"""The short ``repr`` and the notebook table of every result, both made of its readings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from keygap.display import as_html, between, brief
from keygap.gap.core.reading import Reading


class Described:
    """Base of results: how they show themselves in a terminal and in a notebook.

    Args:
        title: of a subclass, what its numbers are; the caption begins with it.
    """

    _title: ClassVar[str]

    def __init_subclass__(cls, title: str) -> None:
        cls._title = title

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Every number of the result that belongs in a table."""
        raise NotImplementedError

    def __repr__(self) -> str:
        said = [_in_brief(reading) for reading in self.readings[:3]]
        more = len(self.readings) - len(said)
        said += [f"{more} further numbers"] if more > 0 else []
        return brief(f"{type(self).__name__}({'; '.join([*said, *_counts(self._source)])})")

    def _repr_html_(self) -> str:
        import pandas as pd

        rows = [_row(reading) for reading in self.readings]
        frame = pd.DataFrame(rows, columns=list(rows[0]) if rows else None)
        empty = [name for name in frame.columns if not frame[name].astype(str).any()]
        caption = f"{self._title}: {_facts(self._source)}".removesuffix(": ")
        return as_html(caption, frame.drop(columns=empty), self._notes)

    @property
    def _source(self) -> object:
        """The result whose fields say what the numbers depend on."""
        return self

    @property
    def _notes(self) -> tuple[str, ...]:
        """What stands below the table."""
        return getattr(self, "cautions", ())


def _in_brief(reading: Reading) -> str:
    value = "undefined" if reading.value is None else between(reading.value, *_ends(reading))
    where = f" of {reading.side}" if reading.side else ""
    where += "" if reading.dims is None else f" in {reading.dims} dimensions"
    p = "" if reading.p_value is None else f", p = {reading.p_value:.2g}"
    return f"{reading.name}{where} = {value}{p}"


def _row(reading: Reading) -> dict[str, str]:
    p, null = reading.p_value, reading.null
    return {
        "number": reading.name,
        "side": reading.side,
        "head": "" if reading.head is None else str(reading.head),
        "dimensions": "" if reading.dims is None else str(reading.dims),
        "value (interval)": (
            "undefined" if reading.value is None else between(reading.value, *_ends(reading))
        ),
        "without a difference (band)": between(null, *(reading.null_band or (None, None))),
        "p": "" if p is None else f"{p:.3g}",
        "what": reading.what,
    }


def _ends(reading: Reading) -> tuple[float | None, float | None]:
    return reading.ci or (None, None)


def _counts(result: object, if_equal: str = "") -> list[str]:
    """How many samples and vectors a result is of, as far as it says so.

    Args:
        result: The result.
        if_equal: What follows a number that both sides share.
    """
    known = {name: getattr(result, name, None) for name in _COUNTED}
    found = []
    for what, (x, y) in {"samples": _COUNTED[:2], "vectors": _COUNTED[2:4]}.items():
        if known[x] is not None:
            same = known[x] == known[y]
            found.append(
                f"{known[x]:,} {what}{if_equal}"
                if same
                else f"{known[x]:,} and {known[y]:,} {what}"
            )
    if known["n_samples"] is not None:
        found.append(f"{known['n_samples']:,} samples")
    return found


_COUNTED = ("n_samples_x", "n_samples_y", "n_x", "n_y", "n_samples")
_SAID: dict[str, Callable[[Any], str]] = {
    "paired": lambda paired: "paired by sample" if paired else "unpaired",
    "kernel": lambda name: f"{name} kernel",
    "estimator": lambda name: f"estimator {name}",
    "level": lambda level: f"{level:.0%} interval over whole samples",
    "n_permutations": lambda n: f"p from {n:,} label swaps" if n else "no label swaps",
    "seed": lambda seed: f"seed {seed}",
}


def _facts(result: object) -> str:
    """What the numbers are of, and what they depend on."""
    facts = [say(getattr(result, name)) for name, say in _SAID.items() if hasattr(result, name)]
    return ", ".join([*_counts(result, " on each side"), *facts])
