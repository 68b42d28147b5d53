"""Layers that attend to the keys and values of an earlier layer.

Such a layer has queries of its own, and no keys: its keys are those of the earlier layer a second
time. It is named as such and not read as another layer. The self-check compares the keys of all
layers, so that a layer that shares without saying so is found there.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from torch import nn

from keygap.models.decoder_layer import DecoderLayer
from keygap.models.projections import is_latent

_SAYS_SO = re.compile(r"kv_share|share[sd]?_kv|reuse[sd]?_kv|share[sd]?_key")


def with_shared_keys(layers: tuple[DecoderLayer, ...], config: Any) -> tuple[DecoderLayer, ...]:
    """The layers, with the source of the keys of those that have none of their own.

    Args:
        layers: the layers in order.
        config: the configuration of the text model.
    """
    result: list[DecoderLayer] = []
    for layer in layers:
        source = _source(layer, result, config) if _has_no_keys(layer) else None
        result.append(replace(layer, shares=source))
    return tuple(result)


def _has_no_keys(layer: DecoderLayer) -> bool:
    """Whether nothing in a layer computes keys."""
    attention = layer.attention
    if attention is None or layer.attends != "self" or is_latent(attention):
        return False
    return "k_proj" not in layer.projections and (
        _says_that_it_shares(attention) or "q_proj" in layer.projections
    )


def _says_that_it_shares(attention: nn.Module) -> bool:
    """Whether an attribute of an attention module says so, as ``is_kv_shared_layer`` does."""
    return any(value is True and _SAYS_SO.search(name) for name, value in vars(attention).items())


def _source(layer: DecoderLayer, before: list[DecoderLayer], config: Any) -> int | None:
    """The layer that a layer shares with: the one that it or the configuration names.

    Where neither names one, it is the last earlier layer with keys of its own and the same window:
    a full layer cannot use the keys of a layer that keeps a window of them.
    """
    named = getattr(layer.attention, "kv_shared_layer_index", None)
    if named is None and (sources := getattr(config, "kv_source_layers", None)):
        named = sources[layer.index]
    if isinstance(named, int) and named < layer.index:
        return named
    own = [other for other in before if other.shares is None and other.attends == "self"]
    alike = [other.index for other in own if other.window == layer.window]
    return alike[-1] if alike else None
