"""What a point does to a model: layers by name of a set, maps, and the intervention itself.

The experiment on causes and the search for a remedy compare points of the same form. Maps are
fitted when a point first needs them, on samples that are not judged, and kept for later points. The
vectors of a site are much larger than its maps: all planned maps of a site are fitted when it is
read, so that no vectors are held after that.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from keygap.align.baselines import build, settings_of
from keygap.align.causes.points import BY_LAYER, Point
from keygap.align.fitting import fit, fit_layer_by_layer
from keygap.align.map import Map
from keygap.align.steering import steer
from keygap.align.vectors import read_vectors
from keygap.benchmarks import SampleSet
from keygap.bias.reading import reading_layers
from keygap.errors import UserError
from keygap.models.interventions import Intervention
from keygap.models.vlm import VLM
from keygap.store.interim import read_interim, write_interim

logger = logging.getLogger("keygap")

MapKey = tuple[str, str, int]
READING_SAMPLES = 80  # of those that maps are fitted on
LAYERS = "reading_layers.json"


@dataclass
class Acting:
    """Applies points to a model.

    Attributes:
        vlm: the model.
        fitting: the samples that maps are fitted on.
        roles: what counts as text.
        batch_size: samples in one forward pass.
        seed: of the random draws of maps.
        sets: the layers of each set, by name.
        planned: name, site and draw of the maps that points will need.
    """

    vlm: VLM
    fitting: SampleSet
    roles: Sequence[str]
    batch_size: int
    seed: int
    sets: Mapping[str, Sequence[int]] = field(default_factory=dict)
    planned: Collection[MapKey] = ()
    _maps: dict[MapKey, Map | str] = field(default_factory=dict)  # or why one cannot be fitted

    def plan(self, points: Iterable[Point]) -> None:
        """Name the points whose maps will be needed."""
        maps = [point for point in points if point.kind in ("map", "control")]
        self.planned = list(dict.fromkeys(point.map_key for point in maps))

    def steered(self, point: Point) -> AbstractContextManager[None]:
        """Apply the intervention of a point while a block runs.

        Raises:
            UserError: its map cannot be fitted or applied, or the model cannot be changed there.
        """
        if point.kind == "none":
            return nullcontext()
        if point.baseline is not None:
            return self.vlm.interventions.applied(self.baseline_of(point))
        return steer(
            self.vlm,
            self.map_of(point),
            layers=self.layers_of(point),
            strength=point.strength,
            mass=point.mass,  # type: ignore[arg-type]
        )

    def layers_of(self, point: Point) -> list[int]:
        """The layers at which a point acts, of those that its map has.

        Raises:
            UserError: its map has none of them.
        """
        layers = list(self.sets[point.layers])
        if point.kind == "baseline":
            return layers
        fitted = self.map_of(point)
        if known := [index for index in layers if index in fitted.layers]:
            return known
        raise UserError(f"the map {fitted.name} has none of the {point.layers} layers")

    def baseline_of(self, point: Point) -> Intervention:
        """The intervention of a point that is a baseline."""
        assert point.baseline is not None
        settings = dict(point.baseline.settings)
        known = settings_of(point.baseline.of)
        if "layers" in known:
            settings["layers"] = self.layers_of(point)
        if "source" in known:  # from late in the stack to early in it
            attending = self.sets["all"]
            settings["source"] = attending[2 * len(attending) // 3]
            settings["target"] = attending[len(attending) // 6]
        return build(point.baseline.of, **settings)

    def map_of(self, point: Point) -> Map:
        """The map of a point, fitted at all layers.

        Raises:
            UserError: it cannot be fitted.
        """
        key = point.map_key
        if key not in self._maps:
            self._fit(key)
        found = self._maps[key]
        if isinstance(found, str):
            raise UserError(found)
        return found

    def _fit(self, key: MapKey) -> None:
        """Fit a map, and with it the planned maps that need the same vectors."""
        name, site, _ = key
        kind, _, how = name.partition(", ")
        with torch.inference_mode():
            if how == BY_LAYER:
                self._maps[key] = fit_layer_by_layer(
                    self.vlm, kind, self.fitting, batch_size=self.batch_size,
                    **self._options(key),
                )  # fmt: skip
                return
            vectors = read_vectors(self.vlm, self.fitting, sites=[site], batch_size=self.batch_size)
            alike = [each for each in self.planned if each[1] == site and BY_LAYER not in each[0]]
            for each in dict.fromkeys([key, *alike]):
                if each in self._maps:
                    continue
                try:
                    self._maps[each] = fit(each[0], vectors, **self._options(each))
                except UserError as reason:  # the other maps stand without it
                    self._maps[each] = str(reason)

    def _options(self, key: MapKey) -> dict[str, Any]:
        """How a map is fitted, whichever way."""
        _, site, draw = key
        return {"site": site, "text_roles": self.roles, "draw": draw, "seed": self.seed}


def named_reading(
    vlm: VLM, fitting: SampleSet, out: Path, folder: Path, batch_size: int
) -> list[int]:
    """The layers that read the image, named on samples that are not judged.

    Args:
        vlm: the model.
        fitting: the samples that maps are fitted on, of which the first are used.
        out: gets ``reading.csv``.
        folder: keeps the names of the layers for a run that continues.
        batch_size: samples in one forward pass.

    Raises:
        UserError: fewer than two samples of a half can be scored.
    """
    file = folder / LAYERS
    if not file.is_file():
        table = reading_layers(vlm, fitting[:READING_SAMPLES], batch_size=batch_size)
        table.save(out)
        logger.info("%s: %s", vlm.name, table.summary())
        write_interim(file, {"layers": table.named})
    return list(read_interim(file, f"remove {file} and run again")["layers"])


def refuse_unsuited(vlm: VLM, what: str) -> None:
    """Refuse a model that points cannot be compared on.

    Args:
        vlm: the model.
        what: what compares points, for the message.

    Raises:
        UserError: it is steered already, or its image keys are in layers of their own.
    """
    if vlm.interventions.identity:
        raise UserError(
            f"{vlm.name} is steered already: leave the block, the {what} steers by itself"
        )
    if vlm.fusion == "cross-attention":
        raise UserError(
            f"the image keys of {vlm.name} are in cross-attention layers of their own, whose "
            f"attention to the image is always 1: the {what} needs image and text in one layer"
        )
