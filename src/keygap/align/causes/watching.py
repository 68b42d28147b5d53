"""What a pass shows of keys, attention and image tokens while answers are scored.

The experiment needs all of them at every intervention, and a pass of its own for each would cost as
much as the answers do. So they are read from the pass that scores the answers without a hint. Only
means over tokens and a few fixed tokens of each sample are kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keygap import random_streams
from keygap.benchmarks import Sample
from keygap.bias.scoring import Prepared
from keygap.capture.attention import attention_at
from keygap.models.attention_tap import AttentionCall, AttentionTap
from keygap.models.batch import Batch
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.positions import PromptLabels
from keygap.models.projections import PROJECTIONS
from keygap.models.prompting.answers import with_answers
from keygap.models.site_hooks import hook_hidden, hook_projection
from keygap.models.vlm import VLM

IMAGE = ("image", "video")
TOKENS = 8  # of each sample and modality, whose vectors are kept


@dataclass
class Seen:
    """What was read of some samples.

    Attributes:
        image: vectors of chosen image tokens by layer: (n, tokens, width) for each batch.
        text: those of text tokens, and which of them exist.
        attention: share of the last position's attention that the image gets, by layer: (n).
        states: mean residual stream of image tokens by layer: (n, width).
        ids: the samples, in order.
    """

    image: dict[int, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    text: dict[int, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    attention: dict[int, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    states: dict[int, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Chosen:
    """Tokens of a batch that are read.

    Attributes:
        ids: the samples.
        shape: prompts and tokens of the pass.
        image: which positions are image tokens.
        places: positions of the image and of the text tokens whose vectors are kept, -1 for none.
        last: the last position of each prompt, any answer that follows left out.
    """

    ids: list[str]
    shape: tuple[int, int]
    image: Bool[Tensor, "b t"]
    places: dict[str, np.ndarray]
    last: Tensor

    @classmethod
    def of(cls, samples: Sequence[Sample], batch: Batch, roles: Sequence[str], seed: int) -> Chosen:
        """Choose at most ``TOKENS`` image and text tokens of each sample, the same in any batch."""
        prompts = PromptLabels.of(batch)
        shape = (len(samples), prompts.width)
        image = np.zeros(shape, dtype=bool)
        places = {name: np.full((len(samples), TOKENS), -1) for name in ("image", "text")}
        for row, (sample, labels, start) in enumerate(
            zip(samples, prompts.labels, prompts.starts, strict=True)
        ):
            shown = np.isin(labels.modality, IMAGE) & ~np.isin(
                labels.role, ("separator", "padding")
            )
            said = (labels.modality == "text") & np.isin(labels.role, list(roles))
            said &= labels.role != "answer"
            image[row, start : start + len(labels)] = np.isin(labels.modality, IMAGE)
            for name, mask in (("image", shown), ("text", said)):
                rng = random_streams.generator(seed, "causes", "tokens", name, sample.id)
                own = np.sort(rng.permutation(np.flatnonzero(mask))[:TOKENS]) + start
                places[name][row, : len(own)] = own
        ids = [sample.id for sample in samples]
        return cls(ids, shape, torch.from_numpy(image), places, torch.tensor(prompts.ends))

    @classmethod
    def of_passes(cls, vlm: VLM, ready: Prepared, roles: Sequence[str], seed: int) -> list[Chosen]:
        """Choose tokens in the first pass over each group of samples that are ready to be scored.

        Where whole answers are scored, the first spelling of the first candidate follows each
        prompt in that pass, unless an encoder reads the prompts.
        """
        found = []
        for way, samples, batch, spelled in ready.groups:
            if way == "whole answers" and not vlm.model.config.is_encoder_decoder:
                answers = [next(iter(names.values()))[0] for names in spelled]
                batch = with_answers(batch, answers, vlm.prompter.tokenizer)
            found.append(cls.of(samples, batch, roles, seed))
        return found


class Watch:
    """Reads passes of a model that others make.

    Args:
        vlm: the model.
        site: whose vectors are kept.
        gap_layers: where.
        state_layers: where the residual stream of image tokens is kept.
        attention_layers: where attention to the image is kept, of those with self-attention.

    Attributes:
        seen: what was read.
    """

    def __init__(
        self,
        vlm: VLM,
        site: str,
        gap_layers: Sequence[int],
        state_layers: Sequence[int],
        attention_layers: Sequence[int],
    ) -> None:
        self.vlm, self.site = vlm, site
        self.gap_layers, self.state_layers = list(gap_layers), list(state_layers)
        self.attention_layers = list(attention_layers)
        self.seen = Seen()
        self._chosen: Chosen | None = None
        self._read: set[tuple[str, int]] = set()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Set what reads; passes are read inside ``reading`` only."""
        with ExitStack() as hooks:
            for index in self.state_layers:
                keep = partial(self._keep_states, index)
                handle = hook_hidden(self.vlm.layers[index], keep, self._shape)
                hooks.callback(handle.remove)
            if self.site in PROJECTIONS:
                for index in self.gap_layers:
                    keep = partial(self._keep_vectors, index)
                    layer = self.vlm.layers[index]
                    handle = hook_projection(layer, self.site, keep, self._shape)
                    hooks.callback(handle.remove)
            tapped = {*self.attention_layers, *(self.gap_layers if self.site == "key" else ())}
            layers = [each for each in self.vlm.layers if each.index in tapped]
            owners = {id(each.attention): each for each in layers}
            modules = [each.attention for each in owners.values() if each.attention is not None]
            if modules:
                tap = AttentionTap(modules, partial(self._attend, owners), reads=True)
                hooks.enter_context(tap)
            yield

    @contextmanager
    def reading(self, chosen: Chosen) -> Iterator[None]:
        """Read the first pass of the model over a batch in a block."""
        self._chosen, self._read = chosen, set()
        try:
            yield
        finally:
            self._chosen = None
        if self._read:  # no pass is made of answers that cannot be had under an intervention
            self.seen.ids += chosen.ids

    def _shape(self) -> tuple[int, int] | None:
        if self._chosen is None or self.vlm.interventions.preparing:
            return None
        return self._chosen.shape

    def _first(self, what: str, layer: int, shape: tuple[int, ...]) -> bool:
        """Whether this is the first pass, of some prompts and tokens, that shows this at a layer.

        Raises:
            RuntimeError: the pass has another shape than the one whose tokens were chosen.
        """
        expected = self._shape()
        if (what, layer) in self._read or expected is None:
            return False
        if tuple(shape) != expected:
            raise RuntimeError(f"the pass has the shape {tuple(shape)} and not {expected}")
        self._read.add((what, layer))
        return True

    def _keep_states(self, layer: int, vectors: Float[Tensor, "b t streams width"]) -> None:
        assert self._chosen is not None
        if not self._first("states", layer, vectors.shape[:2]):
            return
        image = self._chosen.image.to(vectors.device)[..., None]
        flat = vectors.flatten(2).float()
        mean = (flat * image).sum(1) / image.sum(1).clamp_min(1)
        self.seen.states[layer].append(mean.cpu().numpy())

    def _keep_vectors(self, layer: int, vectors: Float[Tensor, "b t heads head_dim"]) -> None:
        assert self._chosen is not None
        if not self._first("vectors", layer, vectors.shape[:2]):
            return
        flat = vectors.flatten(2).float().cpu().numpy()
        rows = np.arange(len(flat))[:, None]
        for name, kept in (("image", self.seen.image), ("text", self.seen.text)):
            places = self._chosen.places[name]
            kept[layer].append(np.where(places[..., None] < 0, np.nan, flat[rows, places]))

    def _attend(self, owners: dict[int, DecoderLayer], call: AttentionCall) -> Any:
        layer = owners[id(call.module)]
        if self._shape() is not None and layer.attends == "self":
            if self.site == "key" and layer.index in self.gap_layers:
                self._keep_vectors(layer.index, call.key.transpose(1, 2))
            if layer.index in self.attention_layers:
                self._keep_attention(layer.index, call)
        return call.proceed()

    def _keep_attention(self, layer: int, call: AttentionCall) -> None:
        assert self._chosen is not None
        if not self._first("attention", layer, (len(call.query), call.query.shape[2])):
            return
        last = self._chosen.last.to(call.query.device)
        weights = attention_at(call, last[:, None]).weights[:, :, 0]
        image = self._chosen.image.to(weights.device)[:, None, :]
        self.seen.attention[layer].append((weights * image).sum(-1).mean(1).cpu().numpy())
