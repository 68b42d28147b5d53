"""The candidates of a search: maps and attention biases, at sets of layers and strengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keygap.align.baselines.settings import MOST_NATS, number
from keygap.align.causes.points import ALL, BY_LAYER, LAYER_SETS, MOST_STRENGTH, Baseline, Point
from keygap.align.maps import is_control
from keygap.arguments import distinct
from keygap.capture.sites import site_of
from keygap.errors import UserError, unknown

BIAS = "attention-bias"
KINDS = ("mean-shift", "mean-variance", "optimal-transport")
STRENGTHS = (-1.0, -0.75, -0.5, -0.25, 0.25, 0.5)
BIASES = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Candidates:
    """What a search tries.

    Attributes:
        maps: kinds of map; after a kind, ``, layer by layer`` means one that is fitted so, which is
            tried at all layers alone.
        sites: where maps act.
        layers: names of sets of layers.
        strengths: of maps, on both sides of 0.
        biases: nats that the attention logits of image keys get, without a map.

    Raises:
        UserError: there is no candidate, an unknown name, a control, or a strength that is 0 or not
            finite.
    """

    maps: Sequence[str] = KINDS
    sites: Sequence[str] = ("k_proj",)
    layers: Sequence[str] = LAYER_SETS
    strengths: Sequence[float] = STRENGTHS
    biases: Sequence[float] = BIASES

    def __post_init__(self) -> None:
        for name in distinct(self.maps, "maps", KINDS[0]) if len(self.maps) else ():
            kind, _, how = name.partition(", ")
            if how not in ("", BY_LAYER):
                raise UserError(f"maps has {name!r}: after a kind, only ', {BY_LAYER}' can follow")
            if is_control(kind):
                raise UserError(f"{kind} is a control and not a remedy: leave it out of maps")
        for name in distinct(self.layers, "layers", ALL):
            if name not in LAYER_SETS:
                raise unknown("set of layers", name, LAYER_SETS)
        for name in distinct(self.sites, "sites", "k_proj") if len(self.maps) else ():
            site_of(name)
        numbers = {
            "strengths": (self.strengths, MOST_STRENGTH, "-0.5"),
            "biases": (self.biases, MOST_NATS, "1"),
        }
        # plain values, which JSON and YAML can have, where numbers of NumPy were given
        plain: dict[str, tuple[str, ...] | tuple[float, ...]] = {
            name: tuple(map(str, getattr(self, name))) for name in ("maps", "sites", "layers")
        }
        for what, (values, most, example) in numbers.items():
            found = distinct(values, what, example) if len(values) else []
            plain[what] = tuple(number(value, what, -most, most) for value in found)
            if 0 in plain[what]:
                raise UserError(f"{what} has 0, which changes nothing: leave it out")
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        if not self.biases and not (self.maps and self.strengths):
            raise UserError("there is no candidate: name a map and a strength, or a bias")

    def points(self, sets: Mapping[str, Sequence[int]]) -> list[Point]:
        """All candidates. Sets with the same layers are tried once, under the first of their names.

        Args:
            sets: the layers of each set that there is.
        """
        places = {tuple(sets[name]): name for name in reversed(self.layers) if name in sets}
        names = [name for name in self.layers if name in places.values()]
        found = []
        for kind in self.maps:
            where = [ALL] if kind.endswith(BY_LAYER) else names
            found += [
                Point("map", kind, site, place, float(strength), "free")
                for site in self.sites
                for place in where
                for strength in self.strengths
            ]
        for place in names:
            for nats in map(float, self.biases):
                own = Baseline(BIAS, {"nats": nats}, nats)
                found.append(Point("baseline", BIAS, "", place, nats, baseline=own))
        return found
