"""Models of a user's own: attention without transformers' function, and packed weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import return_and_correct_aliasing
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb


class OwnAttention(nn.Module):
    """Llama's attention, written without transformers' attention function."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.q_proj, self.k_proj = given.q_proj, given.k_proj
        self.v_proj, self.o_proj = given.v_proj, given.o_proj
        self.layer_idx, self.head_dim, self.config = given.layer_idx, given.head_dim, given.config

    def forward(self, hidden_states, position_embeddings=None, attention_mask=None, **_):
        batch, tokens, _ = hidden_states.shape
        query, key, value = (
            project(hidden_states).view(batch, tokens, -1, self.head_dim).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        group = query.shape[1] // key.shape[1]
        output = nn.functional.scaled_dot_product_attention(
            query,
            key.repeat_interleave(group, 1),
            value.repeat_interleave(group, 1),
            attn_mask=attention_mask,
            is_causal=attention_mask is None,
        )
        return self.o_proj(output.transpose(1, 2).reshape(batch, tokens, -1)), None


def with_own_attention(model: PreTrainedModel) -> PreTrainedModel:
    """A tiny LLaVA whose text layers compute attention by themselves."""
    text: Any = model.model.language_model
    for layer in text.layers:
        layer.self_attn = OwnAttention(layer.self_attn)
    return model


class Int8(torch.Tensor):
    """A weight of eight bits with a scale for each row, and no more operations than it needs."""

    @staticmethod
    def __new__(cls, values, scale, dtype):
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=dtype)

    def __init__(self, values, scale, dtype):
        self.packed, self.scale = values, scale

    def __tensor_flatten__(self):
        return ["packed", "scale"], [self.dtype]

    @classmethod
    def __tensor_unflatten__(cls, inner, context, *_):
        return cls(inner["packed"], inner["scale"], context[0])

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[override]
        name = func.__name__.split(".")[0]
        if name == "detach":
            copied = cls(args[0].packed, args[0].scale, args[0].dtype)
            return return_and_correct_aliasing(func, args, kwargs or {}, copied)
        if name not in ("t", "linear", "mm", "addmm"):
            raise NotImplementedError(name)
        plain = [
            each.packed.to(each.dtype) * each.scale if isinstance(each, Int8) else each
            for each in args
        ]
        return func(*plain, **(kwargs or {}))


def in_eight_bits(model: nn.Module) -> nn.Module:
    """The same model, with the weights of its linear text layers packed."""
    text: Any = model.get_submodule("model.language_model")
    for module in text.layers.modules():
        if isinstance(module, nn.Linear):
            weight = module.weight.data
            scale = weight.abs().amax(1, keepdim=True) / 127
            packed = Int8((weight / scale).round().to(torch.int8), scale, weight.dtype)
            module.weight = nn.Parameter(packed, requires_grad=False)
    return model
