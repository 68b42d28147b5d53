"""``kg.mask``: no query sees tokens of one modality or role, at some layers.

This is attention knockout. Positions keep their numbers, so rotary embeddings stay as they are, and
the model computes what it computes when it is given that attention mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from keygap.models.attention_mask import hide
from keygap.models.attention_tap import AttentionCall
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.interventions import WHOLE_CALL, Intervention
from keygap.models.positions import Tokens, known_tokens
from keygap.models.vlm import VLM


class Mask(Intervention):
    """Hides the keys of some tokens from every query.

    A query that would see nothing at all sees its own position. In a cross-attention layer, where
    all keys are image features, a query without keys gets an output of zero.

    Args:
        tokens: modalities or roles; a token of any of them is hidden.
        layers: absolute indices.
    """

    name = "mask"
    sites = (WHOLE_CALL,)

    def __init__(self, tokens: Sequence[str], layers: Sequence[int]) -> None:
        self.tokens = known_tokens(tokens)
        self.layers = list(layers)

    def identity(self) -> dict[str, Any]:
        """Name, layers, sites and the kinds of tokens that are hidden."""
        return {**super().identity(), "tokens": list(self.tokens)}

    def attend(
        self, call: AttentionCall, layer: DecoderLayer, queries: Tokens, keys: Tokens
    ) -> Any:
        """Carry out the call without the hidden keys."""
        hidden = keys.are(self.tokens)
        if layer.attends == "cross":
            output, *others = call.proceed()
            return torch.zeros_like(output) if bool(hidden.all()) else output, *others
        return hide(call, hidden, queries.start - keys.start).proceed()


def mask(
    vlm: VLM, tokens: str | Sequence[str], *, layers: str | int | Sequence[str | int] = "all"
) -> AbstractContextManager[None]:
    """Mask attention to tokens of a modality or role while a block runs.

    ``with kg.mask(vlm, "image"): ...`` answers what the model says when text cannot look at the
    image. The mask acts on forward passes and on generation, with a cache too.

    Args:
        vlm: the model.
        tokens: ``image``, ``text``, ``video``, or a role such as ``question``, or several.
        layers: ``first``, ``middle``, ``last``, ``all`` and absolute indices, mixed.

    Returns:
        A context manager that applies the mask and takes it away again.

    Raises:
        UserError: an unknown kind of token, or a layer that does not exist or does not attend.
    """
    wanted = [layers] if isinstance(layers, (str, int)) else layers
    indices = vlm.layer_indices(wanted, with_shared=True)
    return vlm.interventions.applied(Mask(known_tokens(tokens), indices))
