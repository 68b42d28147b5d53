"""Which vectors of a forward pass are kept; the others never leave the device.

A prompt has hundreds or thousands of image tokens, and a measurement uses a few of each sample,
because samples are its unit. So at most a number of image tokens of a sample is drawn, by a seed
and the sample's id alone: the draw does not depend on the batch, the layer or the machine. Text
tokens are all kept.

Attention sinks are few and would rarely be drawn, and contrasts ask for them by name. The image
tokens that receive most attention at a layer are therefore kept there beside those that were drawn,
if they are sinks, and marked: a selection by attention would distort every other contrast.

A layer is chosen from as soon as it has been read, so that a pass holds one whole layer at a time.
Which rows are wanted is known before the pass, and sinks are found without waiting for the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from keygap import random_streams
from keygap.benchmarks import Sample
from keygap.capture.features import feature_labels, visible_features
from keygap.capture.hooks import ATTENTION, Key
from keygap.capture.sites import SITES
from keygap.contrasts.labels import SINK_SHARE
from keygap.models.batch import Batch
from keygap.models.vlm import VLM
from keygap.tokens import TokenLabels

SINKS = 16  # most image tokens of a sample that a layer keeps because they are sinks


@dataclass(frozen=True)
class Draw:
    """How many image tokens of a sample are kept.

    Attributes:
        image_tokens: at most this many; None keeps all.
        seed: of the draw.
    """

    image_tokens: int | None = None
    seed: int = 0

    def mask(self, labels: TokenLabels, sample_id: str) -> Bool[np.ndarray, " n"]:
        """Which tokens of a sample are kept at every layer: text, and image tokens that are drawn.

        One image token is drawn from each of as many runs of neighbours, so that all parts of an
        image, and all images, have their share. Where the first run begins is random too, so every
        token is as likely to be drawn as any other.

        Args:
            labels: of the sample's tokens.
            sample_id: the sample.
        """
        kept = np.ones(len(labels), dtype=bool)
        image = np.flatnonzero(labels.modality != "text")
        if self.image_tokens is None or len(image) <= self.image_tokens:
            return kept
        rng = random_streams.generator(self.seed, "kept image tokens", sample_id)
        width = len(image) / self.image_tokens
        ends = np.floor(width * (rng.random() + np.arange(self.image_tokens + 1))).astype(int)
        places = ends[:-1] + np.floor(rng.random(self.image_tokens) * np.diff(ends)).astype(int)
        kept[image] = False
        kept[image[places % len(image)]] = True
        return kept


ALL = Draw()


@dataclass(frozen=True)
class KeptVectors:
    """The vectors of one site and layer that are kept of a batch, by row and then by place.

    Attributes:
        row: which prompt of the batch.
        place: which of the prompt's tokens, or of its image features.
        drawn: False for an image token that is kept because it is a sink.
        attention: what the token receives, in multiples of its even share; NaN if not measured.
        vectors: on the CPU, in the dtype of the pass.
        of_features: whether these are image features that are not in the prompt.
    """

    row: Int[np.ndarray, " n"]
    place: Int[np.ndarray, " n"]
    drawn: Bool[np.ndarray, " n"]
    attention: Float[np.ndarray, " n"]
    vectors: Float[Tensor, "n heads head_dim"]
    of_features: bool

    def take(self, chosen: np.ndarray) -> KeptVectors:
        """Some of the vectors, by a mask or by their indices."""
        return KeptVectors(
            self.row[chosen],
            self.place[chosen],
            self.drawn[chosen],
            self.attention[chosen],
            self.vectors.index_select(0, torch.from_numpy(np.arange(len(self.row))[chosen])),
            self.of_features,
        )


class Keeper:
    """Chooses what is kept of one pass, layer by layer, and checks that every vector is finite.

    It is given to ``Capture`` with the batch. ``vectors`` and ``failures`` are read after the pass.

    Args:
        vlm: the model.
        samples: the samples of the batch.
        batch: their inputs and labels.
        draw: how many image tokens of each sample are kept.
    """

    def __init__(self, vlm: VLM, samples: Sequence[Sample], batch: Batch, draw: Draw = ALL) -> None:
        self.vlm, self.batch, self.draw = vlm, batch, draw
        self.ids = [sample.id for sample in samples]
        self.features: dict[int, TokenLabels] = {}  # of cross-attention layers, by row
        self._choices: dict[bool, _Choice] = {}
        self._pending: dict[Key, _Copy] = {}
        self._bad: dict[Key, Bool[Tensor, " b"]] = {}
        self._gpus: set[torch.device] = set()

    def __call__(self, layer: int, read: Mapping[str, Tensor]) -> None:
        """Take what was read at a layer.

        Args:
            layer: its absolute index.
            read: vectors (batch, tokens, heads, head_dim) by site, and under ``ATTENTION`` what
                each position receives, (batch, tokens).
        """
        across = self.vlm.layers[layer].attends == "cross"
        shares = read.get(ATTENTION)
        # Sites of one kind keep the same rows. The residual stream that enters the first layer on a
        # GPU is still on the one before.
        rows: dict[tuple[bool, torch.device], _Rows] = {}
        for name, tensor in read.items():
            of_features = across and (name == ATTENTION or SITES[name].of_keys)
            choice = self._choice(of_features, tensor.shape[1])
            self._bad[name, layer] = choice.not_finite(tensor)
            if name == ATTENTION:
                continue
            place = (of_features, tensor.device)
            if place not in rows:
                received = shares if of_features or not across else None  # queries receive none
                rows[place] = choice.rows(tensor.device, received)
            self._pending[name, layer] = rows[place].copy(tensor)
            if tensor.is_cuda:
                self._gpus.add(tensor.device)

    @cached_property
    def failures(self) -> dict[int, str]:
        """The rows of the batch with a vector that is not finite, and where the first one is."""
        found: dict[int, str] = {}
        kind = str(self.vlm.dtype).removeprefix("torch.")
        if not self._bad:
            return found
        bad = torch.stack([one.cpu() for one in self._bad.values()]).numpy()
        for row in np.flatnonzero(bad.any(axis=0)):
            site, layer = list(self._bad)[int(np.argmax(bad[:, row]))]
            found[int(row)] = f"{site} of layer {layer} is not finite in {kind}: try another dtype"
        return found

    def vectors(self) -> Mapping[Key, KeptVectors]:
        """What is kept of the good samples, by site and layer.

        The copies have arrived. They are arranged when they are asked for, which may be in another
        thread.
        """
        for gpu in self._gpus:
            torch.cuda.synchronize(gpu)  # copies to pinned memory do not wait
        for choice in self._choices.values():
            choice.leave_devices()
        good = np.ones(len(self.ids), dtype=bool)
        good[list(self.failures)] = False
        return _Arrived(self._pending, good)

    def _choice(self, of_features: bool, count: int) -> _Choice:
        """Which of the prompts' tokens, or of their image features, are kept."""
        if of_features not in self._choices:
            labels = self._feature_labels(count) if of_features else list(self.batch.labels)
            real = np.zeros((len(labels), count), dtype=bool)
            kept, image = real.copy(), real.copy()
            visible = visible_features(self.batch.inputs, count).cpu() if of_features else None
            for row, (own, name) in enumerate(zip(labels, self.ids, strict=True)):
                places = (
                    np.arange(len(own)) if visible is None else np.flatnonzero(visible[row].numpy())
                )
                real[row, places] = True
                kept[row, places] = self.draw.mask(own, name)
                image[row, places] = own.modality != "text"
            # attention sees the padding of image features, so that it must be finite, too
            checked = np.ones_like(real) if of_features else real
            self._choices[of_features] = _Choice(checked, kept, image & ~kept, of_features)
        return self._choices[of_features]

    def _feature_labels(self, count: int) -> list[TokenLabels]:
        image = self.vlm.prompter.image_tokens
        found = [
            feature_labels(self.batch.inputs, row, count, image.ids[0], image.placeholder)
            for row in range(len(self.ids))
        ]
        self.features = dict(enumerate(found))
        return found


