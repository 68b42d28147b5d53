"""Where a model is loaded from and where it is put, checked before anything is read.

A name that begins with ``micro:`` is a checkpoint that keygap builds. A folder is itself. Any other
name is a repository of the Hub, which is asked once whether it has the model and its revision.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from keygap.arguments import name_of
from keygap.errors import UserError, unknown
from keygap.hub import located

MICRO_PREFIX = "micro:"
MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


def source_of(model: str, revision: str | None) -> tuple[str, dict[str, Any]]:
    """What ``from_pretrained`` takes for a name, and further arguments for it.

    Args:
        model: Hub id, folder or ``micro:CONNECTOR``.
        revision: a branch, tag or commit of the Hub.

    Raises:
        UserError: there is no such model or revision, or a revision of what has none is asked for.
    """
    name_of(model, "model")
    if revision is not None:
        name_of(revision, "revision")
    folder = _folder(model)
    if revision is not None and (folder is not None or model.startswith(MICRO_PREFIX)):
        raise UserError(f"model {model!r} is not on the Hub and has no revisions: leave it out")
    if model.startswith(MICRO_PREFIX):
        from keygap.micro.checkpoint import build

        return str(build(model.removeprefix(MICRO_PREFIX))), {}
    if folder is None:
        return model, located(model, "model", revision, "config.json")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is not a model: it has no config.json")
    return str(folder), {"local_files_only": True}


def _folder(model: str) -> Path | None:
    """The folder of a name; None if it has none and may be on the Hub.

    Raises:
        UserError: the name can only be that of a folder, and there is none.
    """
    try:
        path = Path(model).expanduser()
        if path.is_dir():
            return path
        is_file = path.exists()
    except (OSError, RuntimeError):  # a name that is too long, a cycle of links, an unknown user
        is_file = False
    if is_file or model.startswith((".", "/", "~")):
        raise UserError(f"no model folder at {model}")
    return None


def is_on_cpu(placed: str | Mapping[str, Any]) -> bool:
    """Whether a device or a device map puts every part of a model on the CPU."""
    if isinstance(placed, Mapping):
        return all(str(place) in ("cpu", "disk") for place in placed.values())
    if placed in MAPS:
        return not torch.accelerator.is_available()
    return torch.device(placed).type == "cpu"


def check_placement(device: str | None, device_map: str | None) -> None:
    """Check where a model is to be put.

    Raises:
        UserError: there is no such device or map, or both are given.
    """
    if device is not None and device_map is not None:
        raise UserError("device and device_map are both given: leave one out")
    if isinstance(device_map, str) and device_map in MAPS:
        return
    for what, place in (("device", device), ("device_map", device_map)):
        if place is None or (what == "device_map" and isinstance(place, dict)):
            continue
        try:
            kind = torch.device(place).type
        except (RuntimeError, TypeError):
            known = (*MAPS, "cpu", "cuda") if what == "device_map" else ("cpu", "cuda")
            raise unknown(what, place, known) from None
        if kind == "cuda" and not torch.cuda.is_available():
            raise UserError(f"{what} is {place!r}, and PyTorch finds no GPU on this machine")
