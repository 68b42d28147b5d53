"""The points of the experiment: which interventions are compared.

Not every combination answers a question, and all of them together would take days. The map under
test is the first one. At keys it is tried at every set of layers and strength, and with the
attention to the image held and alone changed wherever the whole effect is claimed. Everything else
is there to be compared with it: other sites, other maps, controls that move vectors as far without
moving them towards text, and ways to change attention that know nothing of keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from keygap.align.baselines.settings import number
from keygap.align.causes.tables import POINT_COLUMNS
from keygap.align.maps import MAPS, is_control
from keygap.arguments import distinct, whole
from keygap.bias.probes import PROBES
from keygap.capture.sites import site_of
from keygap.errors import UserError, unknown

ALL, READING = "all", "reading"
MOST_STRENGTH = 100.0
THIRDS = ("early", "middle", "late")
LAYER_SETS = (ALL, *THIRDS, READING)
BY_LAYER = "layer by layer"  # how a map that was fitted so is called, after its name
KEY_SITES = ("k_proj", "key")
MAPS_TRIED = ("mean-shift", "mean-variance", "optimal-transport", "coral", "procrustes", "norms")
CONTROLS = ("random-direction", "shuffled-labels", "text-text")


@dataclass(frozen=True)
class Baseline:
    """A baseline at one setting.

    Attributes:
        of: its name among ``BASELINES``.
        settings: without layers.
        strength: the setting that says how strong it is.
        label: what tells this variant from others of the same baseline; empty if there is one.
    """

    of: str
    settings: Mapping[str, Any]
    strength: float
    label: str = ""

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.of} ({self.label})" if self.label else self.of


# Scored answers need every candidate's likelihood, so contrasts keep implausible tokens.
BASELINES_TRIED = (
    *(Baseline("attention-bias", {"nats": nats}, nats) for nats in (-2.0, -1.0, 1.0, 2.0)),
    *(Baseline("pai", {"alpha": a, "gamma": 1.0}, a, "attention") for a in (0.2, 0.5)),
    Baseline("pai", {"alpha": 0.2, "gamma": 1.1, "plausibility": 0.0}, 0.2, "with contrast"),
    *(Baseline("vcd", {"alpha": a, "plausibility": 0.0}, a) for a in (0.5, 1.0)),
    Baseline("sink-redistribution", {}, 1.0),
    Baseline("back-patching", {}, 1.0),
    Baseline("replaced-attention", {"weights": "even"}, 1.0, "even"),
    Baseline("replaced-attention", {"weights": "random"}, 1.0, "random"),
)


@dataclass(frozen=True)
class Point:
    """One intervention of the experiment, or none.

    Attributes:
        kind: ``none``, ``map``, ``control`` or ``baseline``.
        name: of the map or baseline.
        site: where a map acts.
        layers: the name of a set of layers.
        strength: of a map, or the setting of a baseline that says how strong it is.
        mass: of a map of keys, see ``keygap.align.steer``; ``free`` for maps of other sites.
        draw: which of several random draws.
        baseline: what to build, for a baseline.
    """

    kind: str
    name: str = "none"
    site: str = ""
    layers: str = ""
    strength: float = 0.0
    mass: str = ""
    draw: int = 0
    baseline: Baseline | None = field(default=None, compare=False)

    @property
    def id(self) -> str:
        """The values of the point in one text."""
        parts = (self.name, self.site, self.layers, f"{self.strength:+g}", self.mass, self.draw)
        return "/".join(str(part) for part in parts) if self.kind != "none" else "none"

    def columns(self) -> dict[str, Any]:
        """The values of ``POINT_COLUMNS``."""
        own = {**asdict(self), "point": self.id}
        return {name: own[name] for name in POINT_COLUMNS}

    @property
    def map_key(self) -> tuple[str, str, int]:
        """Name, site and draw of the map that the point needs."""
        return self.name, self.site, self.draw


@dataclass(frozen=True)
class Plan:
    """What the experiment compares.

    Attributes:
        strengths: of maps, on both sides of 0.
        sites: the first one is a site of keys.
        maps: kinds of map; the first one is under test.
        controls: kinds of control map.
        draws: random draws of ``random-direction``.
        layers: names of sets of layers.
        baselines: names of baselines, of ``BASELINES_TRIED``.
        probes: asked besides the hint, of the model as it is and of the first map at its largest
            strength at all layers.

    Raises:
        UserError: an unknown name, no strength, or a first site that is not one of keys.
    """

    strengths: Sequence[float] = (-1.0, -0.5, 0.5, 1.0)
    sites: Sequence[str] = ("k_proj", "v_proj", "hidden")
    maps: Sequence[str] = MAPS_TRIED
    controls: Sequence[str] = CONTROLS
    draws: int = 5
    layers: Sequence[str] = LAYER_SETS
    baselines: Sequence[str] = tuple(dict.fromkeys(each.of for each in BASELINES_TRIED))
    probes: Sequence[str] = ("shuffle", "blank", "absent", "noise")

    def __post_init__(self) -> None:
        draws, strengths = whole(self.draws, "draws", 1), []
        for strength in distinct(self.strengths, "strengths", "-0.5"):
            strengths.append(number(strength, "a strength", -MOST_STRENGTH, MOST_STRENGTH))
        for site in distinct(self.sites, "sites", "k_proj"):
            site_of(site)
        for name in distinct(self.maps, "maps", "mean-shift"):
            if is_control(name):
                raise UserError(f"{name} is a control and not a map: name it among controls")
        for name in self.controls:
            if not is_control(name):
                raise unknown("control", name, [each for each in MAPS if is_control(each)])
        for name in distinct(self.layers, "layers", ALL):
            if name not in LAYER_SETS:
                raise unknown("set of layers", name, LAYER_SETS)
        tried = {each.of for each in BASELINES_TRIED}
        for name in self.baselines:
            if name not in tried:
                raise unknown("baseline", name, tried)
        for name in self.probes:
            PROBES[name]
        if 0 in strengths:
            raise UserError("strengths has 0, which is measured anyway: leave it out")
        if self.sites[0] not in KEY_SITES:
            raise UserError(
                f"the first site is {self.sites[0]}: attention can be held for maps of keys only, "
                f"so put one of {', '.join(KEY_SITES)} first"
            )
        # plain values, which JSON and YAML can have, where numbers of NumPy were given
        plain: dict[str, Any] = {"draws": draws, "strengths": tuple(strengths)}
        for name in ("sites", "maps", "controls", "layers", "baselines", "probes"):
            plain[name] = tuple(map(str, getattr(self, name)))
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    @property
    def strongest(self) -> list[float]:
        """The largest strength on each side of 0."""
        low, high = min(self.strengths), max(self.strengths)
        return [*([low] if low < 0 else []), *([high] if high > 0 else [])]

    def points(self, layers: Sequence[str]) -> list[Point]:
        """All points, the first of which has no intervention.

        Args:
            layers: the sets of layers that there are, of those asked for.
        """
        found = [Point("none"), *self._under_test(layers), *self._other_maps(layers)]
        found += [*self._controls(layers), *self._baselines(layers)]
        return list(dict.fromkeys(found))

    def probes_at(self, point: Point) -> Sequence[str]:
        """The probes that are asked at a point besides the hint.

        Args:
            point: the intervention.
        """
        strength = max(_one_of_each_size(self.strongest), key=abs)
        largest = (self.maps[0], self.sites[0], ALL, strength, "free")
        here = (point.name, point.site, point.layers, point.strength, point.mass)
        return self.probes if point.kind == "none" or here == largest else ()

    def _under_test(self, layers: Sequence[str]) -> list[Point]:
        """The first map at keys: everywhere, and layer by layer."""
        name, site = self.maps[0], self.sites[0]
        found = []
        for where in layers:
            apart = where in (ALL, READING)
            for strength in self.strengths if apart else self.strongest:
                for mass in ("free", "held", "only") if apart else ("free",):
                    found.append(Point("map", name, site, where, strength, mass))
        for strength in self.strongest:
            for mass in ("free", "held", "only"):
                by_layer = f"{name}, {BY_LAYER}"
                found.append(Point("map", by_layer, site, ALL, strength, mass))
        return found

    def _other_maps(self, layers: Sequence[str]) -> list[Point]:
        """The first map at other sites, and the other maps at keys."""
        name, site = self.maps[0], self.sites[0]
        found = []
        for other in self.sites[1:]:
            found += [Point("map", name, other, ALL, each, "free") for each in self.strongest]
            if READING in layers:
                found += [Point("map", name, other, READING, s, "free") for s in self.strongest]
        most = _one_of_each_size(self.strongest)
        for another in self.maps[1:]:
            found += [Point("map", another, site, ALL, each, "free") for each in self.strongest]
            found += [
                Point("map", another, site, ALL, each, mass)
                for each in most
                for mass in ("held", "only")
            ]
        return found

    def _controls(self, layers: Sequence[str]) -> list[Point]:
        """Maps that move vectors as far, in other directions."""
        site, most = self.sites[0], _one_of_each_size(self.strongest)
        # the set that decides the verdict: the first at which the map is run in all three modes
        decides = next((each for each in layers if each in (ALL, READING)), ALL)
        found = []
        for name in self.controls:
            draws = self.draws if name == "random-direction" else 1
            for draw in range(draws):
                at = [(ALL, each, "free") for each in _one_of_each_size(self.strengths)]
                at += [(ALL, each, "free") for each in self.strongest] if draws == 1 else []
                at += [(decides, each, mass) for each in most for mass in ("held", "only")]
                at += [(READING, each, "free") for each in most] if READING in layers else []
                found += [Point("control", name, site, *each, draw) for each in at]
                if draws > 1:
                    found += [
                        Point("control", name, other, ALL, each, "free", draw)
                        for other in self.sites[1:]
                        for each in most
                    ]
        return found

    def _baselines(self, layers: Sequence[str]) -> list[Point]:
        found = []
        for each in BASELINES_TRIED:
            if each.of not in self.baselines:
                continue
            places = [ALL]
            if each.of in ("attention-bias", "replaced-attention") and READING in layers:
                places.append(READING)
            if each.of in ("vcd", "back-patching"):
                places = [""]  # these act at no layers of the user's choice
            found += [
                Point("baseline", each.name, "", place, each.strength, baseline=each)
                for place in places
            ]
        return found


def _one_of_each_size(strengths: Sequence[float]) -> list[float]:
    """One strength of each size, the positive one where there are two."""
    return sorted({abs(strength): strength for strength in sorted(strengths)}.values())


def layer_sets(attending: Sequence[int], reading: Sequence[int]) -> dict[str, list[int]]:
    """The layers of each set that is not empty.

    Args:
        attending: the layers with attention, ascending.
        reading: the layers that read the image.
    """
    count = len(attending)
    thirds = [list(attending[count * i // 3 : count * (i + 1) // 3]) for i in range(3)]
    found = {ALL: list(attending), **dict(zip(THIRDS, thirds, strict=True)), READING: list(reading)}
    return {name: own for name, own in found.items() if own}
