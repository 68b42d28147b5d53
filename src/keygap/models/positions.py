"""Which token is at which position of a forward pass.

Labels belong to the tokens of a prompt. A forward pass sees other ranges of positions: the whole
prompt, padded; with a cache, only the newest token as a query, and as keys everything before it, or
a sliding window of it. A generated token is text of role ``answer``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from keygap.errors import UserError, unknown
from keygap.models.batch import Batch
from keygap.tokens import MODALITIES, TEXT_ROLES, TokenLabels

TOKEN_NAMES = (*MODALITIES, *TEXT_ROLES, "thumbnail")
GENERATED = ("text", "answer")  # what a generated token is
VISUAL = ("image", "video")
SHOWS_NONE = ("separator", "padding")  # roles of image tokens that show no part of an image
MOST_RANGES = 64  # masks that are kept
_NO_LABELS = (
    "an intervention chooses tokens by their labels, and this pass has none: give the prompter's "
    "batch to vlm.forward, vlm.generate or a Capture"
)


def known_tokens(names: str | Sequence[str]) -> tuple[str, ...]:
    """The same names of modalities and roles, as a tuple.

    Raises:
        UserError: no name, or one that no token can have.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if name not in TOKEN_NAMES:
            raise unknown("kind of token", name, TOKEN_NAMES)
    if not names:
        raise UserError(f"no kind of token: choose among {', '.join(TOKEN_NAMES)}")
    return names


@dataclass
class PromptLabels:
    """The labels of a batch's prompts, where they are in the padded batch.

    Attributes:
        labels: of each prompt.
        starts: the position of each prompt's first token.
        width: tokens of the padded batch.
    """

    labels: tuple[TokenLabels, ...]
    starts: tuple[int, ...]
    width: int
    _masks: dict[Hashable, Tensor] = field(default_factory=dict, repr=False)
    _ranges: dict[Hashable, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, batch: Batch) -> PromptLabels:
        """The labels of a batch; its attention mask says on which side it is padded."""
        mask = batch.inputs.get("attention_mask")
        starts = (0,) * len(batch.labels)
        if mask is not None and mask.ndim == 2:
            starts = tuple(int(start) for start in mask.long().argmax(1))
        return cls(batch.labels, starts, int(batch.inputs["input_ids"].shape[1]))

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """The position of each prompt's last token, any answer that follows left out."""
        return tuple(
            start + int(np.flatnonzero(labels.role != "answer")[-1])
            for start, labels in zip(self.starts, self.labels, strict=True)
        )

    def are(
        self, names: tuple[str, ...], device: torch.device, *, parts_only: bool = False
    ) -> Bool[Tensor, "b width"]:
        """Which positions are of one of these modalities or roles; padding is of none.

        Args:
            names: of modalities and roles.
            device: of the mask.
            parts_only: whether image tokens that show no part of an image (row ends, and patches of
                what a processor puts around the image) are left out.
        """
        key = (names, parts_only)
        if key not in self._masks:
            mask = np.zeros((len(self.labels), self.width), dtype=bool)
            for row, start, labels in zip(mask, self.starts, self.labels, strict=True):
                chosen = np.isin(labels.modality, names) | np.isin(labels.role, names)
                if parts_only:
                    visual = np.isin(labels.modality, VISUAL)
                    chosen &= ~(visual & np.isin(labels.role, SHOWS_NONE))
                row[start : start + len(labels)] = chosen
            self._masks[key] = torch.from_numpy(mask)
        if self._masks[key].device != device:
            self._masks[key] = self._masks[key].to(device)
        return self._masks[key]

    def kept(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """A mask of a range of positions, made once for all layers of a pass."""
        if key not in self._ranges:
            if len(self._ranges) >= MOST_RANGES:  # of earlier passes, while tokens are generated
                self._ranges.clear()
            self._ranges[key] = make()
        return self._ranges[key]


@dataclass(frozen=True)
class Tokens:
    """The tokens at consecutive positions of a pass, by which an intervention chooses.

    Attributes:
        prompts: the labels of the batch, None if the pass was given none.
        batch: rows of the pass: several for each prompt in a beam search.
        start: the first position.
        count: how many positions.
        device: where masks are needed.
        image_features: whether these are keys of a cross-attention layer: image features, which
            have no position in the prompt.
    """

    prompts: PromptLabels | None
    batch: int
    start: int
    count: int
    device: torch.device
    image_features: bool = False

    def are(self, names: tuple[str, ...], *, parts_only: bool = False) -> Bool[Tensor, "b count"]:
        """Which tokens are of one of these modalities or roles.

        Args:
            names: of modalities and roles.
            parts_only: whether image tokens that show no part of an image are left out.

        Returns:
            A mask that other layers get too: do not change it in place.

        Raises:
            UserError: the pass has no labels.
        """
        if self.image_features:
            return self._full("image" in names, self.count)
        if self.prompts is None:
            raise UserError(_NO_LABELS)
        key = (names, parts_only, self.batch, self.start, self.count, self.device)
        return self.prompts.kept(key, lambda: self._are(names, parts_only))

    def _are(self, names: tuple[str, ...], parts_only: bool) -> Bool[Tensor, "b count"]:
        assert self.prompts is not None
        mask = self.prompts.are(names, self.device, parts_only=parts_only)
        prompt = mask[:, self.start : self.start + self.count]
        prompt = prompt.repeat_interleave(self.batch // len(self.prompts.labels), dim=0)
        new = any(name in GENERATED for name in names)
        return torch.cat([prompt, self._full(new, self.count - prompt.shape[1])], dim=1)

    def last(self) -> Int[Tensor, " b"]:
        """Where each prompt's last token is, counted from the first of these positions."""
        if self.prompts is None:
            raise UserError(_NO_LABELS)
        ends = torch.tensor(self.prompts.ends, device=self.device)
        return ends.repeat_interleave(self.batch // len(ends)) - self.start

    def _full(self, value: bool, count: int) -> Tensor:
        return torch.full((self.batch, count), value, device=self.device)
