"""The attention function, tapped: query, key and value as attention multiplies them.

transformers gives attention to a function that it looks up by name. While a tap is entered, the
name that the model's own attention modules use stands for a function of ours, which shows each of
their calls to a handler and hands on to the function that stood there. So the model keeps its
implementation (SDPA, flash, eager), its masks and its configuration, and needs no settable
implementation: whatever calls the attention function can be tapped.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface

from keygap.errors import UserError


@dataclass
class AttentionCall:
    """One call of the attention function: what it multiplies, and how to carry it out.

    A handler may change ``query``, ``key`` or ``value`` before ``proceed``; shapes are
    (batch, heads, tokens, head_dim), keys and values with the key heads of grouped attention.
    """

    module: nn.Module
    query: Float[Tensor, "b heads t head_dim"]
    key: Float[Tensor, "b key_heads s head_dim"]
    value: Float[Tensor, "b key_heads s value_dim"]
    rest: tuple[Any, ...]
    keywords: dict[str, Any]
    function: Callable[..., Any]

    @property
    def mask(self) -> Any:
        """The model's own mask, in its implementation's form; None if it needs none."""
        return self.rest[0] if self.rest else self.keywords.get("attention_mask")

    @property
    def scaling(self) -> float:
        scaling = self.keywords.get("scaling")
        return float(scaling) if scaling is not None else float(self.query.shape[-1] ** -0.5)

    def proceed(self) -> Any:
        """The model's own function on these states."""
        return self.function(
            self.module, self.query, self.key, self.value, *self.rest, **self.keywords
        )


Handler = Callable[[AttentionCall], Any]


class AttentionTap:
    """While entered, every attention call of some modules goes through ``handler``.

    Args:
        modules: the attention modules; calls of others (a vision tower's) are left alone.
        handler: gets the call, returns what the function returns: ``call.proceed()``.

    Raises:
        UserError: on entering, if none of the modules calls transformers' attention function.
    """

    def __init__(self, modules: Iterable[nn.Module], handler: Handler) -> None:
        self.modules = {id(module): module for module in modules}
        self.handler = handler
        self._before: dict[str, Any] = {}

    def __enter__(self) -> Self:
        for module in self.modules.values():
            if not calls_attention_function(module):
                raise UserError(
                    f"{type(module).__name__} computes attention by itself and not through "
                    "transformers' attention function: query, key and value cannot be read there "
                    "(k_proj, q_proj, v_proj and hidden can)"
                )
        mapping = AttentionInterface._global_mapping
        names = {_implementation(module) for module in self.modules.values()}
        self._before = {name: mapping.get(name) for name in names}
        for name, own in self._before.items():
            AttentionInterface.register(name, self._tapped(own))
        return self

    def __exit__(self, *exception: object) -> None:
        for name, own in self._before.items():
            if own is None:
                AttentionInterface._global_mapping.pop(name, None)
            else:
                AttentionInterface.register(name, own)
        self._before = {}

    def _tapped(self, own: Callable[..., Any] | None) -> Callable[..., Any]:
        def tapped(
            module: nn.Module,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            *rest: Any,
            **keywords: Any,
        ) -> Any:
            function = own or _eager_function(module)
            if id(module) not in self.modules:
                return function(module, query, key, value, *rest, **keywords)
            return self.handler(AttentionCall(module, query, key, value, rest, keywords, function))

        return tapped


def calls_attention_function(module: nn.Module) -> bool:
    """Whether a module hands query, key and value to transformers' attention function."""
    return "ALL_ATTENTION_FUNCTIONS" in inspect.unwrap(type(module).forward).__code__.co_names


def _implementation(module: Any) -> str:
    return getattr(getattr(module, "config", None), "_attn_implementation", None) or "eager"


def _eager_function(module: nn.Module) -> Callable[..., Any]:
    """The eager attention of the file that a module comes from, which has no registered name."""
    return inspect.unwrap(type(module).forward).__globals__["eager_attention_forward"]
