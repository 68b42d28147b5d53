"""How a fused projection's output is divided: found by running it.

Values reach attention as they were projected, so the layout that reproduces the values of an
attention call is the right one. One pass over random embeddings tells.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any, get_args

import torch
from torch import Tensor, nn

from keygap.errors import UserError
from keygap.models.attention_tap import AttentionCall, AttentionTap
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.projections import Fused, width_of
from keygap.models.running import as_it_is_read, computes_in


def with_layouts(decoder: nn.Module, layers: tuple[DecoderLayer, ...]) -> tuple[DecoderLayer, ...]:
    """The layers, with the layout of their fused projections as the model has it.

    Args:
        decoder: the module that owns the layers.
        layers: the layers, fused projections with any layout.

    Raises:
        UserError: no known layout gives the values that attention gets.
    """
    fused = [layer for layer in layers if any(p.is_fused for p in layer.projections.values())]
    if not fused:
        return layers
    module = fused[0].projections["v_proj"].module
    offloaded = hasattr(module, "_hf_hook")  # accelerate brings the weight in when it is called
    if _device_of(module).type == "meta" and not offloaded:
        return layers  # a model without weights: nothing can be run
    layout = _layout(decoder, fused[0])
    result = []
    for layer in layers:
        if layer in fused:
            moved = {name: p.as_layout(layout) for name, p in layer.projections.items()}
            layer = replace(layer, projections=moved)
        result.append(layer)
    return tuple(result)


def _device_of(module: nn.Module) -> torch.device:
    """Where a module's numbers are; quantised modules may keep them in buffers."""
    return next(chain(module.parameters(), module.buffers())).device


def _layout(decoder: nn.Module, layer: DecoderLayer) -> Fused:
    projection = layer.projections["v_proj"]
    output, value = _output_and_value(decoder, layer)
    for layout in get_args(Fused):
        share = projection.as_layout(layout).read(output)
        if share.shape == value.shape and torch.equal(share, value):
            return layout
    raise UserError(
        f"{type(layer.attention).__name__}: its fused projection of width "
        f"{width_of(projection.module)} is divided in a way that keygap does not know"
    )


def _output_and_value(decoder: nn.Module, layer: DecoderLayer) -> tuple[Tensor, Tensor]:
    """A fused module's output and the values that attention gets, in a pass over random states."""
    module: Any = layer.projections["v_proj"].module
    seen: dict[str, Tensor] = {}

    def handler(call: AttentionCall) -> Any:
        seen["value"] = call.value.transpose(1, 2)
        raise _Seen

    def hook(module: nn.Module, arguments: Any, output: Tensor) -> None:
        seen["output"] = output

    width = int(module.in_features if hasattr(module, "in_features") else module.weight.shape[-1])
    random = torch.randn(1, 3, width, generator=torch.Generator().manual_seed(0))
    place = "cpu" if _device_of(module).type == "meta" else _device_of(module)
    handle = module.register_forward_hook(hook)
    try:
        assert layer.attention is not None  # it has projections
        with (
            AttentionTap([layer.attention], handler),
            as_it_is_read(decoder),
            torch.no_grad(),
            suppress(_Seen),
        ):
            decoder(inputs_embeds=random.to(place, computes_in(decoder)), use_cache=False)
    finally:
        handle.remove()
    return seen["output"], seen["value"]


class _Seen(Exception):
    """Raised inside attention once the values were seen."""
