"""Hooks on modules that see the vectors of a site, and may replace them.

Captures and interventions reach projections and the residual stream through these two functions, so
both see the same vectors: (batch, tokens, heads, head_dim), with the residual's streams as heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from keygap.models.decoder_layer import DecoderLayer

SeesVectors = Callable[[Tensor], Tensor | None]  # what it returns replaces the vectors
Shape = Callable[[], tuple[int, int] | None]  # prompts and tokens of a pass; None: leave it alone


def hook_projection(
    layer: DecoderLayer, name: str, function: SeesVectors, shape: Shape, *, first: bool = False
) -> RemovableHandle:
    """Show a projection's output to a function.

    Args:
        layer: a layer of the text stack.
        name: ``q_proj``, ``k_proj`` or ``v_proj``.
        function: gets the vectors and returns what replaces them, or None.
        shape: says how many prompts and tokens the current pass has, or None for a pass whose
            vectors the function need not see.
        first: whether the function comes before those that are hooked already.

    Raises:
        UserError: the layer has no such projection.
    """
    projection = layer.projection(name)

    def hook(module: nn.Module, arguments: Any, output: Tensor) -> Tensor | None:
        size = shape()
        if size is None:
            return None
        vectors = own = projection.read(output)
        if layer.attends == "cross" and len(own) != size[0]:
            # each view of an image is a row here; attention joins those of a prompt
            vectors = own.reshape(size[0], -1, *own.shape[-2:])
        changed = function(vectors)
        return None if changed is None else projection.write(output, changed.reshape(own.shape))

    return projection.module.register_forward_hook(hook, prepend=first)


def hook_hidden(
    layer: DecoderLayer, function: SeesVectors, shape: Shape, *, first: bool = False
) -> RemovableHandle:
    """Show the residual stream that enters a layer to a function; arguments as above."""

    def hook(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        size = shape()
        if size is None:
            return None
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        streams_first = hidden.ndim == 4 and hidden.shape[1] != size[1]
        changed = function(_with_streams(hidden, streams_first))
        if changed is None:
            return None
        if hidden.ndim == 3:
            changed = changed.squeeze(-2)
        elif streams_first:
            changed = changed.movedim(2, 0)
        if arguments:
            return (changed, *arguments[1:]), keywords
        return arguments, {**keywords, "hidden_states": changed}

    return layer.block.register_forward_pre_hook(hook, with_kwargs=True, prepend=first)


def _with_streams(hidden: Tensor, streams_first: bool) -> Tensor:
    """The residual as (batch, tokens, streams, width): one stream, in most models.

    Several streams (hyper-connections, AltUp) come before the batch or after the tokens.
    """
    if hidden.ndim == 3:
        return hidden.unsqueeze(-2)
    return hidden.movedim(0, 2) if streams_first else hidden
