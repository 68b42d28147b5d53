"""One layer of a text stack: its attention, and where its vectors can be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from keygap.errors import UserError
from keygap.models.attention_tap import calls_attention_function
from keygap.models.projections import Projection, is_latent

Attends = Literal["self", "cross", "none"]

_INSTEAD = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}


@dataclass(frozen=True)
class DecoderLayer:
    """One layer of the text stack and its attention.

    Attributes:
        index: the layer's absolute index.
        block: the whole layer.
        attention: its attention module, None if it has none.
        attends: ``self``; ``cross``: keys are image features and not positions of the prompt;
            ``none``: the layer has no attention.
        heads: query heads; 0 without attention.
        key_heads: key heads; 0 without attention.
        head_dim: width of a head; 0 without attention.
        projections: by site name; a latent-attention layer has no ``k_proj``.
        kind: the class of the attention module, or of what the layer has in its place.
        window: how many positions back a position sees, None for all.
        shares: the earlier layer whose keys and values it attends to, None if it has its own.
    """

    index: int
    block: nn.Module
    attention: nn.Module | None
    attends: Attends
    heads: int
    key_heads: int
    head_dim: int
    projections: Mapping[str, Projection] = field(default_factory=dict)
    kind: str = ""
    window: int | None = None
    shares: int | None = None

    @property
    def calls_function(self) -> bool:
        """Whether its attention calls transformers' attention function, which can be tapped."""
        return self.attention is not None and calls_attention_function(self.attention)

    def has_site(self, name: str, kind: str) -> bool:
        """Whether vectors of a site can be read here.

        Args:
            name: the site's name.
            kind: the site's kind, see ``keygap.capture.sites.Site``.
        """
        if kind == "projection":
            return name in self.projections
        return kind == "hidden" or self.calls_function

    def projection(self, name: str) -> Projection:
        """The projection ``q_proj``, ``k_proj`` or ``v_proj``.

        Raises:
            UserError: the layer has none; says why and what to read instead.
        """
        if name in self.projections:
            return self.projections[name]
        if self.attention is None:
            raise UserError(f"layer {self.index} has no attention ({self.kind}), so no {name}")
        if self.shares is not None:
            raise UserError(
                f"layer {self.index} has no {name}: it attends to the keys and values of layer "
                f"{self.shares}; read layer {self.shares} instead"
            )
        latent = is_latent(self.attention)
        why = "its keys come out of a latent (MLA)" if latent else "it has no such projection"
        raise UserError(
            f"layer {self.index} has no {name}: {why}; read the site {_INSTEAD[name]} instead"
        )
