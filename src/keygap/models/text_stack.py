"""Where a model's layers, attention modules and projections are, found by what they are.

transformers moves its modules between releases and no two families agree on paths. What holds for
all of them: text goes in through one embedding; next to it stands a list of like blocks; a block
that attends has a module that hands query, key and value to transformers' attention function, or
that has a key projection. A family whose list interleaves blocks without attention (linear
attention, convolution, state space) has those blocks named as such, and nothing is read there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from keygap.errors import UserError
from keygap.models.attention_tap import AttentionCall, AttentionTap, calls_attention_function

Attends = Literal["self", "cross", "none"]
Layout = Literal["blocks", "heads"]

# What modules call the projections: names of roles, not of models.
_PROJECTIONS = {
    "q_proj": ("q_proj", "query", "wq", "to_q"),
    "k_proj": ("k_proj", "key", "wk", "to_k"),
    "v_proj": ("v_proj", "value", "wv", "to_v"),
}
_FUSED = ("qkv_proj", "query_key_value", "qkv", "Wqkv", "wqkv", "c_attn", "att_proj")
_OTHER_TOWERS = re.compile(r"vis(ion|ual)|image|audio|speech|perceiver|q_?former|(^|\.)vq")
_ACROSS = re.compile(r"cross|encoder_attn|encoder_decoder|enc_dec")  # attention to other states
_COMPUTES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_MLA = ("kv_b_proj", "kv_a_proj_with_mqa")  # keys come out of a latent: no projection gives them


@dataclass(frozen=True)
class Projection:
    """A module whose output is a projection, or holds one among others.

    ``layout`` says how a fused output is divided: None (not fused), ``blocks`` (all queries, all
    keys, all values), ``heads`` (query, key and value of the first key head, then of the next).
    """

    module: nn.Module
    name: str
    head_dim: int
    heads: int
    key_heads: int
    layout: Layout | None = None

    def read(self, output: Float[Tensor, "b t width"]) -> Float[Tensor, "b t heads head_dim"]:
        """The projection's part of the module's output, heads apart."""
        if self.layout is None:
            return output.unflatten(-1, (-1, self.head_dim))
        group = self.heads // self.key_heads
        place = ("q_proj", "k_proj", "v_proj").index(self.name)
        if self.layout == "blocks":
            widths = [n * self.head_dim for n in (self.heads, self.key_heads, self.key_heads)]
            return output.split(widths, -1)[place].unflatten(-1, (-1, self.head_dim))
        by_head = output.unflatten(-1, (self.key_heads, group + 2, self.head_dim))
        start, stop = ((0, group), (group, group + 1), (group + 1, group + 2))[place]
        return by_head[..., start:stop, :].flatten(-3, -2)

    def as_layout(self, layout: Layout) -> Projection:
        return replace(self, layout=layout)


@dataclass(frozen=True)
class DecoderLayer:
    """One layer of the text stack and its attention.

    Attributes:
        attends: ``self``; ``cross``: keys are image features and not positions of the prompt;
            ``none``: the layer has no attention, ``kind`` names what it has.
        heads: query heads, 0 without attention; ``key_heads`` and ``head_dim`` likewise.
        projections: by site name; a latent-attention layer has no ``k_proj``.
        window: how many positions back a position sees, None for all.
    """

    index: int
    block: nn.Module
    attention: nn.Module | None
    attends: Attends
    heads: int
    key_heads: int
    head_dim: int
    projections: Mapping[str, Projection] = field(default_factory=dict)
    kind: str = ""
    window: int | None = None

    def projection(self, name: str) -> Projection:
        """``q_proj``, ``k_proj`` or ``v_proj``.

        Raises:
            UserError: the layer has none; says why and what to read instead.
        """
        if name in self.projections:
            return self.projections[name]
        if self.attention is None:
            raise UserError(f"layer {self.index} has no attention ({self.kind}), so no {name}")
        latent = any(hasattr(self.attention, part) for part in _MLA)
        why = "its keys come out of a latent (MLA)" if latent else "it has no such projection"
        raise UserError(
            f"layer {self.index} has no {name}: {why}; read the site {_instead(name)} instead"
        )


def _instead(name: str) -> str:
    return {"q_proj": "query", "k_proj": "key", "v_proj": "value"}[name]


@dataclass(frozen=True)
class TextStack:
    """The layers that text goes through, and the module that owns them."""

    decoder: nn.Module
    layers: tuple[DecoderLayer, ...]
    is_encoder: bool = False

    @property
    def attention_modules(self) -> tuple[nn.Module, ...]:
        return tuple(layer.attention for layer in self.layers if layer.attention is not None)


def text_stack(model: PreTrainedModel) -> TextStack:
    """The text stack of a VLM.

    In an encoder-decoder, that is the encoder when image and text meet there.

    Raises:
        UserError: says which part was not found.
    """
    name = type(model).__name__
    for place, root in _roots(model):
        lists = [
            (path, blocks)
            for path, blocks in root.named_modules()
            if isinstance(blocks, nn.ModuleList)
            and not _OTHER_TOWERS.search(path)
            and any(attentions(block) for block in blocks)
        ]
        if not lists:
            continue
        depth = min(path.count(".") for path, _ in lists)
        shallow = [(path, blocks) for path, blocks in lists if path.count(".") == depth]
        encoder = [item for item in shallow if "encoder" in item[0].split(".")]
        path, blocks = (encoder or sorted(shallow, key=lambda item: -len(item[1])))[0]
        config = _config_of(root, model)
        found = [attentions(block) for block in blocks]
        # linear attention has a key projection too, and no attention to keys
        if any(calls_attention_function(module) for own in found for _, module in own):
            found = [[item for item in own if calls_attention_function(item[1])] for own in found]
        layers = tuple(
            _layer(index, block, own, config)
            for index, (block, own) in enumerate(zip(blocks, found, strict=True))
        )
        is_encoder = _in_encoder(f"{place}.{path}", model.config)
        return TextStack(root, _calibrated(root, layers), is_encoder)
    raise UserError(
        f"{name}: no list of text layers with an attention module was found beside the text "
        "embedding, so keygap cannot read this architecture"
    )


def _in_encoder(path: str, config: Any) -> bool:
    """Whether a list of blocks is the encoder of an encoder-decoder."""
    coders = [part for part in path.split(".") if part.endswith(("encoder", "decoder"))]
    return bool(config.is_encoder_decoder and coders and coders[0].endswith("encoder"))


def attends_across(stack: TextStack) -> str:
    """Where a text stack attends to other states beside its layers' own attention; empty: nowhere.

    A layer that has nothing but attention across is a layer of the stack itself (Mllama).
    """
    if stack.is_encoder:  # its decoder does, and is not read
        return ""
    own = {id(module) for module in stack.attention_modules}
    for path, module in stack.decoder.named_modules():
        if _attends(module) and id(module) not in own and _ACROSS.search(path):
            return path
    return ""


def attentions(block: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules of a block that attend, and their paths, in order."""
    return [(path, module) for path, module in block.named_modules() if _attends(module)]


