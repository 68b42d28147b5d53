"""Steering of keys with the total attention to the image held, and the reverse.

A map of keys changes where the keys lie and how much attention the image gets in total. To tell
which of the two matters, each is changed without the other. At every layer both the keys as they
are and the moved keys are known, and each query's attention to the image under either:

- ``held``: the moved keys are used, and the total attention of each query and head to the image is
  what the unmoved keys of that layer give;
- ``only``: the unmoved keys are used, and the total is what the moved keys would give.

The total is set by one number for each query and head that is added to the logits of image keys,
so the shares within the image and within the rest are untouched, and attention still sums to 1.

Attention multiplies keys after norm and rotary embedding. Where a map acts before these
(``k_proj``), both versions must go through them. The attention module itself does that: its
``forward`` is run once more up to the attention call, with its projections replaced by what they
gave before, so that only norm and rotary embedding are computed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from keygap.align.map import Map
from keygap.align.steering import Mass, Steering
from keygap.capture.attention import CHUNK, logits_of, masked_logits, sink_logits
from keygap.errors import UserError
from keygap.models.attention_mask import add_key_bias, visible
from keygap.models.attention_tap import AttentionCall
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.interventions import WHOLE_CALL
from keygap.models.positions import Tokens

IMAGE = ("image", "video")
BEFORE_ROTATION = "k_proj"
AFTER_ROTATION = "key"


class MassSteering(Steering):
    """Steering of keys in which keys and total attention to the image are changed separately.

    Args:
        fitted: a map of ``k_proj`` or ``key``.
        layers: absolute indices, each a layer of the map.
        strength: as for ``Steering``.
        tokens: names of modalities and roles.
        mass: ``held`` or ``only``.

    Raises:
        UserError: the map is of another site.
    """

    def __init__(
        self,
        fitted: Map,
        layers: Sequence[int],
        strength: float,
        tokens: Sequence[str],
        mass: Mass,
    ) -> None:
        if fitted.site not in (BEFORE_ROTATION, AFTER_ROTATION):
            raise UserError(
                f"mass={mass!r} needs a map of keys ({BEFORE_ROTATION} or {AFTER_ROTATION}), and "
                f"{fitted.name} is of {fitted.site}"
            )
        super().__init__(fitted, layers, strength, tokens)
        self.mass = mass
        self.name = f"steer, mass {mass}"
        before = fitted.site == BEFORE_ROTATION
        self.sites = (BEFORE_ROTATION, WHOLE_CALL) if before else (WHOLE_CALL,)
        self._passes = {index: _Pass() for index in self.layers}

    def __getstate__(self) -> dict[str, Any]:
        """Without what is noted of a pass."""
        return {**super().__getstate__(), "_passes": {index: _Pass() for index in self.layers}}

    def identity(self) -> dict[str, Any]:
        """What ``Steering`` has, and ``mass``."""
        return {**super().identity(), "mass": self.mass}

    def hooks(self, layer: DecoderLayer) -> Iterator[RemovableHandle]:
        """Note what the attention module and its projections get and give, to run it again."""
        if self.map.site == AFTER_ROTATION or layer.attention is None:
            return
        noted = self._passes[layer.index]
        yield layer.attention.register_forward_pre_hook(noted.begin, with_kwargs=True)
        for projection in layer.projections.values():
            yield projection.module.register_forward_hook(noted.end_projection)

    def change(
        self,
        vectors: Float[Tensor, "b t heads head_dim"],
        site: str,
        layer: DecoderLayer,
        tokens: Tokens,
    ) -> Float[Tensor, "b t heads head_dim"]:
        """The key projection's vectors: moved if mass is held, else as they are."""
        moved = self.moved(vectors, layer, tokens)
        used, other = (moved, vectors) if self.mass == "held" else (vectors, moved)
        self._passes[layer.index].other = None if moved is vectors else other
        return used

    def attend(
        self, call: AttentionCall, layer: DecoderLayer, queries: Tokens, keys: Tokens
    ) -> Any:
        """Carry out the call with keys and total attention to the image changed separately."""
        if self.map.site == AFTER_ROTATION:
            own = call.key
            moved = self.moved(own.transpose(1, 2), layer, keys).transpose(1, 2)
            used, other = (moved, own) if self.mass == "held" else (own, moved)
            call = call.with_states("key", used)
        else:
            noted = self._passes[layer.index]
            if noted.asked:
                raise _Keys(noted, call.key)
            other = noted.other_keys(call, layer, queries, self.chosen(keys))
        if self.strength == 0:
            return call.proceed()
        image = keys.are(IMAGE)
        own = image_log_odds(call, image)
        bias = image_log_odds(call.with_states("key", other), image) - own
        bias = bias.masked_fill(~own.isfinite(), 0.0)  # it sees no image, or that alone
        for part in _parts(bias, call):
            call = add_key_bias(call, part, image, queries.start - keys.start)
        return call.proceed()


def image_log_odds(call: AttentionCall, image: Bool[Tensor, "b s"]) -> Float[Tensor, "b heads t"]:
    """Logarithm of each query's attention to the image over its attention to all other keys.

    It is computed in float32 from sums of exponentials of logits and not from shares, which may
    round to 0 in the precision of the model. It is infinite only where a query sees no image, or
    nothing else, and NaN where it sees neither. A learned sink, which takes attention and gives
    nothing, counts among the other keys.

    Args:
        call: one call of the attention function.
        image: which keys show an image.
    """
    places = torch.arange(call.query.shape[2], device=call.query.device)
    call = call.with_states("key", call.key.float())
    parts = [_log_odds(call, chunk.expand(len(image), -1), image) for chunk in places.split(CHUNK)]
    return torch.cat(parts, 2)


