"""Where a model's layers, attention modules and projections are, found by what they are.

transformers moves its modules between releases, and no two families agree on paths. Three things
hold for all of them. Text goes in through one embedding. Near it is a list of similar blocks. A
block that attends has a module that hands query, key and value to transformers' attention function,
or that has a key projection. Some families interleave blocks without attention (linear attention,
convolution, state space); such blocks are named, and nothing is read there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from keygap.errors import UserError
from keygap.models.attention_tap import calls_attention_function
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.fused_layout import with_layouts
from keygap.models.projections import (
    PROJECTIONS,
    is_latent,
    linear_child,
    projections_of,
    width_of,
)
from keygap.models.shared_keys import with_shared_keys

_OTHER_TOWERS = re.compile(r"vis(ion|ual)|image|audio|speech|perceiver|q_?former|(^|\.)vq")
_ACROSS = re.compile(r"cross|encoder_attn|encoder_decoder|enc_dec")  # attention to other states


@dataclass(frozen=True)
class TextStack:
    """The layers that text goes through, and the module that owns them.

    Attributes:
        decoder: the module that owns the layers.
        layers: the layers in order.
        is_encoder: whether they are the encoder of an encoder-decoder.
    """

    decoder: nn.Module
    layers: tuple[DecoderLayer, ...]
    is_encoder: bool = False

    @property
    def attention_modules(self) -> tuple[nn.Module, ...]:
        """The attention modules of the layers that have one."""
        return tuple(layer.attention for layer in self.layers if layer.attention is not None)


def text_stack(model: PreTrainedModel, parts: Mapping[str, nn.Module] | None = None) -> TextStack:
    """Find the text stack of a VLM.

    In an encoder-decoder, that is the encoder if image and text meet there.

    Args:
        model: the whole model.
        parts: the parts that the user has named (``keygap.models.parts``).

    Raises:
        UserError: no list of layers was found, or a layer's heads are not known.
    """
    parts = parts or {}
    for place, root in _roots(model, parts):
        lists = _lists_of_blocks(root, parts.get("vision"))
        if isinstance(parts.get("decoder"), nn.ModuleList):
            lists = [item for item in lists if item[1] is parts["decoder"]]
        if not lists:
            continue
        path, blocks = _text_blocks(lists)
        config = _config_of(root, model)
        layers = tuple(
            _layer(index, block, own, config)
            for index, (block, own) in enumerate(zip(blocks, _attentions(blocks), strict=True))
        )
        is_encoder = _in_encoder(f"{place}.{path}", model.config)
        return TextStack(root, with_layouts(root, with_shared_keys(layers, config)), is_encoder)
    where = "in the decoder that was named" if "decoder" in parts else "beside the text embedding"
    raise UserError(
        f"{type(model).__name__}: no list of text layers with an attention module was found "
        f"{where}, so keygap cannot read this architecture; if it has one, name its path: "
        "kg.load(model, processor, parts={'decoder': 'path.of.the.module'})"
    )


def _lists_of_blocks(root: nn.Module, vision: nn.Module | None) -> list[tuple[str, nn.ModuleList]]:
    """The lists of modules that attend, other than those of vision and audio, and their paths."""
    seen = set() if vision is None else {id(module) for module in vision.modules()}
    return [
        (path, blocks)
        for path, blocks in root.named_modules()
        if isinstance(blocks, nn.ModuleList)
        and id(blocks) not in seen
        and not _OTHER_TOWERS.search(path)
        and any(attentions(block) for block in blocks)
    ]


def _text_blocks(lists: list[tuple[str, nn.ModuleList]]) -> tuple[str, nn.ModuleList]:
    """Of several lists, an outermost one: an encoder's, or else the longest."""
    depth = min(path.count(".") for path, _ in lists)
    outermost = [item for item in lists if item[0].count(".") == depth]
    encoders = [item for item in outermost if "encoder" in item[0].split(".")]
    return encoders[0] if encoders else max(outermost, key=lambda item: len(item[1]))


