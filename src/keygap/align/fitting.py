"""``kg.align.fit``: a map from image vectors to text vectors, at some layers of one site.

A map is fitted at all layers at once on an extraction or on vectors in memory, or layer by layer
while the model runs. Fitting all layers at once describes the unmodified model. Once a map acts at
one layer, however, later layers see vectors that differ from those their maps were fitted on. Layer
by layer, each map is fitted on the vectors that the earlier maps produce.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from keygap import defaults, random_streams
from keygap.align.affine import Affine
from keygap.align.map import Map
from keygap.align.maps import MAPS, FitContext, HeadMap
from keygap.align.steering import Steering
from keygap.align.vectors import FitVectors, facts_of, facts_of_model, prepared, read_batches
from keygap.arguments import distinct, seed_of, whole
from keygap.benchmarks import Benchmark, SampleSet
from keygap.benchmarks.sample_set import UNSET, Unset, as_sample_set
from keygap.capture.choice import named_layers
from keygap.capture.sites import site_of
from keygap.contrasts.labels import is_image, is_sink, is_text
from keygap.errors import UserError, unknown
from keygap.models.positions import VISUAL
from keygap.models.vlm import VLM
from keygap.progress import track
from keygap.store import LabelledVectors, Store
from keygap.tokens import known_roles


def fit(
    name: str,
    source: Store | FitVectors,
    *,
    site: str | None = None,
    layers: str | int | Sequence[int] = "all",
    text_layer: int | None = None,
    text_roles: Sequence[str] = defaults.TEXT_ROLES,
    sinks: bool = False,
    seed: int = 0,
    draw: int = 0,
) -> Map:
    """Fit a map from image tokens to text tokens, at each layer and head for itself.

    Args:
        name: a kind of map, see ``MAPS``.
        source: an extraction, or vectors in memory (``read_vectors``).
        site: a site of the source. None: its only one.
        layers: ``all`` layers of the source, or absolute indices.
        text_layer: the layer that text tokens are taken from. None: the layer that is fitted. Where
            image features are the keys of cross-attention layers, text is in other layers.
        text_roles: what counts as text.
        sinks: whether attention sinks enter the fit. They are far from other tokens of their kind
            and few, and would move the means. Where attention is NaN, no token counts as a sink;
            vectors without a column ``attention`` are refused unless this is true.
        seed: of the map's random draws.
        draw: which of several independent draws of a random map.

    Returns:
        The map, with one part for each layer and head.

    Raises:
        UserError: the map, site, layer or role does not exist; there are no image or text tokens,
            or too few for the map; vectors are not finite or lack ``attention``; or heads differ
            from those of ``text_layer``.
    """
    chosen = _site_of(source, site)
    indices = _layers_of(source, chosen, layers)
    fitter = _Fitter(name, chosen, text_roles, sinks, seed, draw)
    text = None if text_layer is None else _text_of(source, chosen, text_layer)
    for index in indices:
        fitter.add(index, source.vectors(chosen, index), text)
    return fitter.map(facts_of(source), {"layer_by_layer": False, "text_layer": text_layer})


def fit_layer_by_layer(
    vlm: VLM,
    name: str,
    source: Benchmark | SampleSet,
    *,
    site: str = "k_proj",
    layers: str | int | Sequence[str | int] = "all",
    samples: int | Unset | None = UNSET,
    batch_size: int = defaults.BATCH_SIZE,
    text_roles: Sequence[str] = defaults.TEXT_ROLES,
    sinks: bool = False,
    seed: int = 0,
    draw: int = 0,
) -> Map:
    """Fit a map where each layer sees what the maps of all earlier layers leave, at strength 1.

    Each layer takes one pass over the samples, which ends at that layer. Their inputs are kept in
    memory between the passes.

    Args:
        vlm: the model. Interventions that are applied to it stay.
        name: a kind of map, see ``MAPS``.
        source: a benchmark, or the samples already chosen from one.
        site: a name of ``keygap.capture.sites.SITES``.
        layers: ``first``, ``middle``, ``last``, ``all`` and absolute indices, mixed.
        samples: how many to choose from a benchmark; None means all. Default: 200.
        batch_size: samples in one forward pass.
        text_roles: what counts as text.
        sinks: whether attention sinks enter the fit, see ``fit``.
        seed: of the choice of samples from a benchmark, and of the map's random draws.
        draw: which of several independent draws of a random map.

    Returns:
        The map, with one part for each layer and head.

    Raises:
        UserError: as ``fit`` and ``read_vectors``.
    """
    fitter = _Fitter(name, site_of(site).name, text_roles, sinks, seed, draw)
    wanted = [layers] if isinstance(layers, (str, int)) else layers
    indices = vlm.layer_indices(named_layers(wanted))
    own = UNSET if isinstance(source, SampleSet) else seed
    chosen = as_sample_set(source, samples, own)
    failures: dict[str, str] = {}
    batches = prepared(vlm, chosen, batch_size, failures)
    facts = facts_of_model(vlm, chosen)
    what = f"{name} of {vlm.name}, layer by layer"
    for index in track(indices, len(indices), what):
        with vlm.interventions.applied(*fitter.so_far()):
            read = read_batches(vlm, batches, [site], [index], failures)
        fitter.add(index, read[site, index])
    return fitter.map(facts, {"layer_by_layer": True, "text_layer": None})


@dataclass
class _Fitter:
    """Fits one map, one layer after another.

    Attributes:
        name: a kind of map.
        site: of the vectors.
        roles: what counts as text.
        sinks: whether attention sinks enter the fit.
        seed: of the map's random draws.
        draw: which of several draws.
        affines: what was fitted, by layer.
        counts: tokens by name and layer.
        ids: the samples of all tokens that were used.
    """

    name: str
    site: str
    roles: Sequence[str]
    sinks: bool
    seed: int
    draw: int
    affines: dict[int, Affine] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(
        default_factory=lambda: {"n_image": {}, "n_text": {}, "n_sinks": {}}
    )
    ids: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.kind = MAPS[self.name]
        self.roles = known_roles(self.roles)
        self.seed, self.draw = seed_of(self.seed), whole(self.draw, "draw", 0)

    def add(
        self, layer: int, vectors: LabelledVectors, text_vectors: LabelledVectors | None = None
    ) -> None:
        """Fit a layer.

        Args:
            layer: the absolute index of the layer.
            vectors: all of its vectors.
            text_vectors: those of the layer that text is taken from; None: the same.

        Raises:
            UserError: the map cannot be fitted; the message begins with the place.
        """
        try:
            image, text, left_out = self._sides(vectors, text_vectors)
            self.affines[layer] = self._affine(layer, image, text)
        except UserError as reason:
            raise UserError(f"{self.name}, {self.site}, layer {layer}: {reason}") from reason
        found = {"n_image": len(image), "n_text": len(text), "n_sinks": left_out}
        for name, count in found.items():
            self.counts[name][str(layer)] = count
        self.ids.update(map(str, image.sample_ids), map(str, text.sample_ids))

    def so_far(self) -> list[Steering]:
        """What moves tokens by the layers that are fitted; nothing before the first."""
        if not self.affines:
            return []
        fitted = Map(self.name, self.site, self.affines, {})
        return [Steering(fitted, list(self.affines), 1.0, VISUAL)]

    def map(self, facts: dict[str, Any], how: dict[str, Any]) -> Map:
        """What was fitted, as a map.

        Args:
            facts: about model and samples.
            how: settings besides those of the fitter.
        """
        settings = {
            "text_roles": list(self.roles),
            "sinks": self.sinks,
            "seed": self.seed,
            "draw": self.draw,
            **how,
        }
        samples = {"samples": len(self.ids), "sample_ids": sorted(self.ids)}
        fitted_on = {**facts, **samples, **self.counts, "settings": settings}
        return Map(self.name, self.site, self.affines, fitted_on)

    def _sides(
        self, vectors: LabelledVectors, text_vectors: LabelledVectors | None
    ) -> tuple[LabelledVectors, LabelledVectors, int]:
        """Image vectors, text vectors, and how many sinks were left out of both."""
        other = vectors if text_vectors is None else text_vectors
        if vectors.array.shape[1:] != other.array.shape[1:]:
            here, there = (own.array.shape[1:] for own in (vectors, other))
            raise UserError(
                f"its vectors have {here[0]} heads of {here[1]} dimensions, and the text of "
                f"text_layer has {there[0]} of {there[1]}: choose a layer of the same shape"
            )
        image = self._selected(vectors, is_image(vectors.labels))
        text = self._selected(other, is_text(other.labels, self.roles))
        if not len(image[0]):
            raise UserError(f"there are no image tokens to fit on{_present(vectors.labels)}")
        if not len(text[0]):
            raise UserError(
                f"there are no text tokens of role {', '.join(self.roles)} to fit on"
                f"{_present(other.labels)}"
            )
        return image[0], text[0], image[1] + text[1]

    def _selected(
        self, vectors: LabelledVectors, mask: Bool[np.ndarray, " n"]
    ) -> tuple[LabelledVectors, int]:
        """The vectors of a mask, and how many sinks were left out of it."""
        labels = vectors.labels
        if self.sinks:
            left_out = np.zeros_like(mask)
        elif "attention" in labels:
            left_out = mask & is_sink(labels)
        else:
            raise UserError("the vectors have no attention, which tells sinks: pass sinks=True")
        chosen = vectors.where(mask & ~left_out)
        if not np.isfinite(chosen.array).all():
            bad = int((~np.isfinite(chosen.array)).any((1, 2)).sum())
            raise UserError(
                f"{bad} of {len(chosen)} vectors are not finite: extract in another dtype, or "
                "leave these samples out"
            )
        return chosen, int(left_out.sum())

    def _affine(self, layer: int, image: LabelledVectors, text: LabelledVectors) -> Affine:
        heads = []
        for head in range(image.array.shape[1]):
            purpose = ("align", self.name, self.draw)
            context = FitContext(
                groups_image=image.sample_ids.astype(str),
                groups_text=text.sample_ids.astype(str),
                words_text=text.tokens.astype(str),
                rng=random_streams.generator(self.seed, *purpose, self.site, layer, head),
                order_seed=random_streams.integer(self.seed, *purpose),
            )
            x, y = (side.array[:, head].astype(np.float64) for side in (image, text))
            heads.append(self.kind(x, y, context))
        return _stacked(heads, image.array.shape[2])


def _stacked(heads: Sequence[HeadMap], head_dim: int) -> Affine:
    """The maps of all heads as one, checked, since a kind of map may come from another package."""
    parts: dict[str, Tensor] = {}
    needed = {"shift": (head_dim,), "scale": (head_dim,), "matrix": (head_dim, head_dim)}
    for name, shape in needed.items():
        found = [np.asarray(own) for head in heads if (own := getattr(head, name)) is not None]
        if len(found) not in (0, len(heads)):
            raise UserError(f"the map gives a {name} for some heads only: give it for all")
        if wrong := [own.shape for own in found if own.shape != shape]:
            raise UserError(f"the map gives a {name} of shape {wrong[0]}: {shape} is needed")
        if found:
            parts[name] = torch.from_numpy(np.stack(found).astype(np.float32))
    affine = Affine(**parts)
    if not affine.is_finite:
        raise UserError("the fitted map is not finite: fit on more samples or another map")
    return affine


def _site_of(source: Store | FitVectors, site: str | None) -> str:
    if site is not None:
        if site_of(site).name not in source.sites:
            raise unknown("site", site, source.sites, hint="of these vectors")
        return site
    if len(source.sites) != 1:
        raise UserError(f"there are vectors of {', '.join(source.sites)}: choose one with site")
    return source.sites[0]


def _layers_of(
    source: Store | FitVectors, site: str, layers: str | int | Sequence[int]
) -> list[int]:
    known = source.layers(site)
    if layers == "all":
        return known
    wanted = distinct([layers] if isinstance(layers, (str, int)) else layers, "layers", "0")
    for layer in wanted:
        if layer not in known:
            raise unknown("layer", layer, ["all", *known], hint=f"of {site} in these vectors")
    return sorted(int(layer) for layer in wanted)


def _text_of(source: Store | FitVectors, site: str, layer: int) -> LabelledVectors:
    if layer not in source.layers(site):
        raise unknown("text_layer", layer, source.layers(site), hint=f"of {site}")
    return source.vectors(site, layer)


def _present(labels: pd.DataFrame) -> str:
    """Which tokens there are instead, and what to do."""
    kinds = sorted(labels["modality"].astype(str).unique())
    if len(kinds) == 1:
        return (
            f": every token of this layer is {kinds[0]}. Where image and text meet in "
            "cross-attention, fit the cross-attention layers with text_layer"
        )
    roles = sorted(labels["role"][labels["modality"] == "text"].astype(str).unique())
    return f", only {', '.join(kinds)}; text has the roles {', '.join(roles)}: see text_roles"
