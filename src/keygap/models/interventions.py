"""The interventions applied to a model, in order.

An intervention changes a forward pass where captures read it: at the output of a projection, at the
residual stream that enters a layer, at the query, key or value that attention multiplies, or around
the whole attention call. The stack of a model must hold to three rules.

- Interventions act in the order in which they were applied, and a capture sees what they leave,
  whichever was entered first. Their hooks therefore come before all others on a module, and their
  taps before those that read.
- Leaving the block restores the model bit for bit, after an exception too.
- What is measured under an intervention must say so: the stack's ``identity`` is part of a run's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from keygap.errors import UserError, unknown
from keygap.models.attention_tap import AttentionCall, AttentionTap
from keygap.models.batch import Batch
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.positions import PromptLabels, Tokens
from keygap.models.projections import PROJECTIONS
from keygap.models.site_hooks import hook_hidden, hook_projection

if TYPE_CHECKING:
    from keygap.benchmarks import Sample
    from keygap.models.vlm import VLM

ARGUMENTS = ("query", "key", "value")  # of the attention function
WHOLE_CALL = "attention"
CHANGEABLE = (*PROJECTIONS, *ARGUMENTS, "hidden", WHOLE_CALL)


class Intervention:
    """Something that changes a forward pass. A subclass overrides what it needs.

    Attributes:
        name: what it is called in the identity of a run.
        layers: absolute indices of the layers at which it acts.
        sites: where it acts: names of ``keygap.capture.sites.SITES`` for ``change``, and
            ``attention`` for ``attend``.
    """

    name: str
    layers: Sequence[int]
    sites: Sequence[str]

    def identity(self) -> dict[str, Any]:
        """Plain values that tell this intervention from any other, for YAML and JSON.

        A subclass adds what else decides its effect, such as a strength or a hash of its content.
        """
        return {"name": self.name, "layers": list(self.layers), "sites": list(self.sites)}

    def change(
        self,
        vectors: Float[Tensor, "b t heads head_dim"],
        site: str,
        layer: DecoderLayer,
        tokens: Tokens,
    ) -> Float[Tensor, "b t heads head_dim"]:
        """The vectors that take the place of those at a site.

        Keys and values include those of earlier passes that a cache holds; the cache itself keeps
        them unchanged.

        Args:
            vectors: what the model computed, changed by the interventions before this one.
            site: one of ``sites``, ``attention`` excepted.
            layer: one of the layers.
            tokens: which tokens the vectors belong to.

        Returns:
            A new tensor, or the same one; never the same one changed in place.
        """
        raise NotImplementedError(f"{type(self).__name__} changes no vectors")

    def attend(
        self, call: AttentionCall, layer: DecoderLayer, queries: Tokens, keys: Tokens
    ) -> Any:
        """Carry out a call of the attention function.

        Args:
            call: the call, changed by the interventions before this one.
            layer: one of the layers.
            queries: which tokens the queries belong to.
            keys: which tokens the keys and values belong to.

        Returns:
            What the attention function returns. Call ``proceed`` of a changed call once, so that
            later interventions and captures see it.
        """
        raise NotImplementedError(f"{type(self).__name__} changes no attention call")

    def hooks(self, layer: DecoderLayer) -> Iterator[RemovableHandle]:
        """Set further hooks that this intervention needs on a layer's modules.

        They see what all applied interventions leave. The stack removes them with the intervention.

        Args:
            layer: one of the layers.
        """
        return iter(())

    def prepare(self, vlm: VLM, batch: Batch | Mapping[str, Any]) -> None:
        """Run a first pass that this intervention needs before a pass over a batch.

        Interventions that override this method are lifted meanwhile; the others act. What reads
        the pass itself sees nothing of the first one.

        Args:
            vlm: the model.
            batch: what ``vlm.forward`` or ``vlm.generate`` was given.
        """

    @property
    def decides(self) -> bool:
        """Whether ``decide`` changes logits, so that an answer cannot do without it."""
        return type(self).decide is not Intervention.decide

    def decide(
        self,
        vlm: VLM,
        samples: Sequence[Sample],
        batch: Batch,
        logits: Float[Tensor, "b vocabulary"],
    ) -> Float[Tensor, "b vocabulary"]:
        """The logits of the token after each prompt from which the answer is read.

        Contrastive decoding compares them with those of further passes. Interventions that are
        applied act in these passes, too, and ``decide`` is not called for them.

        Args:
            vlm: the model.
            samples: what the batch was made of.
            batch: the prompts.
            logits: what the model computed, changed by the interventions before this one.

        Returns:
            New logits, or the same ones.
        """
        return logits


@dataclass(frozen=True)
class _Pass:
    """What is known of the current pass: positions in the cache before it, and its shape."""

    past: int = 0
    shape: tuple[int, int] | None = None


class InterventionStack:
    """The interventions applied to one model, in the order in which they were applied.

    Args:
        decoder: the module that owns the text layers.
        layers: the layers of the text stack.
        is_encoder: whether the text stack is an encoder, which has no cache.
    """

    def __init__(
        self, decoder: nn.Module, layers: Sequence[DecoderLayer], is_encoder: bool = False
    ) -> None:
        self._decoder = decoder
        self._layers = layers
        self._is_encoder = is_encoder
        self._applied: list[Intervention] = []
        self._suspended = False
        self._preparing = False
        self._prompts: PromptLabels | None = None
        self._pass = _Pass()
        self._taps: list[AttentionTap] = []
        self._hooks = ExitStack()

    @property
    def active(self) -> tuple[Intervention, ...]:
        """The interventions that act, in order; none while they are suspended."""
        return () if self._suspended else tuple(self._applied)

    @property
    def preparing(self) -> bool:
        """Whether the current pass is one that an intervention needs before that of the caller."""
        return self._preparing

    @property
    def undecided(self) -> str:
        """Why answers of several tokens cannot be had under the interventions; empty if they can.

        Only the logits of the first token of an answer go through ``decide``.
        """
        names = ", ".join(each.name for each in self.active if each.decides)
        return names and (
            f"no answer of several tokens can be had under {names}, which acts on the logits of "
            "its first token alone: use questions whose answers differ in that token"
        )

    @property
    def identity(self) -> list[dict[str, Any]]:
        """The identity of each applied intervention, in order; empty if there is none."""
        return [intervention.identity() for intervention in self._applied]

    @contextmanager
    def applied(self, *interventions: Intervention) -> Iterator[None]:
        """Apply interventions, after those that are applied already, until the block is left.

        Raises:
            UserError: a site or layer at which the model cannot be changed.
        """
        try:
            self._set([*self._applied, *interventions])
            yield
        finally:
            self._set(_without(self._applied, interventions))

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Run the model as it is, without the interventions, until the block is left."""
        before, self._suspended = self._suspended, True
        self._set(self._applied)
        try:
            yield
        finally:
            self._suspended = before
            self._set(self._applied)

    def decide(
        self,
        vlm: VLM,
        samples: Sequence[Sample],
        batch: Batch,
        logits: Float[Tensor, "b vocabulary"],
    ) -> Float[Tensor, "b vocabulary"]:
        """Next-token logits after the ``decide`` of each intervention; arguments as there."""
        for intervention in self.active:
            logits = intervention.decide(vlm, samples, batch, logits)
        return logits

    def prepare(self, vlm: VLM, batch: Batch | Mapping[str, Any]) -> None:
        """Let interventions that need a pass of their own run it; arguments as there."""
        own = [each for each in self.active if type(each).prepare is not Intervention.prepare]
        if not own:
            return
        before, self._preparing = self._applied, True
        try:
            self._set(_without(before, own))
            for intervention in own:
                intervention.prepare(vlm, batch)
        finally:
            self._preparing = False
            self._set(before)

    @contextmanager
    def labels_of(self, batch: Batch | None) -> Iterator[None]:
        """Let the passes of a block be those of a batch, whose labels interventions see."""
        before = self._prompts
        self._prompts = None if batch is None else PromptLabels.of(batch)
        self._pass = _Pass()
        try:
            yield
        finally:
            self._prompts = before
            self._pass = _Pass()

    def _set(self, applied: list[Intervention]) -> None:
        """Hook exactly these interventions; all hooks are set anew, so that they are in order."""
        self._hooks.close()
        self._applied = applied
        active = self.active
        if not active:
            return
        with ExitStack() as hooks:  # undone if one of them cannot be set
            handle = self._decoder.register_forward_pre_hook(self._begin_pass, with_kwargs=True)
            hooks.callback(handle.remove)
            self._taps = [tap for each in active if (tap := self._tap(each)) is not None]
            for tap in self._taps:
                hooks.enter_context(tap)
            for intervention in reversed(active):  # each goes before those that are hooked already
                for handle in self._module_hooks(intervention):
                    hooks.callback(handle.remove)
            for intervention in active:
                for index in intervention.layers:
                    for handle in intervention.hooks(self._layers[index]):
                        hooks.callback(handle.remove)
            self._hooks = hooks.pop_all()

    def _begin_pass(
        self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> None:
        """Note the shape of a pass and what the cache holds before it."""
        # by what it can do, since releases of transformers give the argument different names
        cache = next((each for each in keywords.values() if hasattr(each, "get_seq_length")), None)
        past = 0 if cache is None or self._is_encoder else int(cache.get_seq_length())
        given = (keywords.get("inputs_embeds"), keywords.get("input_ids"), *arguments)
        first = next((each for each in given if torch.is_tensor(each)), None)
        self._pass = _Pass(past, None if first is None else (first.shape[0], first.shape[1]))
        for tap in self._taps:
            tap.follow()

    def _shape(self) -> tuple[int, int]:
        if self._pass.shape is not None:
            return self._pass.shape
        if self._prompts is not None:
            return len(self._prompts.labels), self._prompts.width
        raise RuntimeError("the shape of this pass is not known: give vlm.forward a Batch")

    def _tap(self, intervention: Intervention) -> AttentionTap | None:
        """The tap of an intervention that acts in the attention call."""
        for site in intervention.sites:
            if site not in CHANGEABLE:
                raise unknown("site", site, CHANGEABLE)
        if not any(site in (*ARGUMENTS, WHOLE_CALL) for site in intervention.sites):
            return None
        owners: dict[int, DecoderLayer] = {}
        modules = []
        for layer in self._layers_of(intervention):
            if layer.attention is None:
                raise UserError(
                    f"layer {layer.index} has no attention ({layer.kind}): there is nothing to "
                    f"change for {intervention.name!r}"
                )
            owners[id(layer.attention)] = layer
            modules.append(layer.attention)
        return AttentionTap(modules, partial(self._attend, intervention, owners))

    def _layers_of(self, intervention: Intervention) -> Iterator[DecoderLayer]:
        for index in intervention.layers:
            if not 0 <= index < len(self._layers):
                raise UserError(
                    f"there is no layer {index} for {intervention.name!r}: the model has "
                    f"{len(self._layers)} layers (0 to {len(self._layers) - 1})"
                )
            yield self._layers[index]

    def _attend(
        self, intervention: Intervention, owners: dict[int, DecoderLayer], call: AttentionCall
    ) -> Any:
        layer = owners[id(call.module)]
        queries, keys = self._tokens_of(call, layer)
        for site in ARGUMENTS:
            if site in intervention.sites:
                tokens = queries if site == "query" else keys
                vectors = getattr(call, site).transpose(1, 2)
                changed = intervention.change(vectors, site, layer, tokens)
                call = call.with_states(site, changed.transpose(1, 2))
        if WHOLE_CALL in intervention.sites:
            return intervention.attend(call, layer, queries, keys)
        return call.proceed()

    def _tokens_of(self, call: AttentionCall, layer: DecoderLayer) -> tuple[Tokens, Tokens]:
        """The tokens of a call's queries and of its keys, which end at the same position."""
        batch, count = call.query.shape[0], call.query.shape[2]
        queries = Tokens(self._prompts, batch, self._pass.past, count, call.query.device)
        length = call.key.shape[2]
        if layer.attends == "cross":
            return queries, replace(queries, start=0, count=length, image_features=True)
        start = max(0, queries.start + count - length)  # a sliding window drops the first keys
        return queries, replace(queries, start=start, count=length)

    def _module_hooks(self, intervention: Intervention) -> Iterator[RemovableHandle]:
        """The hooks of an intervention on projections and on the residual stream."""
        for layer in self._layers_of(intervention):
            for site in intervention.sites:
                function = partial(self._change, intervention, site, layer)
                if site in PROJECTIONS:
                    yield hook_projection(layer, site, function, self._shape, first=True)
                elif site == "hidden":
                    yield hook_hidden(layer, function, self._shape, first=True)

    def _change(
        self, intervention: Intervention, site: str, layer: DecoderLayer, vectors: Tensor
    ) -> Tensor:
        batch, count = vectors.shape[:2]
        tokens = Tokens(self._prompts, batch, self._pass.past, count, vectors.device)
        if layer.attends == "cross" and site in ("k_proj", "v_proj"):
            tokens = replace(tokens, start=0, image_features=True)
        return intervention.change(vectors, site, layer, tokens)


def _without(applied: list[Intervention], removed: Sequence[Intervention]) -> list[Intervention]:
    """The applied interventions less some; of one applied twice, the later is removed."""
    kept = list(applied)
    for intervention in reversed(removed):
        del kept[max(place for place, each in enumerate(kept) if each is intervention)]
    return kept
