"""``kg.align.steer``: a fitted map acts on a model while a block runs.

Steering must change what is named and nothing else. Tokens are chosen by their labels, so padding
never moves and prompts of one batch do not disturb each other; at strength 0 the vectors are passed
on as they are, bit for bit. Moved keys change two things at once: where they lie, and how much
attention the image gets in total. ``mass`` separates the two (see ``keygap.align.mass``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keygap.align.affine import Affine
from keygap.align.map import Map
from keygap.errors import UserError, unknown
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.interventions import Intervention
from keygap.models.positions import VISUAL, Tokens, known_tokens
from keygap.models.vlm import VLM

Mass = Literal["free", "held", "only"]
MASSES: tuple[str, ...] = get_args(Mass)


class Steering(Intervention):
    """Moves the vectors of some tokens by a fitted map.

    Args:
        fitted: the map.
        layers: absolute indices, each a layer of the map.
        strength: 0 leaves vectors as they are, 1 applies the map, less than 0 moves them the other
            way.
        tokens: names of modalities and roles.
    """

    name = "steer"

    def __init__(
        self, fitted: Map, layers: Sequence[int], strength: float, tokens: Sequence[str]
    ) -> None:
        self.map = fitted
        self.layers = list(layers)
        self.sites: Sequence[str] = (fitted.site,)
        self.strength = strength
        self.tokens = tuple(tokens)
        self._ready: dict[tuple[int, torch.device], Affine] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without copies on a GPU, which another process may not see."""
        return {**vars(self), "_ready": {}}

    def identity(self) -> dict[str, Any]:
        """Name, layers and sites; the map by name and hash; strength and tokens."""
        return {
            **super().identity(),
            "map": self.map.name,
            "hash": self.map.hash,
            "strength": self.strength,
            "tokens": list(self.tokens),
        }

    def change(
        self,
        vectors: Float[Tensor, "b t heads head_dim"],
        site: str,
        layer: DecoderLayer,
        tokens: Tokens,
    ) -> Float[Tensor, "b t heads head_dim"]:
        """The vectors, those of the chosen tokens moved."""
        return self.moved(vectors, layer, tokens)

    def moved(
        self, vectors: Float[Tensor, "b t heads head_dim"], layer: DecoderLayer, tokens: Tokens
    ) -> Float[Tensor, "b t heads head_dim"]:
        """The vectors, those of the chosen tokens moved."""
        chosen = self.chosen(tokens)
        if self.strength == 0:
            return vectors
        affine = self._affine(layer.index, vectors)
        if affine.shift_only:  # one operation, in the precision of the model
            shift = affine.shift.to(vectors.dtype)
            mask = chosen[..., None, None].to(vectors.dtype)
            return torch.addcmul(vectors, mask, shift, value=self.strength)
        moved = affine.apply(vectors, self.strength)
        return torch.where(chosen[..., None, None], moved, vectors)

    def chosen(self, tokens: Tokens) -> Bool[Tensor, "b t"]:
        """Which tokens are moved: of the images, only those that show a part of one."""
        return tokens.are(self.tokens, parts_only=True)

    def _affine(self, layer: int, like: Tensor) -> Affine:
        """The map of a layer, on the device of a model's vectors."""
        key = (layer, like.device)
        if key not in self._ready:
            self._ready[key] = self.map.layers[layer].to(like.device)
        return self._ready[key]


@contextmanager
def steer(
    vlm: VLM,
    fitted: Map,
    *,
    layers: str | int | Sequence[str | int] = "all",
    strength: float = 1.0,
    tokens: str | Sequence[str] = VISUAL,
    mass: Mass = "free",
) -> Iterator[None]:
    """Let a map act on a model until the block is left.

    Forward passes, generation and extraction inside the block are steered, after interventions that
    are applied already. Leaving the block restores the model, after an exception too.

    Args:
        vlm: the model.
        fitted: the map.
        layers: ``all`` layers of the map, or ``first``, ``middle``, ``last`` and absolute indices
            of the model, mixed.
        strength: 0 changes nothing, 1 applies the map, less than 0 moves vectors the other way.
        tokens: the modalities and roles of the tokens that are moved; by default those of images
            and videos, which maps are fitted on.
        mass: what becomes of each query's total attention to the image, by layer and head. ``free``
            lets it change with the moved keys. ``held`` moves the keys and keeps it at what the
            unmoved keys give. ``only`` leaves the keys and sets it to what the moved keys would
            give. The last two need a map of keys.

    Raises:
        UserError: a map of another model, a layer that the map does not have or where the model
            cannot be changed, a strength that is not finite, an unknown token name or ``mass``.
    """
    with vlm.interventions.applied(steering_of(vlm, fitted, layers, strength, tokens, mass)):
        yield


def steering_of(
    vlm: VLM,
    fitted: Map,
    layers: str | int | Sequence[str | int] = "all",
    strength: float = 1.0,
    tokens: str | Sequence[str] = VISUAL,
    mass: Mass = "free",
) -> Steering:
    """Make the intervention that ``steer`` applies.

    Args:
        vlm: the model.
        fitted: the map.
        layers: see ``steer``.
        strength: see ``steer``.
        tokens: see ``steer``.
        mass: see ``steer``.

    Returns:
        The intervention, which is applied to no model yet.

    Raises:
        UserError: as ``steer``.
    """
    from keygap.align.mass import MassSteering  # a kind of Steering itself

    if mass not in MASSES:
        raise unknown("mass", mass, MASSES)
    if isinstance(strength, bool) or not math.isfinite(strength):
        raise UserError(f"strength is {strength}: it must be a finite number, such as 0.5")
    fitted.check(vlm)
    indices = _layers_of(vlm, fitted, [layers] if isinstance(layers, (str, int)) else layers)
    names = known_tokens(tokens)
    for each in vlm.interventions.active:
        if isinstance(each, MassSteering) and set(each.layers) & set(indices):
            raise UserError(
                f"the model is steered with mass={each.mass!r} already, which must come last: "
                "apply other maps before it"
            )
    if mass == "free":
        return Steering(fitted, indices, float(strength), names)
    _refuse_shared(vlm, indices, mass)
    return MassSteering(fitted, indices, float(strength), names, mass)


def _layers_of(vlm: VLM, fitted: Map, wanted: Sequence[str | int]) -> list[int]:
    """Absolute indices of the wanted layers, all of which the map has."""
    known = sorted(fitted.layers)
    if list(wanted) == ["all"]:
        return known
    indices = vlm.layer_indices(wanted)
    if missing := [index for index in indices if index not in fitted.layers]:
        raise UserError(
            f"the map {fitted.name} has no layer {missing[0]}: it was fitted at layers "
            f"{', '.join(map(str, known))}"
        )
    return indices


def _refuse_shared(vlm: VLM, indices: Sequence[int], mass: Mass) -> None:
    """Refuse layers whose keys other layers use, where attention would change all the same."""
    for index, owner in vlm.shared.items():
        if owner in indices:
            raise UserError(
                f"layer {index} of {vlm.name} attends to the keys of layer {owner}, so its "
                f"attention to the image cannot be set with mass={mass!r}: leave layer {owner} out"
            )
