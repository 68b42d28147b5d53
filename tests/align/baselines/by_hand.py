"""Attention of tiny models by hand: what each layer's call got, and what a formula makes of it.

Nothing here uses keygap's attention: queries, keys, values and masks are those that the model's own
attention function is called with, and weights are exponentials over their sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import keygap as kg
from keygap.models.batch import Batch
from keygap.models.load import wrap
from keygap.tokens import TokenLabels
from models.zoo import BY_FAMILY


@cache
def tiny(family: str) -> kg.VLM:
    return wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")


@torch.no_grad()
def logits(vlm: kg.VLM, batch: Batch) -> Tensor:
    return vlm.forward(batch).logits


@dataclass
class Given:
    """What one layer's attention function was called with."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float

    @property
    def products(self) -> Tensor:
        """(batch, heads, queries, keys), in float64."""
        key = self.key.repeat_interleave(self.query.shape[1] // self.key.shape[1], dim=1)
        found = torch.einsum("bhqd,bhkd->bhqk", self.query.double(), key.double())
        return found * self.scaling

    @property
    def seen(self) -> Tensor:
        """(batch, heads, queries, keys): which keys the model's own mask shows."""
        shape = self.products.shape
        if self.mask is None:
            return torch.ones(shape, dtype=torch.bool).tril()
        if self.mask.dtype == torch.bool:
            return self.mask.expand(shape)
        return (self.mask > -1e30).expand(shape)

    def output(self, weights: Tensor) -> Tensor:
        """(batch, queries, heads, width), for weights of each query."""
        value = self.value.repeat_interleave(weights.shape[1] // self.value.shape[1], dim=1)
        return torch.einsum("bhqk,bhkd->bqhd", weights, value.double())


def softmax(values: Tensor, seen: Tensor) -> Tensor:
    """Exponentials of what is seen over their sum."""
    values = torch.where(seen, values, torch.full_like(values, -torch.inf))
    powers = torch.exp(values - values.amax(-1, keepdim=True))
    return powers / powers.sum(-1, keepdim=True)


def given(vlm: kg.VLM, batch: Batch) -> dict[int, Given]:
    """What each layer's attention function is called with in a pass without interventions."""
    owners = {id(layer.attention): layer.index for layer in vlm.layers}
    found: dict[int, Given] = {}

    def spy(module, query, key, value, attention_mask=None, **keywords):
        if id(module) in owners:
            scaling = keywords.get("scaling") or query.shape[-1] ** -0.5
            found[owners[id(module)]] = Given(query, key, value, attention_mask, scaling)
        return sdpa_attention_forward(module, query, key, value, attention_mask, **keywords)

    mapping = AttentionInterface._global_mapping
    before = mapping["sdpa"]
    mapping["sdpa"] = spy
    try:
        logits(vlm, batch)
    finally:
        mapping["sdpa"] = before
    return found


@torch.no_grad()
def attention_output(vlm: kg.VLM, batch: Batch, layer: int) -> Tensor:
    """(batch, queries, heads, width): what a layer's attention gives its output projection."""
    attention: Any = vlm.layers[layer].attention
    got: list[Tensor] = []
    handle = attention.o_proj.register_forward_pre_hook(
        lambda module, arguments: got.append(arguments[0])
    )
    try:
        vlm.forward(batch)
    finally:
        handle.remove()
    return got[-1].reshape(*got[-1].shape[:2], vlm.layers[layer].heads, -1)


def images(labels: TokenLabels) -> list[int]:
    return np.flatnonzero(labels.modality == "image").tolist()


def texts(labels: TokenLabels) -> list[int]:
    return np.flatnonzero(labels.modality == "text").tolist()


def chosen(labels: TokenLabels, queries: str) -> list[int]:
    """The queries of one prompt that a setting means."""
    every = list(range(len(labels)))
    if queries == "question":
        return np.flatnonzero(labels.role == "question").tolist()
    return {"all": every, "current": every[-1:], "text": texts(labels)}[queries]


def assert_attends(vlm: kg.VLM, batch: Batch, layer: int, weights: Tensor, mine: Given) -> None:
    """A layer's attention has these weights, and each query's sum to 1."""
    found = attention_output(vlm, batch, layer)
    expected = mine.output(weights)
    for row, labels in enumerate(batch.labels):
        size = len(labels)
        torch.testing.assert_close(
            weights[row, :, :size].sum(-1), torch.ones(()).double().expand(weights.shape[1], size)
        )
        torch.testing.assert_close(
            found[row, :size].double(), expected[row, :size], atol=2e-6, rtol=1e-4
        )
