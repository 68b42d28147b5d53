"""Measuring every contrast at one site and layer.

Each statistic of the registry is computed where its scope includes the comparison, and its readings
become rows of one form. A statistic that is undefined for some vectors is a note, not a failure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from keygap import gap
from keygap.contrasts.contrast import Contrast
from keygap.contrasts.limits import MAX_TOKENS
from keygap.contrasts.sides import Case, Layer, Selector
from keygap.errors import UserError
from keygap.gap.core.cautions import cautions
from keygap.gap.core.inputs import two_sides
from keygap.gap.core.statistic import or_error
from keygap.measurement.cases import by_head, cases
from keygap.measurement.options import Options
from keygap.measurement.ratio import Comparison, ratio_to_highest
from keygap.measurement.shape import by_dimension
from keygap.measurement.workers import side_by_side
from keygap.progress import step

IN_EVERY_ROW = ("mmd", "jsd")  # the statistics of gap.csv: a row has both or does not exist


@dataclass(frozen=True)
class _OfHead:
    """What was computed of one case and head: results or reasons by statistic, and cautions."""

    head: str
    results: dict[str, gap.Result | UserError]
    cautions: tuple[str, ...]


@dataclass
class LayerMeasurement:
    """The rows of one site and layer, collected as they are measured.

    Attributes:
        key: the columns model, connector, benchmark, site and layer.
        options: of the measurement.
        n_layers: the number of layers measured at this site.
        rows: rows of the long table.
        dimensions: rows of ``dimensions.csv``.
        notes: what could not be measured, and why; cautions about what was.
    """

    key: dict[str, Any]
    options: Options
    n_layers: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    dimensions: list[pd.DataFrame] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _comparisons: list[Comparison] = field(default_factory=list)
    _cautions: set[tuple[str, str]] = field(default_factory=set)

    def measure(self, vectors: Layer, contrasts: Sequence[Contrast]) -> None:
        """Measure every contrast, then the ratios, which need all of them.

        Raises:
            UserError: a required contrast cannot be measured.
        """
        options = self.options
        selector = Selector(vectors, options.text_roles, options.tokens_per_sample, options.seed)
        with step(f"{self.key['site']}, layer {self.key['layer']}") as say:
            unmeasured: list[str] = []
            every = cases(selector, contrasts, unmeasured.append)
            size = _largest(vectors, options.tokens_per_sample)
            for case, heads in side_by_side(self._computed, every, size):
                say(f"{case.contrast.name} {case.confound}".strip())
                for one in heads:
                    self._add(case, one)
        self.notes[:0] = [self._located(what) for what in unmeasured]
        for own in self._comparisons:
            if own.key["rung"] == "between":
                ratio = ratio_to_highest(own, self._comparisons)
                self.rows += [] if ratio is None else [_row(own.key, ratio)]
        self._comparisons.clear()  # with thousands of label swaps each, they are large

    def _computed(self, case: Case) -> list[_OfHead]:
        """The statistics of one case for all heads together and for each head."""
        heads, sides = zip(*by_head(case, self.options, self.n_layers), strict=True)
        found = {name: gap.STATISTICS[name].of_heads(sides) for name in IN_EVERY_ROW}
        of_heads = []
        for place, (head, own) in enumerate(zip(heads, sides, strict=True)):
            results = {name: of_name[place] for name, of_name in found.items()}
            lines: tuple[str, ...] = ()
            if not any(isinstance(result, UserError) for result in results.values()):
                whole = head == "all"
                is_gap = whole and case.rung == "between" and not case.confound
                results |= {
                    name: or_error(statistic, own)
                    for name, statistic in gap.STATISTICS.items()
                    if name not in IN_EVERY_ROW and (statistic.scope == "ladder" or is_gap)
                }
                if whole:
                    lines = cautions(two_sides(own.x, own.y, *own.groups), *case.contrast.sides)
            of_heads.append(_OfHead(head, results, lines))
        return of_heads

    def _add(self, case: Case, of_head: _OfHead) -> None:
        """Add the rows and notes of one case and head.

        Raises:
            UserError: a required contrast cannot be measured.
        """
        key = {
            **self.key,
            "head": of_head.head,
            "contrast": case.contrast.name,
            "rung": case.rung,
            "confound": case.confound,
            "n_samples": len({*case.a.sample_ids, *case.b.sample_ids}),
            "n_a": len(case.a),
            "n_b": len(case.b),
        }
        whole = of_head.head == "all" and not case.confound
        for name in IN_EVERY_ROW:
            reason = of_head.results[name]
            if isinstance(reason, UserError):
                if case.contrast.required and whole:
                    where = f"{self.key['site']}, layer {self.key['layer']}"
                    raise UserError(f"{where}: {reason}") from reason
                self._note(f"no {_name(key)}: {reason}")
                return
        self._caution(case, of_head.cautions)
        for name, result in of_head.results.items():
            if isinstance(result, UserError):
                self._note(f"no {name} of {_name(key)}: {result}")
                continue
            names, coordinates = case.contrast.sides, gap.STATISTICS[name].coordinates
            self.rows += [
                _row(key, reading, names, coordinates=coordinates) for reading in result.readings
            ]
            if isinstance(result, gap.MMDResult):
                self._comparisons.append(Comparison(key, result))
            if isinstance(result, gap.ContributionResult):
                self.dimensions.append(by_dimension(key, case, result))

    def _caution(self, case: Case, lines: Sequence[str]) -> None:
        """Note what makes the numbers of a comparison doubtful, once for each contrast."""
        for line in lines:
            if (case.contrast.name, line) not in self._cautions:
                self._cautions.add((case.contrast.name, line))
                self._note(f"caution, {f'{case.contrast.name} {case.confound}'.strip()}: {line}")

    def _note(self, what: str) -> None:
        self.notes.append(self._located(what))

    def _located(self, what: str) -> str:
        model, site, layer = (self.key[name] for name in ("model", "site", "layer"))
        return f"{model}, {site}, layer {layer}: {what}"


def _largest(vectors: Layer, tokens_per_sample: int | None) -> int:
    """Bytes that the vectors of a comparison of this layer have at most; they are float32."""
    tokens = len(vectors.labels)
    if tokens_per_sample is not None:
        tokens = min(tokens, MAX_TOKENS)
    return 4 * tokens * math.prod(vectors.shape)


def _name(key: dict[str, Any]) -> str:
    return f"{key['contrast']} {key['confound']}".strip() + f", head {key['head']}"


def _row(
    key: dict[str, Any],
    reading: gap.Reading,
    sides: tuple[str, str] = ("a", "b"),
    **settings: str,
) -> dict[str, Any]:
    """A row of the long table; ``sides`` are the contrast's names for x and y."""
    low, high = reading.ci or (None, None)
    null_low, null_high = reading.null_band or (None, None)
    return {
        **key,
        "layer": str(key["layer"]),
        "head": key["head"] if reading.head is None else str(reading.head),
        "statistic": reading.name,
        "side": {"x": sides[0], "y": sides[1]}.get(reading.side, ""),
        "dims": reading.dims,
        "value": reading.value,
        "ci_low": low,
        "ci_high": high,
        "null": reading.null,
        "null_low": null_low,
        "null_high": null_high,
        "p_value": reading.p_value,
        "settings": json.dumps(settings | dict(reading.settings)),
        "what": reading.what,
    }
