"""A fitted map: affine maps of one site by layer, and what they were fitted on.

A map is kept in one safetensors file, which can hold no code. What it was fitted on is JSON in the
header of that file. A checksum of everything tells one map from any other, in the identity of a run
and when a file is read.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from keygap.align.affine import Affine
from keygap.capture.sites import SITES, site_of
from keygap.display import as_html, brief, ranges
from keygap.errors import UserError
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.fingerprint import fingerprint
from keygap.models.projections import width_of
from keygap.models.vlm import VLM
from keygap.store import write_bytes

logger = logging.getLogger("keygap")

FORMAT = "keygap map 1"
_REMEDY = "fit the map again, or take another file"


@dataclass(frozen=True, eq=False)
class Map:
    """Fitted affine maps of one site.

    Attributes:
        name: the kind of map, such as ``mean-shift``.
        site: where it acts, a name of ``keygap.capture.sites.SITES``.
        layers: the affine map of each layer, by the layer's absolute index, ascending.
        fitted_on: plain values, the same as after a save and a load: model, fingerprint,
            architecture, n_layers, benchmark, split, seed (of the choice of samples), samples (how
            many), sample_ids, n_image, n_text and n_sinks (of each layer, by its index as text) and
            settings. What is not known is missing or None.

    Raises:
        UserError: there is no such site, no layer, or ``fitted_on`` has values that JSON has not.
    """

    name: str
    site: str
    layers: Mapping[int, Affine]
    fitted_on: Mapping[str, Any]

    def __post_init__(self) -> None:
        site_of(self.site)
        if not self.layers:
            raise UserError(f"the map {self.name} has no layer: fit it at one at least")
        try:
            plain = json.loads(json.dumps(dict(self.fitted_on)))
        except (TypeError, ValueError) as error:
            raise UserError(f"fitted_on has more than plain values: {error}") from error
        object.__setattr__(self, "fitted_on", plain)
        object.__setattr__(self, "layers", dict(sorted(self.layers.items())))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of name, site, tensors and what the map was fitted on, in hexadecimal."""
        digest = hashlib.sha256(self._header.encode())
        for name, tensor in self._tensors():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the map as one safetensors file, whole or not at all.

        Args:
            path: the file. Missing folders are created.

        Raises:
            UserError: the file cannot be written.
        """
        write_bytes(Path(path), self.as_bytes())

    def as_bytes(self) -> bytes:
        """The content of the file that ``save`` writes."""
        header = {"format": FORMAT, "map": self._header, "sha256": self.hash}
        tensors = {name: tensor.clone() for name, tensor in self._tensors()}
        return safetensors.torch.save(tensors, header)

    def at(self, layers: Sequence[int]) -> Map:
        """The same map at some of its layers, with tensors of its own.

        Args:
            layers: absolute indices of layers of the map.
        """
        kept = {
            index: Affine(**{name: own.clone() for name, own in self.layers[index].tensors.items()})
            for index in layers
        }
        return Map(self.name, self.site, kept, self.fitted_on)

    def check(self, vlm: VLM) -> None:
        """Refuse a model that the map cannot be applied to.

        A model of the same architecture with other weights is accepted with a warning in the log.

        Args:
            vlm: the model.

        Raises:
            UserError: the map was fitted on another architecture or number of layers; a layer does
                not exist or does not have the site; heads differ in number or size; or the map has
                values that are not finite.
        """
        check_model(f"the map {self.name}", self.fitted_on, vlm, _REMEDY)
        for index, affine in self.layers.items():
            if index >= len(vlm.layers):
                raise UserError(
                    f"the map {self.name} has layer {index}, and {vlm.name} has layers 0 to "
                    f"{len(vlm.layers) - 1}: {_REMEDY}"
                )
            if not affine.is_finite:
                raise UserError(
                    f"the map {self.name} has values that are not finite at layer {index}: "
                    f"{_REMEDY}"
                )
            known = _shape_at(vlm.layers[index], self.site)
            if known is not None and known != affine.shape:
                raise UserError(
                    f"the map {self.name} has {_in_words(affine.shape)} at layer {index}, and "
                    f"{self.site} of {vlm.name} has {_in_words(known)}: {_REMEDY}"
                )

    @property
    def _header(self) -> str:
        plain = {"name": self.name, "site": self.site, "fitted_on": self.fitted_on}
        return json.dumps(plain, sort_keys=True)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor and its name in the file."""
        for index, affine in self.layers.items():
            for part, tensor in affine.tensors.items():
                yield f"layers.{index}.{part}", tensor.detach().cpu().contiguous()

    def __repr__(self) -> str:
        where = f"{self.site}, layers {ranges(self.layers)}"
        return brief(f"Map({self.name!r}, {where}, {self.hash[:12]})")

    def _repr_html_(self) -> str:
        counts = {f"n_{name}": self.fitted_on.get(f"n_{name}") or {} for name in ("image", "text")}
        rows = [
            {
                "layer": str(index),
                "heads": affine.shape[0],
                "head_dim": affine.shape[1],
                "parameters": sum(tensor.numel() for tensor in affine.tensors.values()),
                **{name: own.get(str(index)) for name, own in counts.items()},
            }
            for index, affine in self.layers.items()
        ]
        of = {name: self.fitted_on.get(name) for name in ("model", "benchmark", "samples")}
        caption = (
            f"Affine map {self.name} of {self.site}, fitted on {of['model']} and {of['samples']} "
            f"samples of {of['benchmark']}; n_image and n_text: the tokens behind each layer. It "
            "has no intervals: what it does to answers is measured with kg.causes."
        )
        return as_html(caption, pd.DataFrame(rows), [f"SHA-256 {self.hash}"])


