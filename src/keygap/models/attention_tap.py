"""The attention function, tapped: query, key and value as attention multiplies them.

transformers hands attention to a function that it looks up by name. While a tap is entered, the
names that a model's attention modules use point to a function of keygap, which shows each call to
the handlers of the module that makes it and then runs the function that was there before. The model
keeps its implementation (SDPA, flash, eager), its masks and its configuration.

Several taps may be entered at once. Handlers that change a call run first, in the order in which
their taps were entered; handlers that only read run last. A reader therefore sees what attention
really uses, whichever tap was entered first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from keygap.errors import UserError

PADDING = 8  # dimensions that biases add to a head: fast paths want a multiple of 8
MOST_WIDTH = 256  # of a head, in fast paths


@dataclass(frozen=True)
class AttentionCall:
    """One call of the attention function: its arguments, and how to carry it out.

    Queries have the shape (batch, heads, tokens, head_dim). Keys and values have the key heads of
    grouped-query attention. To change a call, make a new one with ``dataclasses.replace``.

    Attributes:
        module: the attention module that makes the call.
        query: the queries, after norm and RoPE.
        key: the keys, after norm and RoPE, those in the cache included.
        value: the values, those in the cache included.
        rest: further positional arguments; the first is the mask.
        keywords: further keyword arguments.
        function: the attention function that computes the output.
        key_biases: what is added to the logits of some keys, see ``with_key_bias``.
        handlers: the handlers that still have to see the call.
    """

    module: nn.Module
    query: Float[Tensor, "b heads t head_dim"]
    key: Float[Tensor, "b key_heads s head_dim"]
    value: Float[Tensor, "b key_heads s value_dim"]
    rest: tuple[Any, ...]
    keywords: dict[str, Any]
    function: Callable[..., Any]
    handlers: tuple[Handler, ...] = ()
    key_biases: tuple[tuple[Tensor, Tensor], ...] = ()

    @property
    def mask(self) -> Any:
        """The mask, in the form of the model's attention implementation, or None."""
        return self.rest[0] if self.rest else self.keywords.get("attention_mask")

    @property
    def implementation(self) -> str:
        """The name of the attention function that the module uses."""
        return implementation_of(self.module)

    @property
    def scaling(self) -> float:
        """The factor between the products of query and key and the attention logits."""
        scaling = self.keywords.get("scaling")
        return float(scaling) if scaling is not None else float(self.query.shape[-1] ** -0.5)

    def with_states(self, name: str, states: Tensor) -> AttentionCall:
        """The same call with another ``query``, ``key`` or ``value``."""
        changes: dict[str, Any] = {name: states}
        return replace(self, **changes)

    def with_mask(self, mask: Tensor) -> AttentionCall:
        """The same call with another mask."""
        if self.rest:
            return replace(self, rest=(mask, *self.rest[1:]))
        return replace(self, keywords={**self.keywords, "attention_mask": mask})

    def with_key_bias(
        self, bias: Float[Tensor, "b heads t"], keys: Bool[Tensor, "b s"]
    ) -> AttentionCall:
        """The same call with one number for each query and head added to its logits of some keys.

        Raises:
            ValueError: the attention function has no place for it, see ``takes_key_bias``.
        """
        if not self.takes_key_bias:
            raise ValueError("this call takes no bias for some keys: change its mask instead")
        return replace(self, key_biases=(*self.key_biases, (bias, keys)))

    @property
    def takes_key_bias(self) -> bool:
        """Whether ``with_key_bias`` is possible: no soft cap, and heads that are not too wide."""
        wide = self.query.shape[-1] + PADDING > MOST_WIDTH or len(self.key_biases) == PADDING
        return not wide and self.keywords.get("softcap") is None

    def with_eager_function(self) -> AttentionCall:
        """The same call, computed by the eager attention of the module's own file."""
        return replace(self, function=_eager_function(self.module))

    def proceed(self) -> Any:
        """Show the call to the remaining handlers, then run the attention function on it."""
        if self.handlers:
            return self.handlers[0](replace(self, handlers=self.handlers[1:]))
        return self.computed()

    def computed(self) -> Any:
        """Run the attention function on the call, which no handler sees.

        Biases for some keys are further dimensions of queries and keys, so the mask stays as it is,
        and with it the fast path of the attention function.
        """
        query, key, value, keywords = self.query, self.key, self.value, self.keywords
        width = value.shape[-1]
        if self.key_biases:
            keywords = {**keywords, "scaling": self.scaling}
            if width == query.shape[-1]:  # fast paths want one width
                value = functional.pad(value, (0, PADDING))
            first = query.shape[-1]
            query, key = (functional.pad(states, (0, PADDING)) for states in (query, key))
            for number, (bias, keys) in enumerate(self.key_biases):
                query[..., first + number] = bias / self.scaling
                key[..., first + number] = keys[:, None]
        output, *others = self.function(self.module, query, key, value, *self.rest, **keywords)
        return output[..., :width], *others


