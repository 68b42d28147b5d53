"""A short digest that tells apart models of one name.

A name and a revision do not distinguish a base model from one with an adapter, a folder from the
same folder after another training run, or four bits from sixteen. Reading all weights would take as
long as loading them, so the digest covers a few values of every tensor.
"""

from __future__ import annotations

import hashlib

import torch
from torch import nn

VALUES = 8  # of each tensor, at both ends


def fingerprint(model: nn.Module) -> str:
    """A digest of every parameter's name, shape, type, and first and last values.

    Weights that are kept elsewhere until the model runs count with name, shape and type alone.

    Args:
        model: the model.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        if parameter.device.type == "meta":
            continue
        flat = parameter.detach().reshape(-1)
        ends = torch.cat([flat[:VALUES], flat[-VALUES:]])
        digest.update(ends.contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
