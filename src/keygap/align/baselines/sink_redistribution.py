"""Attention that image sinks get is given to the other image tokens.

After VAR, "See What You Are Told: Visual Attention Sink in Large Multimodal Models" (Kang et al.,
ICLR 2025, arXiv 2503.03321). For a query and an image-centric head, a part p of the attention to
image sinks is taken from them and shared among the other image tokens in proportion to what each
has. All other weights stay, so attention still sums to 1. As weights change by a factor for sinks
and by another for the rest, the change is a bias on the logits: log(1 - p), and log(1 + p S / R)
with S and R the attention to the sinks and to the rest.

Image-centric heads are found for each query as in the paper: at least ``image_at_least`` of the
attention is on the image, and at most ``sinks_at_most`` of that is on sinks.

Three things are simpler than in the paper. Sinks are found by the attention that they get and not
by their massive activations, whose dimensions are known for a few models only: a sink is an image
token that receives at least ``share`` times the even share of attention at this layer, over all
heads, from the last positions of the prompt, as everywhere in keygap. Attention to text sinks (the
first token) is not redistributed, though the authors' code does that, too. And p is the part that
is moved, as in the paper's text; the authors' code multiplies the sinks by p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional

from keygap.align.baselines.queries import IMAGE, Queries
from keygap.align.baselines.settings import layers_of, number
from keygap.capture.attention import attention_at, received_at
from keygap.contrasts.labels import SINK_SHARE
from keygap.errors import UserError
from keygap.models.attention_mask import add_bias
from keygap.models.attention_tap import AttentionCall
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.interventions import WHOLE_CALL, Intervention
from keygap.models.positions import PromptLabels, Tokens


def sink_redistribution(
    *,
    layers: Sequence[int],
    p: float = 0.6,
    image_at_least: float = 0.2,
    sinks_at_most: float = 0.5,
    share: float = SINK_SHARE,
    queries: str | Sequence[str] = "text",
) -> SinkRedistribution:
    """Image tokens with the attention that image sinks get.

    Args:
        layers: absolute indices. The authors' code leaves out the first two and the last layer.
        p: the part of the attention to image sinks that is moved; 0 leaves every pass as it is.
        image_at_least: the least attention to the image of an image-centric head; with 0, and 1 for
            ``sinks_at_most``, all heads are.
        sinks_at_most: the largest part of it that goes to sinks.
        share: times the even share of attention from which an image token is a sink.
        queries: the queries whose attention changes: modalities and roles, ``all`` or ``current``
            (see ``Queries``).

    Raises:
        UserError: a setting that is not possible. In a pass: the first one does not begin with the
            prompt, so that its sinks are not known.
    """
    return SinkRedistribution(
        layers_of(layers),
        number(p, "p", 0, 1),
        number(image_at_least, "image_at_least", 0, 1),
        number(sinks_at_most, "sinks_at_most", 0, 1),
        number(share, "share", 0, 1e6),
        queries,
    )


class SinkRedistribution(Intervention):
    """Moves attention from image sinks to other image tokens; arguments as the function."""

    name = "sink-redistribution"
    sites = (WHOLE_CALL,)

    def __init__(
        self,
        layers: Sequence[int],
        p: float,
        image_at_least: float,
        sinks_at_most: float,
        share: float,
        queries: str | Sequence[str],
    ) -> None:
        self.layers, self.p, self.share = list(layers), p, share
        self.image_at_least, self.sinks_at_most = image_at_least, sinks_at_most
        self.queries = Queries(queries)
        self._sinks: dict[int, tuple[PromptLabels | None, Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without the sinks of a pass."""
        return {**vars(self), "_sinks": {}}

    def identity(self) -> dict[str, Any]:
        """Name, layers, sites and all settings."""
        return {
            **super().identity(),
            "p": self.p,
            "image_at_least": self.image_at_least,
            "sinks_at_most": self.sinks_at_most,
            "share": self.share,
            "queries": list(self.queries.names),
        }

    def attend(
        self, call: AttentionCall, layer: DecoderLayer, queries: Tokens, keys: Tokens
    ) -> Any:
        """Carry out the call with the attention moved."""
        if self.p == 0:
            return call.proceed()
        image = keys.are(IMAGE)
        sinks = self._sinks_among(keys, call, layer, queries) & image
        rows = self.queries.rows(queries)
        weights = attention_at(call, rows.places).weights
        taken = (weights * sinks[:, None, None, :]).sum(-1, keepdim=True)
        rest = (weights * (image & ~sinks)[:, None, None, :]).sum(-1, keepdim=True)
        total = taken + rest
        centric = (total >= self.image_at_least) & (taken <= self.sinks_at_most * total)
        loss = torch.log1p(torch.tensor(-self.p)).clamp_min(torch.finfo(call.query.dtype).min)
        gain = torch.log1p(self.p * taken / rest)
        bias = torch.where(sinks[:, None, None, :], loss.to(gain), gain)
        bias = torch.where(centric & (rest > 0) & image[:, None, None, :], bias, 0.0)
        return add_bias(call, rows.spread(call, bias), queries.start - keys.start).proceed()

    def _sinks_among(
        self, keys: Tokens, call: AttentionCall, layer: DecoderLayer, queries: Tokens
    ) -> Bool[Tensor, "b s"]:
        """Which keys are sinks: found in the pass over the prompt, kept for generated tokens."""
        prompts, found = self._sinks.get(layer.index, (None, None))
        if queries.start == 0:
            found = received_at(call, queries.last()) >= self.share
            self._sinks[layer.index] = queries.prompts, found
        elif found is None or prompts is not queries.prompts:
            raise UserError(
                f"{self.name!r} finds sinks in the pass over the whole prompt, and this pass "
                f"begins at position {queries.start}: begin with an empty cache"
            )
        if layer.attends == "cross":
            return found
        return functional.pad(found, (0, max(0, keys.start + keys.count - found.shape[1])))[
            :, keys.start : keys.start + keys.count
        ]
