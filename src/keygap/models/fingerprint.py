"""A short digest that tells apart models of one name.

A name and a revision do not distinguish a base model from one with an adapter, a folder from the
same folder after another training run, or four bits from sixteen. Reading all weights would take as
long as loading them, so the digest covers a few values of every tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

VALUES = 8  # of each tensor, at both ends


def fingerprint(model: nn.Module) -> str:
    """A digest of the name, shape, type, and first and last values of every weight.

    Weights are parameters and whatever else a checkpoint holds: statistics of batch norm, packed
    integers. A quantised tensor counts with the tensors that it is made of. Weights that are kept
    elsewhere until the model runs, or whose values cannot be read, count with name, shape and type.

    Args:
        model: the model.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, weight in _weights(model):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(_ends(weight))
    return digest.hexdigest()[:16]


def _weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters first, then what else the model saves."""
    seen = set()
    for name, parameter in model.named_parameters():
        seen.add(id(parameter))
        yield from _plain(name, parameter)
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen:  # tied weights have several names
            yield from _plain(name, value)


def _plain(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The plain tensors that a value of a checkpoint is made of, by name."""
    if isinstance(value, (tuple, list)):
        for number, item in enumerate(value):
            yield from _plain(f"{name}.{number}", item)
    elif not isinstance(value, Tensor):
        return
    elif is_traceable_wrapper_subclass(value):
        inner, _ = value.__tensor_flatten__()
        for part in inner:
            yield from _plain(f"{name}.{part}", getattr(value, part))
    elif value.is_quantized:
        yield from _plain(f"{name}.int_repr", value.int_repr())
    else:
        yield name, value


def _ends(weight: Tensor) -> bytes:
    """The first and the last values of a tensor; nothing if they cannot be read."""
    if weight.device.type == "meta":
        return b""
    try:
        flat = weight.detach().reshape(-1)
        ends = torch.cat([flat[:VALUES], flat[-VALUES:]])
        return ends.contiguous().view(torch.uint8).cpu().numpy().tobytes()
    except (RuntimeError, NotImplementedError, TypeError):  # a tensor class with few operations
        return b""
