"""Which keys an attention call lets its queries see, and calls that see fewer.

A model gives attention a mask in one of several forms: none (attention is causal, or sees
everything), booleans, numbers added to the logits, or, for flash attention, the padding alone.
Interventions that hide keys or bias logits are written once, for an additive mask, and every form
is brought into that one first. Flash attention reads no such mask, so a call with a changed mask is
computed by the model's eager attention.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from keygap.errors import UserError
from keygap.models.attention_tap import AttentionCall


def visible(
    call: AttentionCall, places: Int[Tensor, "b q"], offset: int | None = None
) -> Bool[Tensor, "b 1 q s"]:
    """Which keys some query positions see.

    The mask of the call says so where it can be read. A mask in a form that only its implementation
    reads (flash, flex) leaves the order of positions and the sliding window.

    Args:
        call: one call of the attention function.
        places: indices of queries, for each prompt of the batch.
        offset: the position of the first query minus that of the first key; by default the last
            query is at the position of the last key.
    """
    mask, keys = call.mask, call.key.shape[2]
    if torch.is_tensor(mask) and mask.ndim == 4:
        rows = rows_of(mask, places)[:, :1, :, :keys]
        return rows if rows.dtype == torch.bool else _not_hidden(rows)
    order = torch.arange(keys, device=places.device)
    if torch.is_tensor(mask) and mask.ndim == 2:  # the prompts' own padding, on the right
        real = mask[:, None, None, :keys].bool()
    else:
        real = torch.ones(len(places), 1, 1, keys, dtype=torch.bool, device=places.device)
    if not is_causal(call):
        return real.expand(-1, -1, places.shape[1], -1)
    if offset is None:
        offset = keys - call.query.shape[2]
    last = places[:, None, :, None] + offset
    seen = real & (order <= last)
    if window := call.keywords.get("sliding_window"):
        seen &= order > last - window
    return seen


def is_causal(call: AttentionCall) -> bool:
    """Whether attention without a mask is causal, by the rule of transformers' SDPA function."""
    given = call.keywords.get("is_causal")
    causal = getattr(call.module, "is_causal", True) if given is None else given
    return bool(causal) and call.query.shape[2] > 1


def rows_of(full: Tensor, places: Int[Tensor, "b q"]) -> Tensor:
    """The rows of a (1 or b, 1 or heads, 1 or t, s) tensor at some query positions."""
    if full.shape[2] == 1:  # the same for every query
        return full.expand(len(places), -1, places.shape[1], -1)
    index = places[:, None, :, None].expand(-1, full.shape[1], -1, full.shape[3])
    return full.expand(len(places), -1, -1, -1).gather(2, index)


def hide(call: AttentionCall, keys: Bool[Tensor, "b s"], offset: int) -> AttentionCall:
    """The same call, in which queries do not see some keys.

    A query that would see nothing at all sees its own position.

    Args:
        call: one call of the attention function.
        keys: the keys to hide.
        offset: the position of the first query minus that of the first key.
    """
    mask = additive_mask(call, offset)
    hidden = mask.masked_fill(keys[:, None, None, :], torch.finfo(mask.dtype).min)
    emptied = _not_hidden(mask).any(-1, keepdim=True) & ~_not_hidden(hidden).any(-1, keepdim=True)
    query, key = (torch.arange(size, device=mask.device) for size in mask.shape[-2:])
    own = query[:, None] + offset == key
    return _masked(call, torch.where(emptied & own, 0.0, hidden))


def add_bias(call: AttentionCall, bias: Float[Tensor, "b heads t s"], offset: int) -> AttentionCall:
    """The same call with something added to its attention logits; hidden keys stay hidden.

    Args:
        call: one call of the attention function.
        bias: what to add, in nats; dimensions of size 1 are broadcast.
        offset: the position of the first query minus that of the first key.
    """
    mask = additive_mask(call, offset)
    biased = torch.where(_not_hidden(mask), mask + bias.to(mask.dtype), mask)
    return _masked(call, biased)


def add_key_bias(
    call: AttentionCall, bias: Float[Tensor, "b heads t"], keys: Bool[Tensor, "b s"], offset: int
) -> AttentionCall:
    """The same call with one number for each query and head added to its logits of some keys.

    Hidden keys stay hidden. Where the attention function allows it, the mask stays as it is.

    Args:
        call: one call of the attention function.
        bias: what to add, in nats.
        keys: the keys.
        offset: the position of the first query minus that of the first key.
    """
    if call.takes_key_bias:
        return call.with_key_bias(bias, keys)
    return add_bias(call, bias[..., None] * keys[:, None, None, :], offset)


def with_logits(
    call: AttentionCall,
    logits: Float[Tensor, "b heads t s"],
    queries: Bool[Tensor, "b t"],
    offset: int,
) -> AttentionCall:
    """The same call, in which some queries attend by given logits; hidden keys stay hidden.

    These queries become zero, so that the logits are what the mask adds. A learned sink keeps its
    own logit.

    Args:
        call: one call of the attention function.
        logits: attention logits in nats; dimensions of size 1 are broadcast.
        queries: the queries that attend by them.
        offset: the position of the first query minus that of the first key.
    """
    mask = additive_mask(call, offset)
    chosen = queries[:, None, :, None]
    given = torch.where(_not_hidden(mask), logits.to(mask.dtype), mask)
    biases = {
        name: torch.where(chosen, 0.0, bias)
        for name in ("position_bias", "attention_bias")
        if (bias := call.keywords.get(name)) is not None
    }
    query = call.query.masked_fill(chosen, 0.0)
    call = replace(call, query=query, keywords={**call.keywords, **biases})
    return _masked(call, torch.where(chosen, given, mask))


def additive_mask(call: AttentionCall, offset: int) -> Float[Tensor, "b heads t s"]:
    """What a call's mask adds to the attention logits; heads and batch may be of size 1.

    Args:
        call: one call of the attention function.
        offset: the position of the first query minus that of the first key.

    Raises:
        UserError: the mask is in a form that only its implementation reads (flex attention).
    """
    mask, keys = call.mask, call.key.shape[2]
    if mask is not None and not torch.is_tensor(mask):
        raise UserError(
            f"a mask of {call.implementation} attention cannot be changed: load the model with "
            "attn_implementation='sdpa'"
        )
    if mask is not None and mask.ndim == 4:
        if mask.is_floating_point():
            return mask[..., :keys]
        seen = mask[..., :keys].bool()
    else:
        batch, _, length, _ = call.query.shape
        everywhere = torch.arange(length, device=call.query.device).expand(batch, -1)
        seen = visible(call, everywhere, offset)
    zero = torch.zeros((), dtype=call.query.dtype, device=seen.device)
    return torch.where(seen, zero, torch.finfo(zero.dtype).min)


def _masked(call: AttentionCall, mask: Tensor) -> AttentionCall:
    """The same call with an additive mask, by a function that reads such masks."""
    if "flash" in call.implementation:
        call = call.with_eager_function()
    return call.with_mask(mask)


def _not_hidden(mask: Tensor) -> Tensor:
    """Where an additive mask lets a query see a key."""
    return mask > torch.finfo(mask.dtype).min / 2