class _Arrived(Mapping[Key, KeptVectors]):
    """What is kept of a pass, arranged each time it is asked for.

    To arrange it takes about as long as to copy all vectors twice. The GPU would wait for that if
    it were done between two passes, so it is left to whoever writes the part. Until then the
    vectors of two parts are in pinned memory, which the system cannot swap out.

    Args:
        copies: the vectors, by site and layer.
        good: which rows of the batch are kept.
    """

    def __init__(self, copies: Mapping[Key, _Copy], good: Bool[np.ndarray, " b"]) -> None:
        self._copies, self._good = copies, good

    def __getitem__(self, key: Key) -> KeptVectors:
        kept = self._copies[key].arranged()
        return kept if self._good.all() else kept.take(self._good[kept.row])

    def __contains__(self, key: object) -> bool:
        return key in self._copies

    def __iter__(self) -> Iterator[Key]:
        return iter(self._copies)

    def __len__(self) -> int:
        return len(self._copies)


@dataclass(frozen=True)
class _Choice:
    """Which vectors of a padded batch are kept.

    Attributes:
        checked: those that must be finite.
        kept: those that are kept at every layer.
        spare: the image tokens that were not drawn, of which sinks are kept.
        of_features: whether the vectors are those of image features.
    """

    checked: Bool[np.ndarray, "b t"]
    kept: Bool[np.ndarray, "b t"]
    spare: Bool[np.ndarray, "b t"]
    of_features: bool

    @cached_property
    def count(self) -> int:
        """How many vectors are kept at every layer."""
        return int(self.kept.sum())

    def not_finite(self, tensor: Float[Tensor, "b t ..."]) -> Bool[Tensor, " b"]:
        """The rows that have a number that is not finite, without waiting for the device."""
        found = tensor.detach()
        if found.ndim > 2:
            # A sum reads the numbers once and needs no mask of them. It also overflows near the
            # largest number of float32, where a vector is of no use either.
            wide = torch.promote_types(found.dtype, torch.float32)
            found = found.flatten(2).sum(-1, dtype=wide)
        return (~found.isfinite() & self._on(tensor.device, "checked")).any(1)

    def rows(self, device: torch.device, received: Float[Tensor, "b t"] | None) -> _Rows:
        """The rows of a layer that are copied: those that are kept, and what may be a sink."""
        index = self._on(device, "index")
        if received is None:
            return _Rows(self, index, _to_cpu(index), None)
        received = received.to(device)
        if self.spare.any():
            index = torch.cat([index, self._sinks(received)])
        shares = received.flatten().index_select(0, index)
        return _Rows(self, index, _to_cpu(index), _to_cpu(shares))

    def _sinks(self, received: Float[Tensor, "b t"]) -> Int[Tensor, " n"]:
        """The image tokens that receive most, of those that were not drawn."""
        spare = self._on(received.device, "spare")
        count = min(SINKS, int(self.spare.sum(axis=1).max()))
        most = received.masked_fill(~spare, -1.0).topk(count, dim=1).indices
        first = torch.arange(len(most), device=most.device)[:, None] * received.shape[1]
        return (most + first).flatten()

    def _on(self, device: torch.device, name: str) -> Tensor:
        """One of the arrays on a device, copied there once."""
        key = (name, str(device))
        if key not in self._copies:
            array = np.flatnonzero(self.kept) if name == "index" else getattr(self, name)
            self._copies[key] = torch.from_numpy(array).to(device)
        return self._copies[key]

    def leave_devices(self) -> None:
        """Free what was copied to devices; a pass is over, and what is kept of it stays long."""
        self._copies.clear()

    @cached_property
    def _copies(self) -> dict[tuple[str, str], Tensor]:
        return {}


