"""Passes of a model in which attention is read: over prompts, and while tokens are generated.

The attention function is tapped by a handler that reads, so interventions have acted before. A pass
over prompts ends at the last layer that is read; neither the rest of that layer nor the
language-model head is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from keygap.bias.key_groups import GroupedAttention, KeyGroups, grouped
from keygap.capture.attention import KeyAttention, QueryGroups, attention_by_key
from keygap.contrasts.labels import SINK_SHARE
from keygap.models.attention_tap import AttentionCall, AttentionTap
from keygap.models.batch import Batch
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.vlm import VLM

Read = Callable[[DecoderLayer, AttentionCall], None]


class _LastLayerRead(Exception):
    """Raised inside a forward pass once the last wanted layer has been read."""


def read_calls(vlm: VLM, batch: Batch, layers: Sequence[int], read: Read) -> None:
    """Run a batch and show the first attention call of each layer to a function.

    Args:
        vlm: the model.
        batch: what the prompter made.
        layers: absolute indices of layers that call transformers' attention function.
        read: gets the layer and its call.
    """
    missing = set(layers)

    def read_one(layer: DecoderLayer, call: AttentionCall) -> None:
        if layer.index not in missing:
            return
        missing.discard(layer.index)
        read(layer, call)
        if not missing:
            raise _LastLayerRead

    with torch.inference_mode(), suppress(_LastLayerRead), _tapped(vlm, layers, read_one):
        vlm.forward(batch)
    if missing:
        raise RuntimeError(f"layers {sorted(missing)} never called the attention function")


def _tapped(vlm: VLM, layers: Sequence[int], read: Read) -> AttentionTap:
    owners = {id(vlm.layers[index].attention): vlm.layers[index] for index in layers}
    modules = [layer.attention for layer in owners.values() if layer.attention is not None]

    def handler(call: AttentionCall) -> Any:
        if not vlm.interventions.preparing:
            read(owners[id(call.module)], call)
        return call.proceed()

    return AttentionTap(modules, handler, reads=True)


def sinks_of(attention: KeyAttention, group: int) -> Bool[Tensor, "b s"]:
    """The keys that receive at least ``SINK_SHARE`` times their even share.

    Args:
        attention: what each key gets.
        group: the number of the query group that consists of the last positions of a prompt.
    """
    return attention.relative[:, :, group].mean(1) >= SINK_SHARE


class PromptReader:
    """Attention of query groups in a pass over prompts.

    Args:
        vlm: the model.
        batch: what the prompter made.
        queries: the query groups; the last one decides which keys are sinks and is not returned.

    Attributes:
        found: by layer.
        groups: the groups of keys, by layer.
        odd: layers whose keys are not the positions of the prompt, and which are not read.
    """

    def __init__(self, vlm: VLM, batch: Batch, queries: QueryGroups) -> None:
        self.vlm, self.batch, self.queries = vlm, batch, queries
        self.found: dict[int, GroupedAttention] = {}
        self.groups: dict[int, KeyGroups] = {}
        self.odd: set[int] = set()
        self._tokens = KeyGroups.of_tokens(batch)
        self._features: dict[int, KeyGroups] = {}

    def run(self, layers: Sequence[int]) -> None:
        """Read these layers."""
        read_calls(self.vlm, self.batch, layers, self.read)

    def read(self, layer: DecoderLayer, call: AttentionCall) -> None:
        """Read one call."""
        groups = self.groups_of(layer, call)
        if groups is None:
            self.odd.add(layer.index)
            return
        attention = attention_by_key(call, self.queries)
        found = grouped(attention, groups, sinks_of(attention, -1))
        self.found[layer.index] = replace(
            found, sums=found.sums[..., :-1, :], seen=found.seen[:, :-1]
        )
        self.groups[layer.index] = groups

    def groups_of(self, layer: DecoderLayer, call: AttentionCall) -> KeyGroups | None:
        """The groups of a call's keys; None if the keys are not the positions of the prompt."""
        count = call.key.shape[2]
        if layer.attends == "cross":
            if count not in self._features:
                self._features[count] = KeyGroups.of_features(self.vlm, self.batch, count)
            return self._features[count]
        fits = call.query.shape[2] == count == self._tokens.codes.shape[1]
        return self._tokens if fits else None


