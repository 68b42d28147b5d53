"""A measure of attention that needs no attention weights: query and key at a few positions do."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

QUERIES = 8  # query positions that the attention measure looks from: the last ones of a prompt


def received(
    query: Float[Tensor, "b heads t head_dim"],
    key: Float[Tensor, "b key_heads s head_dim"],
    scaling: float,
    attention_mask: Tensor | None,
    causal: bool = True,
    visible: Bool[Tensor, "b s"] | None = None,
) -> Float[Tensor, "b s"]:
    """The attention that each position receives, in multiples of its even share.

    Softmax of the last ``QUERIES`` prompt positions over the positions they can see, averaged over
    heads and queries, times the number of positions seen: 1 everywhere if attention were even. An
    attention sink reads many times that. Where keys are not the prompt's own positions,
    ``visible`` says which of them are no padding; where attention is not causal, all are seen.
    """
    batch, heads, length, _ = query.shape
    if attention_mask is None or attention_mask.ndim != 2:
        lengths = torch.full((batch,), length, device=query.device)
    else:
        lengths = attention_mask.sum(1).to(query.device)
    places = (lengths[:, None] - 1 - torch.arange(QUERIES, device=query.device)).clamp_min(0)
    index = places[:, None, :, None].expand(-1, heads, -1, query.shape[-1])
    asked = query.gather(2, index).float()
    keys = key.repeat_interleave(heads // key.shape[1], dim=1).float()
    scores = asked @ keys.transpose(-1, -2) * scaling
    order = torch.arange(key.shape[2], device=query.device)[None, None]
    if visible is not None:
        seen = visible[:, None].expand(-1, QUERIES, -1)
    elif causal:
        seen = order <= places[..., None]
    else:
        seen = (order < lengths[:, None, None]).expand(batch, QUERIES, -1)
    weights = scores.masked_fill(~seen[:, None], -torch.inf).softmax(-1)
    return (weights * seen.sum(-1)[:, None, :, None]).mean((1, 2))