Handler = Callable[[AttentionCall], Any]

_entered: list[AttentionTap] = []  # in the order in which their handlers are called
_replaced: dict[str, Callable[..., Any] | None] = {}  # what each tapped name pointed to before


class AttentionTap:
    """While entered, the attention calls of some modules go through ``handler``.

    Args:
        modules: the attention modules; calls of other modules (a vision tower's) are left alone.
        handler: gets a call and returns what the attention function returns, usually by
            ``call.proceed()``.
        reads: whether the handler leaves calls as they are. Handlers that read are called last.

    Raises:
        UserError: on entering, if one of the modules does not call transformers' attention
            function.
    """

    def __init__(
        self, modules: Iterable[nn.Module], handler: Handler, *, reads: bool = False
    ) -> None:
        self.modules = {id(module): module for module in modules}
        self.handler = handler
        self.reads = reads

    def __enter__(self) -> Self:
        for module in self.modules.values():
            if not calls_attention_function(module):
                raise UserError(
                    f"{type(module).__name__} computes attention by itself and not through "
                    "transformers' attention function: query, key and value cannot be reached "
                    "there (k_proj, q_proj, v_proj and hidden can)"
                )
        _entered.append(self)
        _entered.sort(key=lambda tap: tap.reads)  # stable: the order of entering is kept
        self.follow()
        return self

    def __exit__(self, *exception: object) -> None:
        _entered.remove(self)
        needed = {name for tap in _entered for name in tap.implementations}
        for name in _replaced.keys() - needed:
            own = _replaced.pop(name)
            if own is None:
                AttentionInterface._global_mapping.pop(name, None)
            else:
                AttentionInterface.register(name, own)

    @property
    def implementations(self) -> set[str]:
        """The names of attention functions that the modules use now."""
        return {implementation_of(module) for module in self.modules.values()}

    def follow(self) -> None:
        """Tap the implementation that the modules use now, which a user may have changed."""
        for name in self.implementations - _replaced.keys():
            _replaced[name] = own = AttentionInterface._global_mapping.get(name)
            AttentionInterface.register(name, partial(_tapped, own))


def _tapped(
    own: Callable[..., Any] | None,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *rest: Any,
    **keywords: Any,
) -> Any:
    """The function that a tapped name points to."""
    function = own or _eager_function(module)
    handlers = tuple(tap.handler for tap in _entered if id(module) in tap.modules)
    if not handlers:  # of a vision tower, which may call it for each of thousands of windows
        return function(module, query, key, value, *rest, **keywords)
    return AttentionCall(module, query, key, value, rest, keywords, function, handlers).proceed()


def calls_attention_function(module: nn.Module) -> bool:
    """Whether a module hands query, key and value to transformers' attention function."""
    return _owner_of_call(module) is not None


def is_tapped() -> bool:
    """Whether any tap is entered."""
    return bool(_entered)


def implementation_of(module: Any) -> str:
    """The name of the attention function that a module uses, or would use."""
    return getattr(getattr(module, "config", None), "_attn_implementation", None) or "eager"


def _owner_of_call(module: nn.Module) -> Any:
    """The forward method that calls the attention function: the class's own, or one it extends."""
    for kind in type(module).__mro__:
        if "forward" not in vars(kind):
            continue
        forward = inspect.unwrap(vars(kind)["forward"])
        names = getattr(getattr(forward, "__code__", None), "co_names", ())
        if "ALL_ATTENTION_FUNCTIONS" in names:
            return forward
        if "super" not in names:
            return None
    return None


def _eager_function(module: nn.Module) -> Callable[..., Any]:
    """The eager attention of the file that a module comes from, which has no registered name."""
    return _owner_of_call(module).__globals__["eager_attention_forward"]