class GenerationReader:
    """Attention of generated tokens, read while they are generated greedily.

    A token is a query in the pass after the one that chose it, so one token more is generated than
    is read. Tokens after the end of an answer are not counted.

    Args:
        vlm: the model.
        batch: prompts of one length.
        queries: the last positions of each prompt, which decide which keys are sinks.

    Attributes:
        found: means over the generated tokens, by layer.
        groups: the groups of keys, by layer.
        odd: layers whose keys are not the positions of the prompt, and which are not read.
        steps: how many tokens of each prompt were read.
    """

    def __init__(self, vlm: VLM, batch: Batch, queries: QueryGroups) -> None:
        self._prompts = PromptReader(vlm, batch, queries)
        self.vlm, self.batch = vlm, batch
        self.found: dict[int, GroupedAttention] = {}
        self.groups: dict[int, KeyGroups] = {}
        self.steps = torch.zeros(len(batch.labels))
        self._sinks: dict[int, Bool[Tensor, "b s"]] = {}
        self._length: dict[int, int] = {}  # positions of each layer's queries so far
        self._ends = _Ends(vlm)

    @property
    def odd(self) -> set[int]:
        """The layers that were not read."""
        return self._prompts.odd

    def run(self, layers: Sequence[int], tokens: int) -> None:
        """Generate tokens and read these layers.

        Args:
            layers: absolute indices of layers that call transformers' attention function.
            tokens: generated tokens of each prompt that are read, at most.
        """
        with torch.inference_mode(), _tapped(self.vlm, layers, self.read):
            self.vlm.generate(
                self.batch,
                max_new_tokens=tokens + 1,
                do_sample=False,
                num_beams=1,
                stopping_criteria=StoppingCriteriaList([self._ends]),
            )
        self.steps = self._ends.steps
        for index, sums in self.found.items():
            steps = self.steps.clamp_min(1).to(sums.sums.device)
            self.found[index] = replace(
                sums,
                sums=sums.sums / steps[:, None, None, None],
                seen=sums.seen / steps[:, None, None],
            )

    def read(self, layer: DecoderLayer, call: AttentionCall) -> None:
        """Read one call: of the prompt's pass the sinks, of every later one the new token."""
        index = layer.index
        if index in self.odd:
            return
        if index not in self._sinks:
            groups = self._prompts.groups_of(layer, call)
            if groups is None:
                self.odd.add(index)
                return
            attention = attention_by_key(call, self._prompts.queries)
            self._sinks[index] = sinks_of(attention, -1)
            self.groups[index], self._length[index] = groups, call.query.shape[2]
            return
        self._length[index] += call.query.shape[2]
        self._add(layer, call)

    def _add(self, layer: DecoderLayer, call: AttentionCall) -> None:
        """Add the attention of the newest token to the sums of a layer."""
        index, count, batch = layer.index, call.key.shape[2], len(call.key)
        groups, sinks = self.groups[index], self._sinks[index]
        alive = self._ends.alive.float()[:, None, None]
        last = torch.full((batch, 1), call.query.shape[2] - 1)
        attention = attention_by_key(call, QueryGroups(last, alive))
        if layer.attends == "self":
            total = self._length[index]
            groups = groups.extended(total)
            new = sinks.new_zeros(batch, total - sinks.shape[1])
            kept = slice(total - count, None)  # a sliding window drops the first keys
            groups = replace(groups, codes=groups.codes[:, kept])
            sinks = torch.cat([sinks, new], 1)[:, kept]
        step = grouped(attention, groups, sinks)
        if before := self.found.get(index):
            step = GroupedAttention(
                sums=before.sums + step.sums,
                seen=before.seen + step.seen,
                size=torch.maximum(before.size, step.size),
            )
        self.found[index] = step


class _Ends(StoppingCriteria):
    """Notes which prompts of a batch are still being answered; it never stops generation."""

    def __init__(self, vlm: VLM) -> None:
        config: Any = vlm.model.generation_config
        ends = config.eos_token_id
        self._ends = torch.tensor([] if ends is None else ends, dtype=torch.long).reshape(-1)
        self.alive = torch.zeros(0, dtype=torch.bool)
        self.steps = torch.zeros(0)

    def __call__(self, input_ids: Tensor, scores: Any, **keywords: Any) -> Any:
        """See the newest token of each prompt, before it becomes a query."""
        if not len(self.alive):
            self.alive = torch.ones(len(input_ids), dtype=torch.bool)
            self.steps = torch.zeros(len(input_ids))
        else:
            self.steps += self.alive  # the token before was read
        self.alive = self.alive & ~torch.isin(input_ids[:, -1].cpu(), self._ends)
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
