"""Projections of an attention module: where they are, and how to read and write their vectors.

Families name the same projection differently, and some compute query, key and value in one fused
module whose output is divided in one of two ways. The query projection of gated attention also
gives the gate of each head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

Fused = Literal["blocks", "heads"]
Layout = Fused | Literal["gated"]

# What modules call the projections: names of roles, not of models.
PROJECTIONS = {
    "q_proj": ("q_proj", "query", "wq", "to_q"),
    "k_proj": ("k_proj", "key", "wk", "to_k"),
    "v_proj": ("v_proj", "value", "wv", "to_v"),
}
_FUSED = ("qkv_proj", "query_key_value", "qkv", "Wqkv", "wqkv", "c_attn", "att_proj")
_LATENT = ("kv_b_proj", "kv_a_proj_with_mqa")  # what computes keys from a latent (MLA)


@dataclass(frozen=True)
class Projection:
    """A module whose output is a projection, or holds one among others.

    Attributes:
        module: the module.
        name: ``q_proj``, ``k_proj`` or ``v_proj``.
        head_dim: width of a head.
        heads: query heads.
        key_heads: key heads.
        layout: how an output that holds more than the projection is divided. None: it holds
            nothing else. A fused output is ``blocks``: all queries, all keys, all values; or
            ``heads``: query, key and value of the first key head, then those of the next.
            ``gated``: query and gate of the first query head, then those of the next.
    """

    module: nn.Module
    name: str
    head_dim: int
    heads: int
    key_heads: int
    layout: Layout | None = None

    def read(self, output: Float[Tensor, "b t width"]) -> Float[Tensor, "b t heads head_dim"]:
        """The projection's share of the module's output, with heads apart."""
        if self.layout is None:
            return output.unflatten(-1, (-1, self.head_dim))
        if self.layout == "gated":
            return self._with_gate(output)[..., : self.head_dim]
        if self.layout == "blocks":
            return output.split(self._widths, -1)[self._place].unflatten(-1, (-1, self.head_dim))
        start, stop = self._rows
        return self._by_key_head(output)[..., start:stop, :].flatten(-3, -2)

    def write(
        self, output: Float[Tensor, "b t width"], vectors: Float[Tensor, "b t heads head_dim"]
    ) -> Float[Tensor, "b t width"]:
        """The module's output with other vectors in the projection's share: a new tensor."""
        if self.layout is None:
            return vectors.flatten(-2)
        if self.layout == "gated":
            gate = self._with_gate(output)[..., self.head_dim :]
            return torch.cat([vectors, gate], -1).flatten(-2)
        if self.layout == "blocks":
            blocks = list(output.split(self._widths, -1))
            blocks[self._place] = vectors.flatten(-2)
            return torch.cat(blocks, -1)
        start, stop = self._rows
        by_head = self._by_key_head(output)
        own = vectors.unflatten(-2, (self.key_heads, stop - start))
        pieces = [by_head[..., :start, :], own, by_head[..., stop:, :]]
        return torch.cat(pieces, -2).flatten(-3)

    @property
    def is_fused(self) -> bool:
        """Whether its module gives query, key and value."""
        return self.layout in get_args(Fused)

    def as_layout(self, layout: Fused) -> Projection:
        """The same projection of a fused output that is divided in this way."""
        return replace(self, layout=layout)

    @property
    def _place(self) -> int:
        return tuple(PROJECTIONS).index(self.name)

    @property
    def _widths(self) -> list[int]:
        return [count * self.head_dim for count in (self.heads, self.key_heads, self.key_heads)]

    @property
    def _rows(self) -> tuple[int, int]:
        """The rows of a key head's group that are the projection's."""
        group = self.heads // self.key_heads
        return ((0, group), (group, group + 1), (group + 1, group + 2))[self._place]

    def _with_gate(self, output: Tensor) -> Tensor:
        return output.unflatten(-1, (self.heads, 2 * self.head_dim))

    def _by_key_head(self, output: Tensor) -> Tensor:
        group = self.heads // self.key_heads
        return output.unflatten(-1, (self.key_heads, group + 2, self.head_dim))


def projections_of(
    attention: nn.Module, heads: int, key_heads: int, head_dim: int
) -> dict[str, Projection]:
    """The projections of an attention module by name, those that it has.

    Args:
        attention: the attention module.
        heads: query heads.
        key_heads: key heads.
        head_dim: width of a head.
    """
    found: dict[str, Projection] = {}
    for name, names in PROJECTIONS.items():
        module = linear_child(attention, names)
        if module is None or width_of(module) % head_dim or is_latent(attention):
            continue
        layout: Layout | None = None
        if name == "q_proj" and width_of(module) != heads * head_dim:
            if width_of(module) != 2 * heads * head_dim:
                continue  # it gives something else beside the queries, in an unknown order
            layout = "gated"
        found[name] = Projection(module, name, head_dim, heads, key_heads, layout)
    fused = linear_child(attention, _FUSED)
    if found or fused is None or width_of(fused) != (heads + 2 * key_heads) * head_dim:
        return found
    return {
        name: Projection(fused, name, head_dim, heads, key_heads, "blocks") for name in PROJECTIONS
    }


def is_latent(attention: nn.Module) -> bool:
    """Whether keys come out of a latent (MLA), so that no projection gives them."""
    return any(hasattr(attention, name) for name in _LATENT)


def linear_child(module: nn.Module, names: tuple[str, ...]) -> nn.Module | None:
    """The linear layer that a module has under one of these names."""
    for name in names:
        child = getattr(module, name, None)
        if isinstance(child, nn.Module) and _is_linear(child):
            return child
    return None


def _is_linear(module: nn.Module) -> bool:
    """A linear layer of any make: plain, quantised, or wrapped by an adapter."""
    weight = getattr(module, "weight", None)
    return hasattr(module, "out_features") or (isinstance(weight, Tensor) and weight.ndim == 2)


def width_of(module: Any) -> int:
    """Width of a linear layer's output."""
    if hasattr(module, "out_features"):
        return int(module.out_features)
    if hasattr(module, "nf"):  # transformers' Conv1D, which stores its weight transposed
        return int(module.nf)
    return int(module.weight.shape[0])