@dataclass(frozen=True)
class _Rows:
    """The rows of a layer that are copied, of all prompts of a batch one after another.

    Attributes:
        choice: what they come from.
        index: the rows, on the device.
        on_cpu: the same, on their way to the CPU.
        shares: the attention that each receives, on its way to the CPU; None if not measured.
    """

    choice: _Choice
    index: Int[Tensor, " n"]
    on_cpu: Int[Tensor, " n"]
    shares: Float[Tensor, " n"] | None

    def copy(self, tensor: Float[Tensor, "b t heads head_dim"]) -> _Copy:
        """Begin to copy these rows of a site to the CPU."""
        vectors = _to_cpu(tensor.detach().flatten(0, 1).index_select(0, self.index))
        return _Copy(self.choice, self.on_cpu, self.shares, vectors)


@dataclass(frozen=True)
class _Copy:
    """Vectors on their way to the CPU. Nothing of it is on a device.

    Attributes:
        choice: what they come from.
        index: their rows, of all prompts of a batch one after another.
        shares: the attention that each receives; None if not measured.
        vectors: the vectors.
    """

    choice: _Choice
    index: Int[Tensor, " n"]
    shares: Float[Tensor, " n"] | None
    vectors: Float[Tensor, "n heads head_dim"]

    def arranged(self) -> KeptVectors:
        """The vectors by row and place, without the tokens that turned out to be no sinks."""
        choice, shares = self.choice, self.shares
        index, width, count = self.index.numpy(), choice.kept.shape[1], choice.count
        attention = (
            np.full(len(index), np.nan, np.float32) if shares is None else shares.float().numpy()
        )
        drawn = choice.kept.ravel()[index]
        wanted = np.ones(len(index), dtype=bool)
        # topk also returned tokens that are not spare, in rows with few of them
        spare = choice.spare.ravel()[index[count:]]
        wanted[count:] = spare & (attention[count:] >= SINK_SHARE)
        found = KeptVectors(
            index // width, index % width, drawn, attention, self.vectors, choice.of_features
        )
        if wanted.all() and (np.diff(index) > 0).all():
            return found
        order = np.argsort(index, kind="stable")
        return found.take(order[wanted[order]])


def _to_cpu(tensor: Tensor) -> Tensor:
    """A copy on the CPU; from a GPU it is not waited for."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    target = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return target.copy_(tensor, non_blocking=True)
