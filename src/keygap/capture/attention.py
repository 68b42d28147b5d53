"""Attention from what it multiplies: query, key and the model's own mask, without its weights.

Attention functions do not give weights, and eager attention of a whole model would be needed to
have them. Query and key at a few positions are enough to know where those look.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from keygap.models.attention_mask import rows_of, visible
from keygap.models.attention_tap import AttentionCall

QUERIES = 8  # query positions that the attention measure looks from: the last ones of a prompt


def attention_weights(
    call: AttentionCall, places: Int[Tensor, "b q"]
) -> tuple[Float[Tensor, "b heads q s"], Bool[Tensor, "b 1 q s"]]:
    """Softmax attention of some query positions in float32, and which keys each of them sees.

    With the call's scale, soft cap, position bias, mask and learned sinks, as the attention
    function has them.

    Args:
        call: one call of the attention function.
        places: query positions of each prompt.
    """
    batch, heads, _, head_dim = call.query.shape
    group = heads // call.key.shape[1]
    index = places[:, None, :, None].expand(batch, heads, -1, head_dim)
    query = call.query.gather(2, index).float()
    key = call.key.repeat_interleave(group, dim=1).float()
    scores = query @ key.transpose(-1, -2) * call.scaling
    if (cap := call.keywords.get("softcap")) is not None:
        scores = torch.tanh(scores / cap) * cap
    for name in ("position_bias", "attention_bias"):
        if (bias := call.keywords.get(name)) is not None:
            scores = scores + rows_of(bias, places).float()
    seen = visible(call, places)
    if torch.is_tensor(call.mask) and call.mask.is_floating_point():
        # a row that sees nothing attends evenly in the model's own arithmetic, and here too
        scores = scores + rows_of(call.mask, places)[..., : scores.shape[-1]].float()
    else:
        scores = scores.masked_fill(~seen, torch.finfo(torch.float32).min)
    sinks = call.keywords.get("s_aux", call.keywords.get("sinks"))
    if sinks is not None:  # one more column that takes attention and gives nothing
        sinks = rows_of(sinks, places) if sinks.ndim == 4 else sinks.reshape(1, -1, 1, 1)
        scores = torch.cat([scores, sinks.float().expand(*scores.shape[:3], 1)], -1)
    weights = scores.softmax(-1)[..., : key.shape[2]]
    if torch.is_tensor(call.mask) and call.mask.dtype == torch.bool:  # padding may see nothing
        weights = weights.masked_fill(~seen.any(-1, keepdim=True), 0.0)
    return weights, seen


def received(call: AttentionCall, attention_mask: Tensor | None) -> Float[Tensor, "b s"]:
    """The attention that each key receives, in multiples of its even share.

    Softmax of the last ``QUERIES`` prompt positions over the keys they see, averaged over heads
    and queries, times the number of keys seen: 1 everywhere if attention were even. An attention
    sink reads many times that.

    Args:
        call: one call of the attention function.
        attention_mask: (batch, tokens) of the prompts, padded on the right.
    """
    batch, _, length, _ = call.query.shape
    if attention_mask is None or attention_mask.ndim != 2:
        lengths = torch.full((batch,), length, device=call.query.device)
    else:
        lengths = attention_mask.sum(1).to(call.query.device)
    back = torch.arange(QUERIES, device=call.query.device)
    weights, seen = attention_weights(call, (lengths[:, None] - 1 - back).clamp_min(0))
    return (weights * seen * seen.sum(-1, keepdim=True)).mean((1, 2))
