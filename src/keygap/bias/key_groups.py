"""Groups of keys: which tokens share a row of the attention table.

A group is what a token is (modality, role, image, frame, whether it is the first of its prompt).
Attention sinks are kept apart from the other tokens of their group; whether a token is a sink is
known only at a layer, so each group has two numbers, ``2 g`` and for sinks ``2 g + 1``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from keygap.capture.attention import KeyAttention
from keygap.capture.features import feature_labels, visible_features
from keygap.models.batch import Batch
from keygap.models.positions import GENERATED, PromptLabels
from keygap.models.vlm import VLM
from keygap.tokens import TokenLabels


class KeyGroup(NamedTuple):
    """What the tokens of a group have in common; -1 for an image or frame that does not apply."""

    modality: str
    role: str
    image: int
    frame: int
    first: bool


NEW = KeyGroup(*GENERATED, -1, -1, False)  # generated tokens


@dataclass(frozen=True)
class KeyGroups:
    """The groups of a batch's keys at one kind of layer.

    Attributes:
        groups: what each group is.
        codes: the number of each key's group in ``groups``; -1 for padding.
        new: the number of the group of generated tokens.
    """

    groups: tuple[KeyGroup, ...]
    codes: Int[Tensor, "b s"]
    new: int

    @classmethod
    def of_tokens(cls, batch: Batch) -> KeyGroups:
        """The groups of the tokens of a batch's prompts, which are the keys of self-attention."""
        prompts = PromptLabels.of(batch)
        places = [
            np.arange(start, start + len(own))
            for start, own in zip(prompts.starts, prompts.labels, strict=True)
        ]
        return cls._of(prompts.labels, places, prompts.width, has_first=True)

    @classmethod
    def of_features(cls, vlm: VLM, batch: Batch, count: int) -> KeyGroups:
        """The groups of image features, which are the keys of a cross-attention layer.

        Args:
            vlm: the model.
            batch: what the prompter made.
            count: keys of each prompt at the layer.
        """
        image = vlm.prompter.image_tokens
        shown = visible_features(batch.inputs, count).cpu().numpy()
        labels = [
            feature_labels(batch.inputs, row, count, image.ids[0], image.placeholder)
            for row in range(len(batch.labels))
        ]
        return cls._of(labels, [np.flatnonzero(row) for row in shown], count, has_first=False)

    @classmethod
    def _of(
        cls,
        labels: Sequence[TokenLabels],
        places: Sequence[Int[np.ndarray, " n"]],
        width: int,
        *,
        has_first: bool,
    ) -> KeyGroups:
        known: dict[KeyGroup, int] = {NEW: 0}
        codes = np.full((len(labels), width), -1, np.int64)
        for row, own, position in zip(codes, labels, places, strict=True):
            first = np.arange(len(own)) == (0 if has_first else -1)
            columns = (own.modality, own.role, own.image, own.frame, first)
            found = map(KeyGroup, *(column.tolist() for column in columns))
            row[position] = [known.setdefault(group, len(known)) for group in found]
        return cls(tuple(known), torch.from_numpy(codes), known[NEW])

    def extended(self, length: int) -> KeyGroups:
        """The same groups with generated tokens after the prompt, up to a number of keys."""
        new = self.codes.new_full((len(self.codes), length - self.codes.shape[1]), self.new)
        return KeyGroups(self.groups, torch.cat([self.codes, new], 1), self.new)


@dataclass(frozen=True)
class GroupedAttention:
    """Attention of groups of queries (``q``) over groups of keys (``g``, sinks apart).

    Attributes:
        sums: mass, relative attention, entropy and logit, summed over the keys of a group.
        seen: the mean number of keys of the group that a query sees.
        size: keys of the group.
    """

    sums: Float[Tensor, "4 b heads q g"]
    seen: Float[Tensor, "b q g"]
    size: Float[Tensor, "b g"]


def grouped(
    attention: KeyAttention,
    groups: KeyGroups,
    sinks: Bool[Tensor, "b s"],
) -> GroupedAttention:
    """Sum the attention of single keys over groups of keys.

    Args:
        attention: what each key gets.
        groups: the group of each key.
        sinks: which keys are attention sinks.
    """
    codes = groups.codes.to(sinks.device)
    numbers = torch.where(codes < 0, 2 * len(groups.groups), 2 * codes + sinks)
    one_hot = torch.nn.functional.one_hot(numbers, 2 * len(groups.groups) + 1)[..., :-1].float()
    values = (attention.mass, attention.relative, attention.entropy, attention.logit)
    return GroupedAttention(
        sums=torch.stack([value @ one_hot[:, None] for value in values]),
        seen=attention.seen[:, 0] @ one_hot,
        size=one_hot.sum(1),
    )
