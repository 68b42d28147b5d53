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
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from keygap.align.map import Map
from keygap.align.steering import Mass, Steering
from keygap.errors import UserError
from keygap.models.attention_mask import add_key_bias
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
        wanted = image_log_odds(call.with_states("key", other), image)
        bias = wanted - image_log_odds(call, image)
        bias = torch.where(bias.isfinite(), bias, 0.0)  # it sees no image, or that alone
        return add_key_bias(call, bias, image, queries.start - keys.start).proceed()


def image_log_odds(call: AttentionCall, image: Bool[Tensor, "b s"]) -> Float[Tensor, "b heads t"]:
    """Logarithm of each query's attention to the image over its attention to all other keys.

    It is computed by the attention function itself, with values that indicate which keys show the
    image. The mask, soft cap and learned sinks of the model therefore apply, and no weights are
    materialised. A learned sink, which takes attention and gives nothing, counts among the other
    keys.

    Args:
        call: one call of the attention function.
        image: which keys show an image.
    """
    sides = torch.stack([image, ~image], -1).to(call.value.dtype)
    value = functional.pad(sides, (0, call.value.shape[-1] - 2))[:, None].expand_as(call.value)
    output, *_ = call.with_states("value", value).computed()
    shares = output[..., :2].float().transpose(1, 2)
    has_sink = any(call.keywords.get(name) is not None for name in ("s_aux", "sinks"))
    rest = 1 - shares[..., 0] if has_sink else shares[..., 1]
    return shares[..., 0].log() - rest.log()


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
        """The call's keys, those of moved tokens in the version that the pass did not use.

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
