"""Hooks that read vectors out of a forward pass and are gone afterwards, exception or not.

``with Capture(vlm, sites, layers) as capture`` sets the hooks; ``capture(batch)`` runs the model
and returns the vectors. By default the pass stops as soon as the last vector has been read, so that
neither the layers above nor the language-model head are computed. Vectors are the model's own
tensors and not copies. With interventions applied, they are what attention used after all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from keygap.capture.attention import ends_of, received_at
from keygap.capture.sites import Site, site_of
from keygap.errors import UserError
from keygap.models.attention_tap import AttentionCall, AttentionTap
from keygap.models.batch import Batch
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.site_hooks import hook_hidden, hook_projection
from keygap.models.vlm import VLM

Key = tuple[str, int]  # site, layer
ATTENTION = "attention"  # in the place of a site: what each position receives
# Takes what was read at a layer, by site, as soon as it is complete.
Keep = Callable[[int, Mapping[str, Tensor]], None]


class _EverythingRead(Exception):
    """Raised inside the forward pass once nothing more is wanted from it."""


class Stopped(Exception):
    """Raised inside the forward pass after ``Capture.stop``."""


class Capture:
    """Reads sites at layers of a model, batch by batch.

    Args:
        vlm: the model.
        sites: names of ``SITES``.
        layers: absolute indices.
        attention: also measure the attention that each position receives, at the layers whose
            attention calls transformers' attention function.
        gradients: record the operations of the pass for automatic differentiation, if the caller
            has not turned that off, so that a loss on the vectors reaches inputs and parameters.
        stop_early: end the pass once everything has been read. Otherwise the whole model runs, and
            ``output`` is what it returned.

    Attributes:
        output: what the model returned in the latest pass; None if the pass was stopped early.

    Raises:
        UserError: on entering, a layer without attention, or without one of the projections.
    """

    def __init__(
        self,
        vlm: VLM,
        sites: Sequence[str],
        layers: Sequence[int],
        attention: bool = False,
        *,
        gradients: bool = False,
        stop_early: bool = True,
    ) -> None:
        self.vlm = vlm
        self.sites = [site_of(name) for name in sites]
        self.layers = [vlm.layers[index] for index in layers]
        self.attention = attention
        self.gradients = gradients
        self.stop_early = stop_early
        self.output: Any = None
        self._read: dict[Key, Tensor] = {}
        self._seen: set[Key] = set()  # in this pass
        self._then: Keep | None = None
        self._inputs: Mapping[str, Any] = {}  # of the pass that is read; other passes are not
        self._ends: dict[torch.device, Tensor] = {}  # the last position of each prompt of that pass
        self._in_preparation = False  # whether that pass is one that an intervention needs first
        tapped = sum(layer.calls_function for layer in self.layers) if attention else 0
        self._wanted = len(self.layers) * len(self.sites) + tapped
        self._hooks = ExitStack()
        self._stopped = False

    def __enter__(self) -> Self:
        with ExitStack() as hooks:  # what was set is undone even if the next hook cannot be
            for layer in self.layers:
                for site in self.sites:
                    self._set_hook(hooks, site, layer)
            if modules := self._tapped():
                owners = {id(layer.attention): layer for layer in self.layers}
                handler = partial(self._read_call, owners)
                hooks.enter_context(AttentionTap(modules, handler, reads=True))
            self._hooks = hooks.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._hooks.close()
        self._forget()

    def __call__(
        self, batch: Batch | Mapping[str, Any], then: Keep | None = None
    ) -> dict[Key, Float[Tensor, "b t heads head_dim"]]:
        """Run the model on a batch and return what was read.

        Args:
            batch: what the prompter made, or model inputs on the model's device.
            then: takes what was read at a layer once it is complete. It is not returned, and not
                held until the pass ends.

        Returns:
            Vectors by (site, layer). In a cross-attention layer the tokens of keys and values are
            image features. If asked for, ``("attention", layer)``: the attention that each position
            receives over its even share, (batch, tokens), see ``received_at``.
        """
        self._forget()
        self._then = then
        self._inputs = batch.inputs if isinstance(batch, Batch) else batch
        self._in_preparation = self.vlm.interventions.preparing
        stopped = suppress(_EverythingRead)
        try:
            with stopped, nullcontext() if self.gradients else torch.no_grad():
                self.output = self.vlm.forward(batch)
        finally:
            read, seen = self._read, self._seen
            self._read, self._then, self._inputs, self._ends = {}, None, {}, {}
        missing = self._wanted - len(seen)
        if missing:
            raise RuntimeError(
                f"{missing} of {self._wanted} vectors were never seen; seen: {sorted(seen)}"
            )
        return read

    def stop(self) -> None:
        """Let the pass that another thread runs end at the next layer that is read."""
        self._stopped = True

    def _forget(self) -> None:
        self._read = {}
        self._seen = set()
        self._inputs = {}
        self.output = None

    def _keep(self, key: Key, vectors: Tensor) -> None:
        if self._stopped:
            raise Stopped
        self._seen.add(key)
        self._read[key] = vectors
        if self._then is not None:
            self._hand_over(key[1])
        if self.stop_early and len(self._seen) == self._wanted:
            raise _EverythingRead

    def _hand_over(self, index: int) -> None:
        """Give what was read at a layer away, if it is complete."""
        names = [site.name for site in self.sites]
        tapped = self.attention and self.vlm.layers[index].calls_function
        names += [ATTENTION] if tapped else []
        own = {name: self._read[name, index] for name in names if (name, index) in self._read}
        if len(own) == len(names):
            for name in names:
                del self._read[name, index]
            assert self._then is not None
            self._then(index, own)

    def _set_hook(self, hooks: ExitStack, site: Site, layer: DecoderLayer) -> None:
        """Hook the module that a site is read from, if it is one."""
        keep = partial(self._keep, (site.name, layer.index))
        if site.kind == "projection":
            handle = hook_projection(layer, site.source, keep, self._shape)
        elif site.kind == "hidden":
            handle = hook_hidden(layer, keep, self._shape)
        else:
            return
        hooks.callback(handle.remove)

    @property
    def _reading(self) -> bool:
        """Whether the current pass is the one that is read."""
        own = self._in_preparation == self.vlm.interventions.preparing
        return bool(self._inputs) and own

    def _shape(self) -> tuple[int, int] | None:
        """Prompts and tokens of the pass that is read; None in any other."""
        if not self._reading:
            return None
        batch, tokens = self._inputs["input_ids"].shape
        return batch, tokens

    def _tapped(self) -> list[nn.Module]:
        """The attention modules whose calls are read."""
        at_calls = any(site.kind == "attention" for site in self.sites)
        modules = []
        for layer in self.layers:
            if layer.attention is None and (at_calls or self.attention):
                raise UserError(
                    f"layer {layer.index} has no attention ({layer.kind}): nothing to read"
                )
            if layer.attention is not None and (
                at_calls or (self.attention and layer.calls_function)
            ):
                modules.append(layer.attention)
        return modules

    def _ends_for(self, call: AttentionCall) -> Tensor:
        """The last position of each prompt; brought to a device once, which waits for it."""
        device = call.query.device
        if device not in self._ends:
            self._ends[device] = ends_of(call, self._inputs.get("attention_mask"))
        return self._ends[device]

    def _read_call(self, owners: Mapping[int, DecoderLayer], call: AttentionCall) -> Any:
        if not self._reading:
            return call.proceed()
        layer = owners[id(call.module)]
        if self.attention:
            self._keep((ATTENTION, layer.index), received_at(call, self._ends_for(call)))
        for site in self.sites:
            if site.kind == "attention":
                states: Tensor = getattr(call, site.source)
                self._keep((site.name, layer.index), states.transpose(1, 2))
        return call.proceed()