def _attentions(blocks: nn.ModuleList) -> list[list[tuple[str, nn.Module]]]:
    """The modules of each block that attend to tokens.

    Linear attention has a key projection too, but does not attend to keys. Where some modules call
    the attention function, only those count. A module that keeps the keys of tokens in a cache
    knows its layer. Where one does, others attend to something else, such as the outputs of earlier
    layers.
    """
    found = [attentions(block) for block in blocks]
    if not any(calls_attention_function(module) for own in found for _, module in own):
        return found
    calling = [[item for item in own if calls_attention_function(item[1])] for own in found]
    cached = [[item for item in own if hasattr(item[1], "layer_idx")] for own in calling]
    return [known or own for known, own in zip(cached, calling, strict=True)]


def _in_encoder(path: str, config: Any) -> bool:
    """Whether a list of blocks is the encoder of an encoder-decoder."""
    coders = [part for part in path.split(".") if part.endswith(("encoder", "decoder"))]
    return bool(config.is_encoder_decoder and coders and coders[0].endswith("encoder"))


def attends_across(stack: TextStack) -> str:
    """The path of a module in a text stack that attends to other states; empty if there is none.

    It counts only beside a layer's own attention: a layer that has no other attention is a layer of
    the stack itself (Mllama).
    """
    if stack.is_encoder:  # its decoder attends to it, and is not read
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
    found = [linear_child(module, names) is not None for names in PROJECTIONS.values()]
    return all(found) or (found[1] and hasattr(module, "layer_idx"))


def _roots(
    model: PreTrainedModel, parts: Mapping[str, nn.Module]
) -> Iterator[tuple[str, nn.Module]]:
    """Where to look for the list: the module around the text embedding, then those around it."""
    modules = dict(model.named_modules())
    if "decoder" in parts:
        path = next(path for path, module in modules.items() if module is parts["decoder"])
        if isinstance(parts["decoder"], nn.ModuleList):
            path = path.rpartition(".")[0]
        yield path, modules[path]
        return
    embedding = parts.get("embedding") or _text_embedding(model)
    paths = [path for path, module in modules.items() if module is embedding]
    if not paths:
        yield "decoder", _decoder(model)
        return
    parents = paths[0].split(".")[:-1]
    for length in range(len(parents), -1, -1):
        path = ".".join(parents[:length])
        yield path, modules[path]


def _text_embedding(model: Any) -> nn.Module | None:
    """What the model says is its text embedding."""
    try:
        return model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return None


def _decoder(model: Any) -> nn.Module:
    """What the model says is its decoder.

    Raises:
        UserError: it says nothing.
    """
    try:
        decoder = model.get_decoder()
    except (NotImplementedError, AttributeError):
        decoder = None
    if decoder is None or decoder is model:
        raise UserError(
            f"{type(model).__name__} does not say where its text embedding is (it has no "
            "get_input_embeddings that works): name its path, or that of the text layers: "
            "kg.load(model, processor, parts={'embedding': 'path.of.the.module'})"
        )
    return decoder


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
        projections=projections_of(attention, heads, key_heads, head_dim),
        kind=type(attention).__name__,
        window=getattr(attention, "sliding_window", None),
    )


def _of_layer(config: Any, index: int) -> Any:
    """The configuration of one layer, where layers differ in their sizes."""
    own = getattr(config, "per_layer_config", None)
    return own[index] if own else config


def _shape(attention: nn.Module, config: Any, index: int) -> tuple[int, int, int]:
    """Query heads, key heads and head width: from the widths of projections, or else the config."""
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
    query, key = (linear_child(own, PROJECTIONS[name]) for name in ("q_proj", "k_proj"))
    key_heads = _first((own, *configs), ("num_key_value_heads", "num_kv_heads")) or heads
    if key is not None:
        key_heads = width_of(key) // head_dim
    if query is not None and key is not None:
        # the output of a query projection may include a gate: then the config has the number
        heads = heads if heads and heads % key_heads == 0 else width_of(query) // head_dim
    if is_latent(own):
        key_heads = heads  # a latent is spread over all heads before attention
    return int(heads), int(key_heads), head_dim


def _first(sources: tuple[Any, ...], names: tuple[str, ...]) -> Any:
    for source in sources:
        for name in names:
            value = getattr(source, name, None)
            if isinstance(value, int) and value > 0:
                return value
    return None


def _config_of(root: nn.Module, model: PreTrainedModel) -> Any:
    config = getattr(root, "config", model.config)
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
