"""A constant added to the attention logits of image keys.

The simplest way to make a model look more, or less, at its image: each query multiplies the odds of
every image key against any other by the same factor, exp(nats).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keygap.align.baselines.queries import IMAGE, Queries
from keygap.align.baselines.settings import MOST_NATS, layers_of, number
from keygap.errors import UserError
from keygap.models.attention_mask import add_bias
from keygap.models.attention_tap import AttentionCall
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.interventions import WHOLE_CALL, Intervention
from keygap.models.positions import Tokens


def attention_bias(
    *, layers: Sequence[int], nats: float = 1.0, queries: str | Sequence[str] = "text"
) -> AttentionBias:
    """Image keys with a constant added to their attention logits.

    Args:
        layers: absolute indices.
        nats: what is added; below 0 the image gets less attention, 0 leaves every pass as it is.
        queries: the queries whose logits change: modalities and roles, ``all`` or ``current`` (see
            ``Queries``).

    Raises:
        UserError: a setting that is not possible. In a pass: a layer that attends to image features
            alone, where all keys would get the same constant.
    """
    return AttentionBias(layers_of(layers), number(nats, "nats", -MOST_NATS, MOST_NATS), queries)


class AttentionBias(Intervention):
    """Adds a constant to the attention logits of image keys; arguments as ``attention_bias``."""

    name = "attention-bias"
    sites = (WHOLE_CALL,)

    def __init__(self, layers: Sequence[int], nats: float, queries: str | Sequence[str]) -> None:
        self.layers, self.nats = list(layers), nats
        self.queries = Queries(queries)

    def identity(self) -> dict[str, Any]:
        """Name, layers, sites, the constant and the queries."""
        return {**super().identity(), "nats": self.nats, "queries": list(self.queries.names)}

    def attend(
        self, call: AttentionCall, layer: DecoderLayer, queries: Tokens, keys: Tokens
    ) -> Any:
        """Carry out the call with the constant added."""
        if layer.attends == "cross":
            raise UserError(
                f"layer {layer.index} attends to image features alone, and a constant on all of "
                f"its keys changes nothing: leave it out of the layers of {self.name!r}"
            )
        if self.nats == 0:
            return call.proceed()
        pairs = self.queries.among(queries)[:, :, None] & keys.are(IMAGE)[:, None]
        bias = self.nats * pairs[:, None].to(call.query.dtype)
        return add_bias(call, bias, queries.start - keys.start).proceed()