def _attends(module: nn.Module) -> bool:
    if calls_attention_function(module):
        return True
    return _child(module, _PROJECTIONS["k_proj"]) is not None and hasattr(module, "layer_idx")


def _roots(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module]]:
    """Where to look for the list: ever larger surroundings of the text embedding."""
    try:
        embedding: nn.Module | None = model.get_input_embeddings()
    except NotImplementedError:
        embedding = None
    paths = [path for path, module in model.named_modules() if module is embedding]
    if not paths:
        decoder = model.get_decoder()
        yield "decoder", decoder if decoder is not None else model
        return
    parents = paths[0].split(".")[:-1]
    for length in range(len(parents), -1, -1):
        path = ".".join(parents[:length])
        yield path, model.get_submodule(path)


def _layer(
    index: int, block: nn.Module, found: list[tuple[str, nn.Module]], config: Any
) -> DecoderLayer:
    if not found:
        kinds = [type(m).__name__ for n, m in block.named_children() if "norm" not in n]
        return DecoderLayer(index, block, None, "none", 0, 0, 0, kind=", ".join(kinds[:1]))
    path, attention = found[0]
    heads, key_heads, head_dim = _shape(attention, _of_layer(config, index), index)
    return DecoderLayer(
        index=index,
        block=block,
        attention=attention,
        attends="cross" if _ACROSS.search(path) else "self",
        heads=heads,
        key_heads=key_heads,
        head_dim=head_dim,
        projections=_projections(attention, heads, key_heads, head_dim),
        kind=type(attention).__name__,
        window=getattr(attention, "sliding_window", None),
    )


def _of_layer(config: Any, index: int) -> Any:
    """The configuration of one layer, where layers differ in their sizes."""
    own = getattr(config, "per_layer_config", None)
    return own[index] if own else config


