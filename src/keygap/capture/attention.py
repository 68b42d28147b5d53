"""Attention of a few query positions, from query, key and the model's own mask.

The attention functions of transformers do not return weights, except eager attention, which would
have to be used for the whole model. The queries and keys of one call are enough. Queries are
processed in chunks and reduced to means over groups of queries, so that the weights of all queries
of a layer are never held together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from keygap.models.attention_mask import rows_of, visible
from keygap.models.attention_tap import AttentionCall

QUERIES = 8  # the last positions of a prompt, whose attention is measured
CHUNK = 32  # query positions that are processed together


@dataclass(frozen=True)
class QueryAttention:
    """The attention of some query positions, in float32.

    Attributes:
        logits: query-key products after scale, soft cap and position bias, before the mask.
        weights: softmax of the masked logits; a learned sink takes the rest of the sum to 1.
        seen: whether a query sees a key.
    """

    logits: Float[Tensor, "b heads q s"]
    weights: Float[Tensor, "b heads q s"]
    seen: Bool[Tensor, "b 1 q s"]


def attention_at(call: AttentionCall, places: Int[Tensor, "b q"]) -> QueryAttention:
    """The attention of some query positions.

    The call's scale, soft cap, position bias, mask and learned sinks are applied as the attention
    function applies them.

    Args:
        call: one call of the attention function.
        places: query positions of each prompt.
    """
    logits = logits_of(call, places)
    seen = visible(call, places)
    masked = masked_logits(call, places, logits, seen)
    sinks = sink_logits(call, places)
    if sinks is not None:  # one more column
        masked = torch.cat([masked, sinks.expand(*masked.shape[:3], 1)], -1)
    weights = masked.softmax(-1)[..., : logits.shape[-1]]
    if torch.is_tensor(call.mask) and call.mask.dtype == torch.bool:  # padding may see nothing
        weights = weights.masked_fill(~seen.any(-1, keepdim=True), 0.0)
    return QueryAttention(logits, weights, seen)


def masked_logits(
    call: AttentionCall,
    places: Int[Tensor, "b q"],
    logits: Float[Tensor, "b heads q s"],
    seen: Bool[Tensor, "b heads q s"],
) -> Float[Tensor, "b heads q s"]:
    """Logits with the call's mask and the biases that were added to keys, in float32.

    Args:
        call: one call of the attention function.
        places: query positions of each prompt.
        logits: of these queries (see ``logits_of``).
        seen: the keys that each of them sees (see ``visible``).
    """
    if torch.is_tensor(call.mask) and call.mask.is_floating_point():
        # a row that sees nothing attends evenly in the model's own arithmetic, and here too
        masked = logits + rows_of(call.mask, places)[..., : logits.shape[-1]].float()
    else:
        masked = logits.masked_fill(~seen, torch.finfo(torch.float32).min)
    for bias, keys in call.key_biases:
        own = bias.gather(2, places[:, None].expand(-1, bias.shape[1], -1))
        masked = masked + own[..., None] * keys[:, None, None, :]
    return masked


def sink_logits(
    call: AttentionCall, places: Int[Tensor, "b q"]
) -> Float[Tensor, "b_or_1 heads q_or_1 1"] | None:
    """The logits of learned sinks, which take attention and give nothing; None without any."""
    sinks = call.keywords.get("s_aux", call.keywords.get("sinks"))
    if sinks is None:
        return None
    sinks = rows_of(sinks, places) if sinks.ndim == 4 else sinks.reshape(1, -1, 1, 1)
    return sinks.float()


def logits_of(call: AttentionCall, places: Int[Tensor, "b q"]) -> Float[Tensor, "b heads q s"]:
    """Query-key products after scale, soft cap and position bias, in float32.

    The query heads of a group are multiplied with their key head as further queries of it, so that
    keys are not copied for every query head.

    Args:
        call: one call of the attention function.
        places: query positions of each prompt.
    """
    batch, heads, _, head_dim = call.query.shape
    key_heads, length = call.key.shape[1:3]
    index = places[:, None, :, None].expand(batch, heads, -1, head_dim)
    query = call.query.gather(2, index).float().reshape(batch, key_heads, -1, head_dim)
    logits = query @ call.key.float().transpose(-1, -2) * call.scaling
    logits = logits.reshape(batch, heads, -1, length)
    if (cap := call.keywords.get("softcap")) is not None:
        logits = torch.tanh(logits / cap) * cap
    for name in ("position_bias", "attention_bias"):
        if (bias := call.keywords.get(name)) is not None:
            logits = logits + rows_of(bias, places).float()
    return logits


@dataclass(frozen=True)
class QueryGroups:
    """Groups of query positions, over which attention is averaged.

    Attributes:
        places: every query position of any group, once; rows with fewer repeat position 0.
        shares: the weight of each position in the mean of each group. A group's weights sum to 1,
            or to 0 in a prompt that has no such query.
    """

    places: Int[Tensor, "b q"]
    shares: Float[Tensor, "b groups q"]

    @classmethod
    def of(cls, groups: Sequence[Sequence[Int[np.ndarray, " n"]]]) -> QueryGroups:
        """The groups of a batch.

        Args:
            groups: the positions of each group of each prompt. A position that occurs twice has
                twice the weight.
        """
        own = [np.unique(np.concatenate(positions)) for positions in groups]
        width = max([1, *(len(row) for row in own)])
        places = np.zeros((len(groups), width), np.int64)
        shares = np.zeros((len(groups), len(groups[0]), width), np.float32)
        for row, (used, positions) in enumerate(zip(own, groups, strict=True)):
            places[row, : len(used)] = used
            for group, members in enumerate(positions):
                if len(members):
                    np.add.at(shares[row, group], np.searchsorted(used, members), 1 / len(members))
        return cls(torch.from_numpy(places), torch.from_numpy(shares))

    @property
    def present(self) -> Bool[Tensor, "b groups"]:
        """Whether a prompt has queries of a group."""
        return self.shares.any(-1)


@dataclass(frozen=True)
class KeyAttention:
    """What each key gets from groups of queries: means over the queries of a group.

    Attributes:
        mass: attention weight.
        relative: attention weight times the number of keys that the query sees; 1 if attention is
            even over what is seen.
        entropy: the key's term of the entropy of attention, -p ln p, in nats.
        logit: query-key logit, 0 where the query does not see the key.
        seen: the share of queries that see the key.
    """

    mass: Float[Tensor, "b heads groups s"]
    relative: Float[Tensor, "b heads groups s"]
    entropy: Float[Tensor, "b heads groups s"]
    logit: Float[Tensor, "b heads groups s"]
    seen: Float[Tensor, "b 1 groups s"]


def attention_by_key(call: AttentionCall, queries: QueryGroups) -> KeyAttention:
    """The attention that each key gets from groups of queries, one chunk of queries at a time.

    Args:
        call: one call of the attention function.
        queries: groups of query positions, of each prompt of the call.
    """
    call = call.with_states("key", call.key.float())
    sums: list[Tensor] = []
    for start in range(0, queries.places.shape[1], CHUNK):
        shares = queries.shares[:, None, :, start : start + CHUNK].to(call.query.device)
        places = queries.places[:, start : start + CHUNK].to(call.query.device)
        found = attention_at(call, places)
        seen = found.seen.float()
        weights = found.weights * seen
        parts = (
            weights,
            weights * seen.sum(-1, keepdim=True),
            torch.special.entr(weights),
            found.logits * seen,
            seen,
        )
        means = [shares @ part for part in parts]
        sums = [one + other for one, other in zip(sums, means, strict=True)] if sums else means
    return KeyAttention(*sums)


def ends_of(call: AttentionCall, attention_mask: Tensor | None) -> Int[Tensor, " b"]:
    """The last position of each prompt, on the device of the call.

    Args:
        call: one call of the attention function.
        attention_mask: (batch, tokens) of the prompts, padded on the right.
    """
    batch, _, length, _ = call.query.shape
    if attention_mask is None or attention_mask.ndim != 2:
        return torch.full((batch,), length - 1, device=call.query.device)
    return (attention_mask.sum(1) - 1).to(call.query.device)


def received_at(call: AttentionCall, ends: Int[Tensor, " b"]) -> Float[Tensor, "b s"]:
    """The attention that each key receives, in multiples of its even share.

    The attention weights of the last ``QUERIES`` prompt positions are multiplied by the number of
    keys that each of them sees and averaged over heads and queries. If attention were even, the
    result would be 1 everywhere; an attention sink receives many times that.

    Args:
        call: one call of the attention function.
        ends: the query that is the last position of each prompt.
    """
    back = torch.arange(QUERIES, device=call.query.device)
    found = attention_at(call, (ends[:, None] - back).clamp_min(0))
    visible_keys = found.seen.sum(-1, keepdim=True)
    return (found.weights * found.seen * visible_keys).mean((1, 2))
