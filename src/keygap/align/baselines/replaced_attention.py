"""Attention weights that do not depend on what is attended to.

If a model answers as well with them, what its queries look for at those layers does not matter.
``even`` weights are the same for all keys that a query sees. ``random`` ones are the softmax of
Gaussian logits. Both keep the mask: what a query does not see gets nothing, and weights sum to 1.

A random logit depends on the seed, the layer, the head and the positions of query and key, and on
nothing else. A prompt therefore gets the same weights alone and in a batch, with a cache and
without, and no weights are stored: they come from a hash of the positions (the finalizer of
SplitMix64, Steele, Lea and Flood 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from keygap import random_streams
from keygap.align.baselines.queries import Queries
from keygap.align.baselines.settings import layers_of, number
from keygap.arguments import seed_of
from keygap.errors import unknown
from keygap.models.attention_mask import with_logits
from keygap.models.attention_tap import AttentionCall
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.interventions import WHOLE_CALL, Intervention
from keygap.models.positions import Tokens

Weights = Literal["even", "random"]
WEIGHTS: tuple[str, ...] = get_args(Weights)


def replaced_attention(
    *,
    layers: Sequence[int],
    weights: Weights = "even",
    queries: str | Sequence[str] = "text",
    spread: float = 1.0,
    seed: int = 0,
) -> ReplacedAttention:
    """Attention weights replaced by even or by random ones.

    Args:
        layers: absolute indices.
        weights: ``even`` over the keys that a query sees, or ``random``.
        queries: the queries whose weights are replaced: modalities and roles, ``all`` or
            ``current`` (see ``Queries``).
        spread: standard deviation of random logits, in nats.
        seed: of random logits.

    Raises:
        UserError: a setting that is not possible.
    """
    if weights not in WEIGHTS:
        raise unknown("kind of weights", weights, WEIGHTS)
    spread = number(spread, "spread", 0, 100)
    return ReplacedAttention(layers_of(layers), weights, queries, spread, seed_of(seed))


class ReplacedAttention(Intervention):
    """Replaces attention weights by even or random ones; arguments as ``replaced_attention``."""

    name = "replaced-attention"
    sites = (WHOLE_CALL,)

    def __init__(
        self,
        layers: Sequence[int],
        weights: Weights,
        queries: str | Sequence[str],
        spread: float,
        seed: int,
    ) -> None:
        self.layers, self.weights = list(layers), weights
        self.spread, self.seed = spread, seed
        self.queries = Queries(queries)

    def identity(self) -> dict[str, Any]:
        """Name, layers, sites, the kind of weights and the queries; for random ones their draw."""
        drawn = {"spread": self.spread, "seed": self.seed} if self.weights == "random" else {}
        return {
            **super().identity(),
            "weights": self.weights,
            "queries": list(self.queries.names),
            **drawn,
        }

    def attend(
        self, call: AttentionCall, layer: DecoderLayer, queries: Tokens, keys: Tokens
    ) -> Any:
        """Carry out the call with other weights."""
        logits = call.query.new_zeros(1, 1, 1, 1)
        if self.weights == "random":
            heads = call.query.shape[1]
            logits = self.spread * gaussian(self.seed, layer.index, heads, queries, keys)[None]
        chosen = self.queries.among(queries)
        return with_logits(call, logits, chosen, queries.start - keys.start).proceed()


def gaussian(
    seed: int, layer: int, heads: int, queries: Tokens, keys: Tokens
) -> Float[Tensor, "heads t s"]:
    """Standard normal numbers that depend on the seed, layer, head and positions alone.

    Args:
        seed: the user's seed.
        layer: the index of the layer.
        heads: how many heads.
        queries: the tokens of the queries, whose positions count.
        keys: the tokens of the keys.
    """
    key = int(random_streams.generator(seed, "replaced attention", layer).integers(2**63))
    head, row, column = (
        torch.arange(start, start + count, device=queries.device)
        for start, count in ((0, heads), (queries.start, queries.count), (keys.start, keys.count))
    )
    counter = (head[:, None, None] << 48) + (row[:, None] << 24) + column
    bits = _mixed(_mixed(counter) ^ key)
    # 23 bits, so that no number is 0 or 1 in float32
    uniform = (2 * _shifted(bits, 41).float() + 1 - 2**23) / 2**23
    return torch.erfinv(uniform) * 2**0.5


def _mixed(bits: Int[Tensor, "*positions"]) -> Int[Tensor, "*positions"]:
    """The finalizer of SplitMix64, on 64 bits that torch keeps as signed integers."""
    bits = (bits ^ _shifted(bits, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    bits = (bits ^ _shifted(bits, 27)) * (0x94D049BB133111EB - 2**64)
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Int[Tensor, "*positions"], by: int) -> Int[Tensor, "*positions"]:
    """Bits moved to the right, with zeros from the left."""
    return (bits >> by) & (2 ** (64 - by) - 1)
