"""Hooks that read vectors out of one forward pass and are gone afterwards, exception or not.

``with Capture(vlm, sites, layers) as capture`` sets the hooks; ``capture(inputs)`` runs the model
and gives the vectors. The pass stops as soon as the last vector wanted is there: no layer above,
no language-model head. Nothing is copied that the model did not make anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from keygap.capture.attention import received
from keygap.capture.sites import Site, site_of
from keygap.errors import UserError
from keygap.models.attention_tap import AttentionCall, AttentionTap
from keygap.models.text_stack import DecoderLayer, Projection
from keygap.models.vlm import VLM

Key = tuple[str, int]  # site, layer


class _EverythingRead(Exception):
    """Raised inside the forward pass once nothing more is wanted of it."""


class Capture:
    """Reads sites at layers of a model, batch by batch.

    Args:
        vlm: the model.
        sites: names of ``SITES``.
        layers: absolute indices.
        attention: also measure the attention that each position receives, per layer.

    Raises:
        UserError: a layer without attention, or without one of the projections asked for.
    """

    def __init__(
        self, vlm: VLM, sites: Sequence[str], layers: Sequence[int], attention: bool = False
    ) -> None:
        self.vlm = vlm
        self.sites = [site_of(name) for name in sites]
        self.layers = [vlm.layers[index] for index in layers]
        self.attention = attention
        self._read: dict[Key, Tensor] = {}
        self._inputs: Mapping[str, Tensor] = {}
        self._wanted = len(self.layers) * (len(self.sites) + attention)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # what was set is undone even if the next hook cannot be
            for layer in self.layers:
                for site in self.sites:
                    if site.kind == "projection":
                        projection = layer.projection(site.source)
                        handle = projection.module.register_forward_hook(
                            self._projection_hook(site, layer, projection)
                        )
                        stack.callback(handle.remove)
                    elif site.kind == "hidden":
                        handle = layer.block.register_forward_pre_hook(
                            self._hidden_hook(site, layer), with_kwargs=True
                        )
                        stack.callback(handle.remove)
            arguments = [site for site in self.sites if site.kind == "attention"]
            if arguments or self.attention:
                for layer in self.layers:
                    if layer.attention is None:
                        raise UserError(
                            f"layer {layer.index} has no attention ({layer.kind}): nothing to read"
                        )
                owners = {id(layer.attention): layer for layer in self.layers}
                modules = [layer.attention for layer in self.layers if layer.attention is not None]
                stack.enter_context(
                    AttentionTap(modules, self._attention_handler(owners, arguments))
                )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        self._read.clear()
        self._inputs = {}

    @torch.no_grad()
    def __call__(self, inputs: dict[str, Tensor]) -> dict[Key, Float[Tensor, "b t heads head_dim"]]:
        """Vectors by (site, layer), and ``("attention", layer)``: (batch, tokens), if asked for.

        In a cross-attention layer the tokens of keys and values are image features.
        ``attention`` is the attention a position receives over its even share, see ``received``.
        """
        self._read.clear()
        self._inputs = inputs
        with suppress(_EverythingRead):
            self.vlm.forward(inputs)
        missing = self._wanted - len(self._read)
        if missing:
            seen = sorted(self._read)
            raise RuntimeError(f"{missing} of {self._wanted} vectors were never seen; seen: {seen}")
        read, self._read = self._read, {}
        self._inputs = {}
        return read

    def _keep(self, key: Key, vectors: Tensor) -> None:
        self._read[key] = vectors
        if len(self._read) == self._wanted:
            raise _EverythingRead

    def _projection_hook(self, site: Site, layer: DecoderLayer, projection: Projection) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Tensor) -> None:
            vectors = projection.read(output)
            prompts = len(self._inputs["input_ids"])
            if layer.attends == "cross" and vectors.shape[0] != prompts:
                # each view of an image is a row here; attention joins those of a prompt
                vectors = vectors.reshape(prompts, -1, *vectors.shape[-2:])
            self._keep((site.name, layer.index), vectors)

        return hook

    def _hidden_hook(self, site: Site, layer: DecoderLayer) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            hidden = arguments[0] if arguments else keywords["hidden_states"]
            self._keep((site.name, layer.index), self._streams(hidden))

        return hook

    def _streams(self, hidden: Tensor) -> Tensor:
        """The residual as (batch, tokens, streams, width): one stream, in most models."""
        if hidden.ndim == 3:
            return hidden.unsqueeze(-2)
        # several streams (hyper-connections, AltUp) stand before the batch or after the tokens
        tokens = self._inputs["input_ids"].shape[1]
        return hidden if hidden.shape[1] == tokens else hidden.movedim(0, 2)

    def _attention_handler(self, owners: dict[int, DecoderLayer], sites: list[Site]) -> Any:
        def handler(call: AttentionCall) -> Any:
            layer = owners[id(call.module)]
            if self.attention:
                shares = received(call, self._inputs.get("attention_mask"))
                self._keep(("attention", layer.index), shares)
            for site in sites:
                states = getattr(call, site.source)
                self._keep((site.name, layer.index), states.transpose(1, 2))
            return call.proceed()

        return handler
