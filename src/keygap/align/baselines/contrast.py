"""Contrastive decoding: next-token logits against those of a pass that lacks something.

The logits l of a prompt and those of a weaker pass u are combined as (1 + s) l - s u. Tokens that
the prompt alone makes unlikely are left out, because a contrast can raise a token that neither pass
would say: the adaptive plausibility constraint of Li et al. 2023, "Contrastive Decoding".
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def contrasted(
    logits: Float[Tensor, "b vocabulary"],
    weaker: Float[Tensor, "b vocabulary"],
    strength: float,
    plausibility: float,
) -> Float[Tensor, "b vocabulary"]:
    """Logits that are contrasted with those of a weaker pass, in float32.

    Args:
        logits: of the prompts.
        weaker: of the pass to move away from.
        strength: s in (1 + s) l - s u, with both as log-probabilities.
        plausibility: tokens less likely than this share of the likeliest one's probability get
            -inf; 0 keeps all tokens.
    """
    own = logits.float().log_softmax(-1)
    moved = own + strength * (own - weaker.to(logits.device).float().log_softmax(-1))
    never = own.isneginf()  # -inf in both passes, whose difference is no number
    if plausibility > 0:
        never = never | (own < own.amax(-1, keepdim=True) + math.log(plausibility))
    return torch.where(never, -torch.inf, moved)
