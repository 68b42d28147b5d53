"""How much of a GPU's memory a batch takes."""

from __future__ import annotations

import torch
from torch import nn


def peak_share(model: nn.Module) -> float:
    """The share of free memory that was in use at the peak since the last call; forgets the peak.

    Free is what PyTorch can still allocate beside the weights: what the device has left, and what
    PyTorch holds and does not use. Of several GPUs, the one where the share is largest decides.

    Args:
        model: whose GPUs are looked at.
    """
    shares = []
    for device in {parameter.device for parameter in model.parameters()}:
        if device.type != "cuda":
            continue
        used = torch.cuda.memory_allocated(device)
        peak = torch.cuda.max_memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - used
        shares.append((peak - used) / max(1, free))
        torch.cuda.reset_peak_memory_stats(device)
    return max(shares, default=1.0)
