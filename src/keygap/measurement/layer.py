"""Measuring every contrast at one site and layer.

Each statistic of the registry is computed where its scope includes the comparison, and its readings
become rows of one form. A statistic that some vectors do not have is a note, not a failure.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from keygap import gap
from keygap.contrasts.contrast import Contrast
from keygap.contrasts.sides import Case, Selector
from keygap.errors import UserError
from keygap.gap.core.cautions import cautions
from keygap.gap.core.inputs import two_sides
from keygap.measurement.cases import by_head, cases
from keygap.measurement.options import Options
from keygap.measurement.ratio import Comparison, ratio_to_highest
from keygap.measurement.shape import by_dimension
from keygap.progress import step
from keygap.store import LabelledVectors

IN_EVERY_ROW = ("mmd", "jsd")  # the statistics of gap.csv: a row has both or does not exist


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

    def measure(self, vectors: LabelledVectors, contrasts: Sequence[Contrast]) -> None:
        """Measure every contrast, then the ratios, which need all of them.

        Raises:
            UserError: a required contrast cannot be measured.
        """
        options = self.options
        selector = Selector(vectors, options.text_roles, options.tokens_per_sample, options.seed)
        with step(f"{self.key['site']}, layer {self.key['layer']}") as say:
            for case in cases(selector, contrasts, self._note):
                say(f"{case.contrast.name} {case.confound}".strip())
                self._compare(case)
        for own in self._comparisons:
            if own.key["rung"] == "between":
                ratio = ratio_to_highest(own, self._comparisons)
                self.rows += [] if ratio is None else [_row(own.key, ratio)]

    def _compare(self, case: Case) -> None:
        """Compute the statistics of one case for all heads together and for each head."""
        heads, sides = zip(*by_head(case, self.options, self.n_layers), strict=True)
        found = [gap.STATISTICS[name].of_heads(sides) for name in IN_EVERY_ROW]
        for head, of_head, results in zip(heads, sides, zip(*found, strict=True), strict=True):
            self._add(case, head, of_head, dict(zip(IN_EVERY_ROW, results, strict=True)))

    def _add(
        self, case: Case, head: str, sides: gap.Sides, found: dict[str, gap.Result | UserError]
    ) -> None:
        """Add the rows of one case and head, whose statistics of every row were computed."""
        key = {
            **self.key,
            "head": head,
            "contrast": case.contrast.name,
            "rung": case.rung,
            "confound": case.confound,
            "n_samples": len({*case.a.sample_ids, *case.b.sample_ids}),
            "n_a": len(case.a),
            "n_b": len(case.b),
        }
        results = {}
        for name, result in found.items():
            if isinstance(result, UserError):
                if case.contrast.required and _is_whole(key):
                    where = f"{self.key['site']}, layer {self.key['layer']}"
                    raise UserError(f"{where}: {result}") from result
                self._note(f"no {_name(key)}: {result}")
                return
            results[name] = result
        self._caution(case, key, sides)
        mmd = results["mmd"]
        assert isinstance(mmd, gap.MMDResult)
        self._comparisons.append(Comparison(key, mmd))
        results |= self._other_statistics(key, sides)
        for name, result in results.items():
            names, coordinates = case.contrast.sides, gap.STATISTICS[name].coordinates
            self.rows += [
                _row(key, reading, names, coordinates=coordinates) for reading in result.readings
            ]
        parts = results.get("contribution")
        if isinstance(parts, gap.ContributionResult):
            self.dimensions.append(by_dimension(key, case, parts))

    def _other_statistics(self, key: dict[str, Any], sides: gap.Sides) -> dict[str, gap.Result]:
        """Results of the other statistics whose scope includes this comparison, by name."""
        is_gap = _is_whole(key) and key["rung"] == "between"
        found = {}
        for name, statistic in gap.STATISTICS.items():
            if name in IN_EVERY_ROW or (statistic.scope == "gap" and not is_gap):
                continue
            try:
                found[name] = statistic(sides)
            except UserError as reason:
                self._note(f"no {name} of {_name(key)}: {reason}")
        return found

    def _caution(self, case: Case, key: dict[str, Any], sides: gap.Sides) -> None:
        """Note what makes the numbers of a comparison doubtful, once for each contrast."""
        if key["head"] != "all":
            return
        checked = two_sides(sides.x, sides.y, *sides.groups)
        for line in cautions(checked, *case.contrast.sides):
            if (case.contrast.name, line) not in self._cautions:
                self._cautions.add((case.contrast.name, line))
                self._note(f"caution, {f'{case.contrast.name} {case.confound}'.strip()}: {line}")

    def _note(self, what: str) -> None:
        model, site, layer = (self.key[name] for name in ("model", "site", "layer"))
        self.notes.append(f"{model}, {site}, layer {layer}: {what}")


def _is_whole(key: dict[str, Any]) -> bool:
    """Whether all heads are together and no confound is removed."""
    return key["head"] == "all" and not key["confound"]


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