def _log_odds(
    call: AttentionCall, places: Int[Tensor, "b q"], image: Bool[Tensor, "b s"]
) -> Float[Tensor, "b heads q"]:
    """``image_log_odds`` of some queries."""
    seen = visible(call, places)
    logits = masked_logits(call, places, logits_of(call, places), seen)
    logits = logits.masked_fill(~seen, -torch.inf)
    side = image[:, None, None, :]
    least = torch.finfo(logits.dtype).min
    within, without = (logits.masked_fill(own, least).amax(-1, True) for own in (~side, side))
    each = torch.stack([image, ~image], -1)[:, None].float()
    sums = (logits - torch.where(side, within, without)).exp_() @ each
    inside, outside = (sums.log() + torch.cat([within, without], -1)).unbind(-1)
    if (sinks := sink_logits(call, places)) is not None:
        outside = torch.logaddexp(outside, sinks[..., 0])
    return inside - outside


def _parts(bias: Float[Tensor, "b heads t"], call: AttentionCall) -> Iterator[Tensor]:
    """A bias as the sum of two that the precision of the call represents.

    In bfloat16 one number would be off by 0.1 nats where the bias is 30.
    """
    kind = call.query.dtype
    most = torch.finfo(kind).max * call.scaling / 2
    bias = bias.clamp(-most, most)
    coarse = (bias / call.scaling).to(kind).float() * call.scaling
    yield coarse
    yield bias - coarse


class _Keys(Exception):
    """Raised inside an attention module that is run again, with the keys that it computed."""

    def __init__(self, owner: _Pass, keys: Tensor) -> None:
        super().__init__()
        self.owner, self.keys = owner, keys


class _Pass:
    """What is needed to run one attention module again with other key projections.

    Attributes:
        asked: whether the module is run for its keys.
        other: the key projection's vectors that the pass did not use; None if none were moved.
    """

    def __init__(self) -> None:
        self.asked = False
        self.other: Tensor | None = None
        self._arguments: tuple[Any, ...] = ()
        self._keywords: dict[str, Any] = {}
        self._given: dict[nn.Module, Tensor] = {}
        self._kept: Tensor | None = None  # other keys of all positions so far

    def begin(
        self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> None:
        """Note the arguments of the attention module."""
        self._arguments, self._keywords = arguments, keywords
        self._given = {}

    def end_projection(self, module: nn.Module, arguments: Any, output: Tensor) -> None:
        """Note what a projection gave."""
        self._given[module] = output

    def other_keys(
        self,
        call: AttentionCall,
        layer: DecoderLayer,
        queries: Tokens,
        moved: Bool[Tensor, "b s"],
    ) -> Float[Tensor, "b key_heads s head_dim"]:
        """The keys of this call in the other version.

        That is moved if the pass used unmoved keys, and the reverse. Keys that the map does not
        move are the same in both.

        Keys of earlier passes, which a cache holds, are kept here in their other version.
        """
        new = call.key[:, :, -queries.count :] if layer.attends == "self" else call.key
        if self.other is not None:
            new = self._computed(layer, self.other)
        self._arguments, self._keywords, self._given = (), {}, {}
        if queries.start == 0 or layer.attends == "cross" or self._kept is None:
            self._kept = new
            return new
        self._kept = torch.cat([self._kept, new], 2)
        kept = self._kept[:, :, -call.key.shape[2] :]
        # a beam search changes the order of the cache, in which only prompts stay what they are
        return torch.where(moved[:, None, :, None], kept, call.key)

    def _computed(self, layer: DecoderLayer, vectors: Tensor) -> Tensor:
        """Keys after norm and rotary embedding, of key projections with these vectors."""
        attention = layer.attention
        assert attention is not None
        projection = layer.projections[BEFORE_ROTATION]
        output = self._given[projection.module]
        shaped = vectors.reshape(projection.read(output).shape)
        given = {**self._given, projection.module: projection.write(output, shaped)}
        keywords = {name: _without_cache(value) for name, value in self._keywords.items()}
        arguments = [_without_cache(value) for value in self._arguments]
        self.asked = True
        try:
            with _replaced(attention, given):
                attention.forward(*arguments, **keywords)
        except _Keys as found:
            if found.owner is not self:
                raise
            return found.keys
        finally:
            self.asked = False
        raise RuntimeError(f"layer {layer.index} did not call the attention function again")


class _Given(nn.Module):
    """Takes the place of a projection and returns what it gave before."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, *arguments: Any) -> Tensor:
        return self.output


@contextmanager
def _replaced(attention: nn.Module, given: dict[nn.Module, Tensor]) -> Iterator[None]:
    """Put outputs in the place of an attention module's projections."""
    before = {name: child for name, child in attention.named_children() if child in given}
    try:
        for name, child in before.items():
            attention._modules[name] = _Given(given[child])
        yield
    finally:
        attention._modules.update(before)


def _without_cache(value: Any) -> Any:
    """An argument of an attention module, which must not change a cache or a shared state."""
    if hasattr(value, "get_seq_length"):
        return None
    return dict(value) if isinstance(value, dict) else value