def load_map(path: str | Path) -> Map:
    """Read a map that ``Map.save`` wrote.

    Args:
        path: the file.

    Returns:
        The map.

    Raises:
        UserError: there is no such file, it is not a map, or it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no map at {path}: fit one and save it there")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is damaged or not a safetensors file ({error}): {_REMEDY}"
        ) from error
    if header.get("format") != FORMAT:
        raise UserError(f"{path} is not a map written by keygap: {_REMEDY}")
    try:
        plain = json.loads(header["map"])
        parts: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            _, index, part = name.split(".")
            parts.setdefault(int(index), {})[part] = tensor
        layers = {index: Affine(**own) for index, own in parts.items()}
        found = Map(plain["name"], plain["site"], layers, plain["fitted_on"])
        names = {name for name, _ in found._tensors()}
        whole = names == set(tensors) and found.hash == header["sha256"]
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is a damaged map ({error}): {_REMEDY}") from error
    if not whole:
        raise UserError(f"{path} is a damaged map (its checksum is another): {_REMEDY}")
    return found


def check_model(what: str, facts: Mapping[str, Any], vlm: VLM, remedy: str) -> None:
    """Refuse a model of another architecture or depth; of other weights, warn in the log.

    Args:
        what: what was fitted or measured, for the message.
        facts: ``model``, ``architecture``, ``n_layers`` and ``fingerprint`` of its model; what is
            missing is not compared.
        vlm: the model that it is to be applied to.
        remedy: what the user can do.

    Raises:
        UserError: architecture or number of layers differ.
    """
    here = {"architecture": vlm.architecture, "n_layers": len(vlm.layers)}
    for name, own in here.items():
        fitted = facts.get(name)
        if fitted and own and fitted != own:
            value = name.replace("n_layers", "number of layers")
            raise UserError(
                f"{what} was fitted on {facts.get('model')}, whose {value} is {fitted}, and that "
                f"of {vlm.name} is {own}: {remedy}"
            )
    weights = facts.get("fingerprint")
    if weights and weights != fingerprint(vlm.model):
        logger.warning(
            "%s was fitted on %s with other weights than those of %s",
            what, facts.get("model"), vlm.name,
        )  # fmt: skip


def _shape_at(layer: DecoderLayer, site: str) -> tuple[int, int] | None:
    """Heads and dimensions of a head at a site; None where only a pass can tell.

    Raises:
        UserError: the layer does not have the site.
    """
    if SITES[site].kind == "projection":
        projection = layer.projection(site)
        if projection.layout is None:
            heads = width_of(projection.module) // projection.head_dim
        else:
            heads = projection.heads if site == "q_proj" else projection.key_heads
        return heads, projection.head_dim
    if SITES[site].kind == "hidden":
        return None  # residual streams are told apart in a pass only
    if not layer.calls_function:
        raise UserError(f"layer {layer.index} has no {site} ({layer.kind}): choose other layers")
    if not layer.projections:
        return None  # a latent is spread over heads whose sizes differ by site
    return layer.key_heads if SITES[site].of_keys else layer.heads, layer.head_dim


def _in_words(shape: tuple[int, int]) -> str:
    return f"{shape[0]} heads of {shape[1]} dimensions"
