"""A model as it is while keygap runs it: in evaluation mode, and not compiled.

Dropout would make every pass differ, and code that ``torch.compile`` made calls neither hooks nor
attention functions that are set later. Both hold only while keygap runs the model; its owner gets
it back as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

_COMPUTES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@contextmanager
def as_it_is_read(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without compiled code while a block runs.

    Args:
        model: the model. Every module's ``training`` flag is restored afterwards.
    """
    modules = list(model.modules())
    training = [module for module in modules if module.training]
    with ExitStack() as stack:
        if any(map(_is_compiled, modules)):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for module in training:
                module.training = False
            yield
        finally:
            for module in training:
                module.training = True


def computes_in(module: nn.Module) -> torch.dtype:
    """What a module computes in, by its first weight that is not quantised."""
    return next(p.dtype for p in module.parameters() if p.dtype in _COMPUTES)


def _is_compiled(module: nn.Module) -> bool:
    """Whether ``torch.compile`` made a module, or the code that it runs."""
    return (
        type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
        or hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")
    )
