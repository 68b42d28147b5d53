"""Every site, read by hooks that are set by hand and share no code with ``capture``.

For each family, the paths of its text layers and of its attention were looked up in the source of
transformers and are written here. Projections are read by plain forward hooks, the residual stream
by a forward pre-hook, and query, key and value by a function that stands in for the one that the
model's file looks up.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from keygap.capture.hooks import Capture
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples

from .zoo import BY_FAMILY


@dataclass(frozen=True)
class ByHand:
    """Where a family has what is read.

    Attributes:
        layers: the path of the text layers.
        attention: the path of the attention in each layer; by layer if they differ.
        names: what its projections are called.
        fused: the name of the projection that gives all three one after the other, if there is one.
        heads: query and key heads.
        dim: head width.
        sites: the sites that it has.
    """

    layers: str = "model.language_model.layers"
    attention: str | tuple[str, ...] = "self_attn"
    names: tuple[str, str, str] = ("q_proj", "k_proj", "v_proj")
    fused: str = ""
    heads: tuple[int, int] = (4, 2)
    dim: int = 16
    sites: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "query", "key", "value", "hidden")


LATENT = ("query", "key", "value", "hidden")
PHI3 = {
    "model_type": "phi3",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 640,
    "pad_token_id": 0,
}
FAST = {
    "llava": ByHand(),  # grouped heads
    "llava with phi3": ByHand(fused="qkv_proj"),
    "qwen2_5_vl": ByHand(),  # native resolution
    "idefics3": ByHand(layers="model.text_model.layers"),  # tiles
    "kimi_k25": ByHand(sites=LATENT),  # keys from a latent
    "mllama": ByHand(attention=("self_attn", "cross_attn", "self_attn", "cross_attn")),
    "gemma3": ByHand(),  # norms of queries and keys
    "deepseek_vl": ByHand(),  # padding in the image
}
SLOW = {
    "emu3": ByHand(layers="model.text_model.layers"),
    "molmo2": ByHand(),
    "gemma3n": ByHand(),
    "minimax_m3_vl": ByHand(),
    "inkling2": ByHand(),
    "t5gemma2": ByHand(layers="model.encoder.text_model.layers"),
    "florence2": ByHand(layers="model.language_model.encoder.layers", heads=(4, 4)),
    "internvl": ByHand(),
    "llama4": ByHand(layers="language_model.model.layers"),
    "llava_next": ByHand(),
    "llava_onevision": ByHand(),
    "mistral3": ByHand(),
    "paligemma": ByHand(),
    "qwen2_vl": ByHand(),
    "qwen3_vl": ByHand(),
    "smolvlm": ByHand(layers="model.text_model.layers"),
}


def projected(output: Tensor, prompts: int, dim: int) -> Tensor:
    """A projection's output as (batch, tokens, heads, head_dim)."""
    return output.reshape(prompts, -1, output.shape[-1] // dim, dim)


def divides(found, number, prompts, places, module, arguments, output) -> None:
    """Keep the three shares of a fused projection."""
    heads, key_heads = places.heads
    first, second = heads * places.dim, (heads + key_heads) * places.dim
    shares = output[..., :first], output[..., first:second], output[..., second:]
    for site, share in zip(("q_proj", "k_proj", "v_proj"), shares, strict=True):
        found[site, number] = projected(share, prompts, places.dim)


def read_by_hand(vlm, batch, places: ByHand) -> dict[tuple[str, int], Tensor]:
    found: dict[tuple[str, int], Tensor] = {}
    prompts = len(batch.labels)
    handles = []
    blocks: Any = vlm.model.get_submodule(places.layers)
    number_of: dict[int, int] = {}
    for number, block in enumerate(blocks):
        path = places.attention if isinstance(places.attention, str) else places.attention[number]
        attention = block.get_submodule(path)
        number_of[id(attention)] = number

        def enters(module, arguments, keywords, number=number):
            hidden = arguments[0] if arguments else keywords["hidden_states"]
            streams = hidden.ndim == 4  # AltUp puts several before the batch
            found["hidden", number] = hidden.permute(1, 2, 0, 3) if streams else hidden[:, :, None]

        handles.append(block.register_forward_pre_hook(enters, with_kwargs=True))
        if places.fused:
            hook = partial(divides, found, number, prompts, places)
            handles.append(getattr(attention, places.fused).register_forward_hook(hook))
            continue
        for site, name in zip(("q_proj", "k_proj", "v_proj"), places.names, strict=True):
            if site not in places.sites:
                continue

            def leaves(module, arguments, output, site=site, number=number):
                found[site, number] = projected(output, prompts, places.dim)

            handles.append(getattr(attention, name).register_forward_hook(leaves))
    attends(vlm, batch, number_of, found, next(iter(blocks)), places)
    for handle in handles:
        handle.remove()
    return found


def attends(vlm, batch, number_of, found, block, places: ByHand) -> None:
    """Run the model with another ``ALL_ATTENTION_FUNCTIONS`` in the file of its attention."""
    first = places.attention if isinstance(places.attention, str) else places.attention[0]
    file: Any = sys.modules[type(block.get_submodule(first)).__module__]
    real = file.ALL_ATTENTION_FUNCTIONS

    class Seeing:
        def get_interface(self, implementation, default):
            function = real.get_interface(implementation, default)

            def seen(module, query, key, value, *rest, **keywords):
                if id(module) in number_of:
                    number = number_of[id(module)]
                    for site, states in (("query", query), ("key", key), ("value", value)):
                        found[site, number] = states.permute(0, 2, 1, 3).clone()
                return function(module, query, key, value, *rest, **keywords)

            return seen

    inputs = {
        name: value.to(vlm.model.dtype) if value.is_floating_point() else value
        for name, value in batch.inputs.items()
        if torch.is_tensor(value)
    }
    if vlm.model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.zeros(len(batch.labels), 1, dtype=torch.long)
    file.ALL_ATTENTION_FUNCTIONS = Seeing()
    try:
        with torch.no_grad():
            vlm.model(**inputs, use_cache=False)
    finally:
        file.ALL_ATTENTION_FUNCTIONS = real


def assert_every_site_agrees(family: str, places: ByHand) -> None:
    entry = BY_FAMILY[family.partition(" ")[0]]
    if family.endswith("phi3"):
        entry = replace(entry, config={**entry.config, "text_config": PHI3})
    vlm = wrap(*entry.build(), name=family)
    batch = vlm.prompter(check_samples())
    expected = read_by_hand(vlm, batch, places)
    layers = range(len(vlm.layers))
    with Capture(vlm, places.sites, layers) as capture:
        read = capture(batch)
    assert read.keys() == {(site, layer) for site in places.sites for layer in layers}
    for (site, layer), vectors in read.items():
        wanted = expected[site, layer]
        assert vectors.shape == wanted.shape, (site, layer)
        torch.testing.assert_close(vectors, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAST)
def test_every_site_agrees_with_hooks_set_by_hand(family):
    assert_every_site_agrees(family, FAST[family])


@pytest.mark.slow
@pytest.mark.parametrize("family", SLOW)
def test_every_site_agrees_in_further_families(family):
    assert_every_site_agrees(family, SLOW[family])
