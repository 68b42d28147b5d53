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
from keygap.capture.attention import products
from keygap.errors import UserError
from keygap.models.attention_mask import add_bias, visible
from keygap.models.attention_tap import AttentionCall
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.interventions import WHOLE_CALL
from keygap.models.positions import Tokens

IMAGE = ("image", "video")
BEFORE_ROTATION = "k_proj"
AFTER_ROTATION = "key"
MOST_LOGITS = 2**24  # that are held at a time


class MassSteering(Steering):
    """Steering of keys in which keys and total attention to the image are changed apart.

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
        """Carry out the call with keys and total attention to the image changed apart."""
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
        bias = self._bias(call, other, image)
        bias = torch.where(image[:, None, None, :], bias[..., None], 0.0)
        return add_bias(call, bias, queries.start - keys.start).proceed()

    def _bias(
        self, call: AttentionCall, other: Tensor, image: Bool[Tensor, "b s"]
    ) -> Float[Tensor, "b heads t"]:
        """What to add to image logits so that the image's odds are those of the other keys."""
        used, wanted = _log_sums(call, other, image)
        bias = wanted - used
        if not set(self.tokens) <= {*IMAGE, "thumbnail"}:  # logits of other keys change too
            used, wanted = _log_sums(call, other, ~image, sinks=True)
            bias = bias - (wanted - used)
        return torch.where(bias.isfinite(), bias, 0.0)  # a query that sees no image key


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
        first = queries.start == 0 or layer.attends == "cross"
        before = None if first else self._kept
        self._kept = new if before is None else torch.cat([before, new], 2)
        kept = self._kept[:, :, -call.key.shape[2] :]
        self._arguments, self._keywords, self._given = (), {}, {}
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


def _log_sums(
    call: AttentionCall, other: Tensor, keys: Bool[Tensor, "b s"], *, sinks: bool = False
) -> tuple[Float[Tensor, "b heads t"], ...]:
    """Logarithms of the sums of exponentiated logits over some keys, -inf if a query sees none.

    Args:
        call: one call of the attention function.
        other: keys that take the place of the call's.
        keys: over which keys.
        sinks: whether learned sinks, which take attention and give nothing, count among them.

    Returns:
        The logarithms with the keys of the call, and with the others.
    """
    batch, heads, count, _ = call.query.shape
    columns = keys.any(0).nonzero().squeeze(1)
    if not len(columns):
        return (call.query.new_full((batch, heads, count), -torch.inf, dtype=torch.float32),) * 2
    both = torch.cat([call.key[:, :, columns], other[:, :, columns]], 2)
    hidden = _hidden(call, columns, keys)
    chunk = max(1, MOST_LOGITS // max(1, batch * heads * len(columns)))
    found = []
    for start in range(0, count, chunk):
        rows = slice(start, start + chunk)
        biases = [_part(bias, rows, columns).repeat(1, 1, 1, 2) for bias in _biases(call)]
        logits = products(call, call.query[:, :, rows], both, biases)
        logits = logits.unflatten(-1, (2, -1)) + _part(hidden, rows)[..., None, :]
        found.append(logits.logsumexp(-1))
    sums = torch.cat(found, 2)
    learned = call.keywords.get("s_aux", call.keywords.get("sinks"))
    if learned is not None and sinks:
        own = learned[..., 0] if learned.ndim == 4 else learned.reshape(1, -1, 1)
        sums = torch.logaddexp(sums, own.float()[..., None])
    return tuple(sums.unbind(-1))


def _biases(call: AttentionCall) -> list[Tensor]:
    """What a call adds to its logits besides the mask."""
    names = ("position_bias", "attention_bias")
    return [bias for name in names if (bias := call.keywords.get(name)) is not None]


def _part(full: Tensor, rows: slice, columns: Tensor | None = None) -> Tensor:
    """Some rows, and some columns, of a (1 or b, 1 or heads, 1 or t, s) tensor."""
    part = full if full.shape[2] == 1 else full[:, :, rows]
    return part.float() if columns is None else part[..., columns].float()


def _hidden(
    call: AttentionCall, columns: Int[Tensor, " c"], keys: Bool[Tensor, "b s"]
) -> Float[Tensor, "b heads t c"]:
    """What the mask adds to the logits of some keys; -inf for keys that are not among them."""
    batch, _, count, _ = call.query.shape
    if torch.is_tensor(call.mask) and call.mask.is_floating_point():
        added = call.mask[..., columns].float()
        added = added.masked_fill(added <= torch.finfo(call.mask.dtype).min / 2, -torch.inf)
    else:
        places = torch.arange(count, device=keys.device).expand(batch, -1)
        seen = visible(call, places)[..., columns]
        added = torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, -torch.inf)
    return added.masked_fill(~keys[:, None, None, columns], -torch.inf)
