"""Attention weights of a model's own eager attention, by hooks on its attention modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import keygap as kg
from keygap.models.batch import Batch


def eager_weights(vlm: kg.VLM, batch: Batch | dict[str, Any]) -> dict[int, Tensor]:
    """Weights (batch, heads, queries, keys) by layer; the model is left with eager attention."""
    vlm.model.set_attn_implementation("eager")
    found: dict[int, Tensor] = {}
    handles = []
    for layer in vlm.layers:
        if layer.attention is None:
            continue

        def hook(module: Any, arguments: Any, output: Any, index: int = layer.index) -> None:
            weights = [each for each in output[1:] if torch.is_tensor(each) and each.ndim == 4]
            if weights and index not in found:
                found[index] = weights[0].detach().float()

        handles.append(layer.attention.register_forward_hook(hook))
    with torch.no_grad():
        vlm.forward(batch, output_attentions=True)
    for handle in handles:
        handle.remove()
    return found
