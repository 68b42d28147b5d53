"""Lists of sites and layers, checked as far as is possible before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterable

from keygap.arguments import distinct, whole
from keygap.capture.sites import site_of
from keygap.errors import UserError, unknown
from keygap.models.vlm import LAYER_NAMES

MOST_LAYERS = 100_000  # far above the depth of any model


def named_sites(sites: Iterable[str]) -> list[str]:
    """Check the names of sites.

    Raises:
        UserError: there is none, one is unknown, or one occurs twice.
    """
    return [site_of(name).name for name in distinct(sites, "sites", "k_proj")]


def named_layers(layers: Iterable[str | int]) -> list[str | int]:
    """Check names and indices of layers; how many layers the model has is not known yet.

    Raises:
        UserError: there is none, one is no name and no index, or one occurs twice.
    """
    return distinct(map(_layer, distinct(layers, "layers", "first")), "layers", "first")


def layers_of_run(layers: Iterable[str]) -> list[int]:
    """Check indices of layers of a run; the run has no model that could say what a name means.

    Raises:
        UserError: there is none, one is no index, or one occurs twice.
    """
    found = []
    for layer in named_layers(layers):
        if isinstance(layer, str):
            raise UserError(f"layer {layer!r}: name a layer of a run by its index, such as 0")
        found.append(layer)
    return found


def _layer(layer: str | int) -> str | int:
    if not isinstance(layer, str):
        return whole(layer, "a layer", 0, MOST_LAYERS)
    if layer in LAYER_NAMES:
        return layer
    digits = layer.removeprefix("-")
    if digits.isascii() and digits.isdecimal() and len(digits) < 20:
        return whole(int(layer), "a layer", 0, MOST_LAYERS)
    raise unknown("layer", layer, LAYER_NAMES, "or an index, counted from 0")
