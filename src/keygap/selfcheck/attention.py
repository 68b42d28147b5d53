"""Attention is read right if it can be recomputed, and if changing it changes the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from keygap.capture.attention import attention_at
from keygap.models.attention_tap import AttentionCall, AttentionTap
from keygap.models.batch import Batch
from keygap.models.vlm import VLM
from keygap.selfcheck.finding import FAIL, NOISE, NOT_RUN, Outcome, outcome, vector_error


def attention_recomputed(vlm: VLM, batch: Batch) -> Outcome:
    """Attention from query, key, value, mask and scale is what the model's attention gives."""
    layers = [layer for layer in vlm.layers if layer.calls_function]
    if own := [layer for layer in vlm.layers if layer.attention and not layer.calls_function]:
        return NOT_RUN, (
            f"{own[0].kind} (layer {own[0].index}) computes attention by itself and not through "
            "transformers' attention function"
        )
    modules = [layer.attention for layer in layers if layer.attention is not None]
    index = {id(layer.attention): layer.index for layer in layers}
    errors: dict[int, float] = {}
    skipped: list[str] = []
    keys: dict[int, Tensor] = {}

    def handler(call: AttentionCall) -> Any:
        keys[index[id(call.module)]] = call.key[:1].detach().clone()
        output = call.proceed()
        states = output[0] if isinstance(output, tuple) else output
        try:
            error = vector_error(recomputed(call).flatten(0, 1), states.flatten(0, 1))
        except NotImplementedError as reason:
            skipped.append(str(reason))
            return output
        layer = index[id(call.module)]
        errors[layer] = max(errors.get(layer, 0.0), error)
        return output

    with torch.no_grad(), AttentionTap(modules, handler, reads=True):
        vlm.forward(batch)
    if wrong := _unnamed_sharing(vlm, keys):
        return FAIL, wrong
    if skipped:
        return NOT_RUN, skipped[0]
    missing = [layer.index for layer in layers if layer.index not in errors]
    if missing:
        return FAIL, f"layers {missing} never called the attention function"
    worst = max(errors, key=lambda layer: errors[layer])
    detail = f"{len(errors)} layers, worst {errors[worst]:.1e} at layer {worst}"
    return outcome(errors[worst] <= NOISE[vlm.dtype], detail)


def _unnamed_sharing(vlm: VLM, keys: dict[int, Tensor]) -> str:
    """Which layer is said to share keys and does not, or the other way round; empty if none."""
    for layer, own in keys.items():
        same = [
            other
            for other, theirs in keys.items()
            if other < layer
            and theirs.shape == own.shape
            and torch.equal(theirs.to(own.device), own)  # layers may be on several GPUs
        ]
        source = vlm.shared.get(layer)
        if source is None and same:
            return f"layer {layer} attends to the keys of layer {same[0]}, and is read as another"
        if source is not None and source not in same:
            return f"layer {layer} does not attend to the keys of layer {source}"
    return ""


def recomputed(call: AttentionCall) -> Float[Tensor, "b t heads value_dim"]:
    """Attention from query, key, value, mask and scale alone, in float32.

    Raises:
        NotImplementedError: the mask has a form that only its implementation reads.
    """
    if call.mask is not None and not (torch.is_tensor(call.mask) and call.mask.ndim == 4):
        raise NotImplementedError(f"a mask of type {type(call.mask).__name__} cannot be recomputed")
    everywhere = torch.arange(call.query.shape[2], device=call.query.device)
    weights = attention_at(call, everywhere.expand(len(call.query), -1)).weights
    group = call.query.shape[1] // call.key.shape[1]
    return (weights @ call.value.repeat_interleave(group, 1).float()).transpose(1, 2)


def changed_key(vlm: VLM, batch: Batch) -> Outcome:
    """A key that is changed on its way into attention changes the logits, which then come back."""
    layers = [layer for layer in vlm.layers if layer.attention is not None]
    layers = [layer for layer in layers if layer.shares is None]
    cross = [layer for layer in layers if layer.attends == "cross"]
    layer = (cross or layers)[len(cross or layers) // 2]
    if layer.attention is None or not layer.calls_function:
        return NOT_RUN, f"{layer.kind} (layer {layer.index}) calls no attention function"
    image = np.flatnonzero(batch.labels[0].modality == "image")
    position = int(image[len(image) // 2]) if len(image) and layer.attends == "self" else 0

    def handler(call: AttentionCall) -> Any:
        key = call.key.clone()
        key[0, :, position] += key.abs().max() * torch.sign(key[0, :, position])
        return replace(call, key=key).proceed()

    plain = _logits(vlm, batch)
    with AttentionTap([layer.attention], handler):
        moved = _logits(vlm, batch)
    after = _logits(vlm, batch)
    change = float((moved[0] - plain[0]).abs().max())
    where = f"key {position} of layer {layer.index}: logits move by {change:.1e}"
    if not torch.equal(plain, after):
        return FAIL, f"{where}, and do not come back"
    return outcome(change > 0, where)


@torch.no_grad()
def _logits(vlm: VLM, batch: Batch) -> Tensor:
    """Logits from one seed: a model may draw random numbers (a diffusion model its canvas)."""
    devices = {p.device for p in vlm.model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices):
        torch.manual_seed(0)
        return vlm.forward(batch).logits.float()