def _shape(attention: nn.Module, config: Any, index: int) -> tuple[int, int, int]:
    """Query heads, key heads and head width, from widths where they say it, else the config."""
    own: Any = attention
    configs = (_of_layer(getattr(own, "config", None), index), config)
    head_dim = getattr(own, "head_dim", None)
    heads = _first((own, *configs), ("num_heads", "num_attention_heads", "n_heads"))
    if head_dim is None:
        head_dim = _first(
            (own, *configs), ("qk_head_dim", "key_value_proj_dim", "head_dim", "d_kv")
        )
    if head_dim is None and heads:
        head_dim = config.hidden_size // heads
    if head_dim is None:
        raise UserError(f"{type(own).__name__}: no head width was found, so keys have no heads")
    head_dim = int(head_dim)
    query, key = (_child(own, _PROJECTIONS[name]) for name in ("q_proj", "k_proj"))
    key_heads = _first((own, *configs), ("num_key_value_heads", "num_kv_heads")) or heads
    if key is not None:
        key_heads = width_of(key) // head_dim
    if query is not None and key is not None:
        # a query projection may carry a gate beside the queries: then the config knows
        heads = heads if heads and heads % key_heads == 0 else width_of(query) // head_dim
    if any(hasattr(own, part) for part in _MLA):
        key_heads = heads  # a latent is spread over all heads before attention
    return int(heads), int(key_heads), head_dim


def _first(sources: tuple[Any, ...], names: tuple[str, ...]) -> Any:
    for source in sources:
        for name in names:
            value = getattr(source, name, None)
            if isinstance(value, int) and value > 0:
                return value
    return None


def _projections(
    attention: nn.Module, heads: int, key_heads: int, head_dim: int
) -> dict[str, Projection]:
    found: dict[str, Projection] = {}
    for name, names in _PROJECTIONS.items():
        module = _child(attention, names)
        latent = any(hasattr(attention, part) for part in _MLA)
        if module is not None and width_of(module) % head_dim == 0 and not latent:
            found[name] = Projection(module, name, head_dim, heads, key_heads)
    fused = _child(attention, _FUSED)
    if not found and fused is not None:
        if width_of(fused) != (heads + 2 * key_heads) * head_dim:
            return {}
        for name in _PROJECTIONS:
            found[name] = Projection(fused, name, head_dim, heads, key_heads, "blocks")
    return found


def _child(module: nn.Module, names: tuple[str, ...]) -> nn.Module | None:
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


def _config_of(root: nn.Module, model: PreTrainedModel) -> Any:
    config = getattr(root, "config", model.config)
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def _calibrated(decoder: nn.Module, layers: tuple[DecoderLayer, ...]) -> tuple[DecoderLayer, ...]:
    """Fused projections with their layout, told by which one gives attention's own values.

    Values reach attention as they were projected, so the layout that reproduces them is right.
    """
    fused = [
        layer for layer in layers if any(p.layout is not None for p in layer.projections.values())
    ]
    first = next(iter(fused), None)
    if first is None:
        return layers
    module = first.projections["v_proj"].module
    offloaded = hasattr(module, "_hf_hook")  # accelerate brings the weight in when it is called
    if module.weight.device.type == "meta" and not offloaded:
        return layers  # a model without weights: nothing can be run
    layout = _fused_layout(decoder, first)
    result = []
    for layer in layers:
        if layer in fused:
            moved = {name: p.as_layout(layout) for name, p in layer.projections.items()}
            layer = replace(layer, projections=moved)
        result.append(layer)
    return tuple(result)


def _fused_layout(decoder: nn.Module, layer: DecoderLayer) -> Layout:
    """The layout that makes the values that attention gets in a pass over random embeddings."""
    projection = layer.projections["v_proj"]
    seen: dict[str, Tensor] = {}

    def handler(call: AttentionCall) -> Any:
        seen["value"] = call.value.transpose(1, 2)
        raise _Seen

    def hook(module: nn.Module, arguments: Any, output: Tensor) -> None:
        seen["fused"] = output

    weight: Any = projection.module.weight
    width = int(getattr(projection.module, "in_features", weight.shape[-1]))
    random = torch.randn(1, 3, width, generator=torch.Generator().manual_seed(0))
    handle = projection.module.register_forward_hook(hook)
    try:
        assert layer.attention is not None  # it has projections
        with AttentionTap([layer.attention], handler), torch.no_grad(), suppress(_Seen):
            place = "cpu" if weight.device.type == "meta" else weight.device
            decoder(inputs_embeds=random.to(place, _float_dtype(decoder)), use_cache=False)
    finally:
        handle.remove()
    layouts: tuple[Layout, ...] = ("blocks", "heads")
    for layout in layouts:
        part = projection.as_layout(layout).read(seen["fused"])
        if part.shape == seen["value"].shape and torch.equal(part, seen["value"]):
            return layout
    raise UserError(
        f"{type(layer.attention).__name__}: its fused projection of width "
        f"{width_of(projection.module)} is divided in a way that keygap does not know"
    )


def _float_dtype(module: nn.Module) -> torch.dtype:
    """What a module computes in: quantised weights are of other types."""
    return next(p.dtype for p in module.parameters() if p.dtype in _COMPUTES)


class _Seen(Exception):
    """Raised inside attention once the values were seen."""
