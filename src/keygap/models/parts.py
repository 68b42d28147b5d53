"""The parts of a model, where its user may have to name them, and what every model must have.

keygap finds the parts of a model by what they are (``text_stack``, ``connector``). For a model of a
user's own it may find none, or the wrong one. Then the user gives the path of the part in the
model: ``kg.load(model, processor, parts={"decoder": "net.text"})``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from torch import nn

from keygap.errors import UserError, unknown

PARTS = {
    "decoder": "the module that owns the list of text layers, or that list",
    "embedding": "the text embedding",
    "vision": "the vision tower, where no text layers are looked for",
    "connector": "what maps vision features to text width",
}
_NEEDED = {"config": "a configuration", "device": "a device", "dtype": "a dtype"}
# Classes of torch that wrap a model, and where each keeps it.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}


def unwrapped(model: Any) -> Any:
    """The model inside a wrapper of ``torch.compile`` or of data parallelism.

    Reading needs the modules of the model itself, and runs them as they are.
    """
    while inner := _WRAPPERS.get(type(model).__name__):
        model = getattr(model, inner)
    return model


def refuse_unusable(model: Any) -> None:
    """Refuse what cannot be read as a model of transformers is.

    Raises:
        UserError: it is no module, or has no configuration, device or dtype; names all of them.
    """
    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        raise UserError(f"{kind} is not a model: give kg.load a name, a folder or a loaded model")
    missing = [what for name, what in _NEEDED.items() if not hasattr(model, name)]
    if missing:
        raise UserError(
            f"{kind} has no {' and no '.join(what.split(maxsplit=1)[1] for what in missing)}: "
            "keygap reads models that are a transformers.PreTrainedModel, or have these attributes"
        )


def named_parts(model: nn.Module, parts: Mapping[str, str] | None) -> dict[str, nn.Module]:
    """The modules that a user has named, by part.

    Args:
        model: the whole model.
        parts: paths in the model, by the names of ``PARTS``.

    Raises:
        UserError: there is no such part, or no module of that path; names the nearest.
    """
    modules = dict(model.named_modules())
    found = {}
    for part, path in (parts or {}).items():
        if part not in PARTS:
            raise unknown("part of a model", part, PARTS)
        if path not in modules:
            near = difflib.get_close_matches(str(path), modules, n=1, cutoff=0.5)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(
                f"{type(model).__name__} has no module {str(path)!r} (named as its {part}){guess}"
            )
        found[part] = modules[path]
    return found
