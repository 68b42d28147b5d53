"""Back-patching: late hidden states of image tokens replace early ones.

Nikankin et al. 2025, "Same Task, Different Circuits" (arXiv 2506.09047): image tokens come to
resemble text late, after the layers that read them. A first pass gives the hidden states of image
tokens that enter a late layer; in a second pass they take the place of those that enter an earlier
one, and are processed again from there.

A layer is named by what enters it, here and everywhere in keygap: layer l is what the paper calls
the output of layer l - 1, so the output of the last layer cannot be patched back.

The first pass runs before each pass over a batch, through ``vlm.forward`` and ``vlm.generate``, and
stops at the last layer that it needs. The other interventions act in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from keygap.align.baselines.queries import IMAGE
from keygap.arguments import whole
from keygap.capture import Capture
from keygap.errors import UserError
from keygap.models.batch import Batch
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.interventions import Intervention
from keygap.models.positions import Tokens
from keygap.models.vlm import VLM

HIDDEN = "hidden"


def back_patching(*, source: int, target: int, window: int = 1) -> BackPatching:
    """Image tokens whose late hidden states replace early ones in a second pass.

    Args:
        source: the layer before which hidden states are read.
        target: the earlier layer before which they are written.
        window: how many pairs of neighbouring layers are patched, source and target moved alike; an
            odd number (the paper uses 1, 3 and 5).

    Raises:
        UserError: a setting that is not possible. In a pass: a layer that the model does not have,
            or a model whose image tokens are not positions of the prompt.
    """
    whole(source, "source", 0)
    whole(target, "target", 0)
    if target >= source:
        raise UserError(f"target is {target} and source {source}: patch back to an earlier layer")
    if whole(window, "window", 1) % 2 == 0:
        raise UserError(f"window is {window}: an odd number is needed")
    if target < window // 2:
        raise UserError(f"a window of {window} layers around layer {target} begins below layer 0")
    return BackPatching(source, target, window)


class BackPatching(Intervention):
    """Writes late hidden states of image tokens over early ones; arguments as ``back_patching``."""

    name = "back-patching"
    sites = (HIDDEN,)

    def __init__(self, source: int, target: int, window: int) -> None:
        around = range(-(window // 2), window // 2 + 1)
        self.layers = [target + step for step in around]
        self.sources = {target + step: source + step for step in around}
        self._states: dict[int, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without the hidden states of a pass."""
        return {**vars(self), "_states": {}}

    def identity(self) -> dict[str, Any]:
        """Name, layers and sites, and the layer that each layer's states come from."""
        return {**super().identity(), "sources": list(self.sources.values())}

    def prepare(self, vlm: VLM, batch: Batch | Mapping[str, Any]) -> None:
        """Read the late hidden states in a first pass."""
        if vlm.fusion == "cross-attention":
            raise UserError(
                f"image tokens are not positions of the prompt of {vlm.name}, whose text attends "
                f"to image features: there are no hidden states for {self.name!r}"
            )
        if (last := max(self.sources.values())) >= len(vlm.layers):
            raise UserError(
                f"{self.name!r} reads before layer {last}: {vlm.name} has {len(vlm.layers)} layers "
                f"(0 to {len(vlm.layers) - 1})"
            )
        with Capture(vlm, [HIDDEN], sorted(self.sources.values())) as capture:
            read = capture(batch)
        self._states = {target: read[HIDDEN, late] for target, late in self.sources.items()}

    def change(
        self,
        vectors: Float[Tensor, "b t streams width"],
        site: str,
        layer: DecoderLayer,
        tokens: Tokens,
    ) -> Float[Tensor, "b t streams width"]:
        """The hidden states, those of image tokens replaced."""
        image = tokens.are(IMAGE)
        late = self._states[layer.index]
        if tokens.start >= late.shape[1]:  # generated tokens show no image
            return vectors
        late = late.repeat_interleave(tokens.batch // len(late), 0).to(vectors)
        late = late[:, tokens.start : tokens.start + tokens.count]
        late = functional.pad(late, (0, 0, 0, 0, 0, tokens.count - late.shape[1]))
        return torch.where(image[:, :, None, None], late, vectors)
