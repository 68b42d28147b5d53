"""VCD, Visual Contrastive Decoding (Leng et al. 2024, arXiv 2311.16922).

Next-token logits are contrasted with those of the same prompt with a noisy image:
(1 + alpha) l - alpha u, without tokens that the clean image makes unlikely. The image is noised as
in the forward process of a diffusion model, sqrt(a) x + sqrt(1 - a) e with Gaussian e, on the pixel
values that the processor made. The schedule is that of the authors' code: a is the product of
1 - beta up to the step, and beta rises from 1e-5 to 5e-3 over 1000 steps along a sigmoid of -6 to
6.

The noise of a sample depends on the seed and on its id, so it is the same in any batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import BatchFeature

from keygap import random_streams
from keygap.align.baselines.contrast import contrasted
from keygap.align.baselines.settings import number
from keygap.arguments import seed_of, whole
from keygap.benchmarks import Sample
from keygap.bias.scoring import next_logits
from keygap.errors import UserError
from keygap.models.batch import Batch
from keygap.models.interventions import Intervention
from keygap.models.prompting.image_inputs import is_pixels
from keygap.models.vlm import VLM

STEPS = 1000  # of the diffusion


def vcd(*, alpha: float = 1.0, step: int = 500, plausibility: float = 0.1, seed: int = 0) -> VCD:
    """A contrast of next-token logits with those of a noisy image.

    The defaults are those of the paper. It acts on next-token logits alone: answers of several
    tokens can be neither scored nor generated.

    Args:
        alpha: strength of the contrast; 0 leaves the logits as they are, and needs no second pass.
        step: the step of the diffusion, from 0 (almost no noise) to 999.
        plausibility: tokens less likely than this share of the likeliest one's probability are
            left out of the contrast (the paper's beta); 0 keeps all.
        seed: of the noise.

    Raises:
        UserError: a setting that is not possible.
    """
    return VCD(
        number(alpha, "alpha", -100, 100),
        whole(step, "step", 0, STEPS - 1),
        number(plausibility, "plausibility", 0, 1),
        seed_of(seed),
    )


class VCD(Intervention):
    """Contrasts next-token logits with those of a noisy image; arguments as ``vcd``.

    Other interventions act on the pass with the noisy image, too.
    """

    name = "vcd"
    layers: Sequence[int] = ()
    sites = ()

    def __init__(self, alpha: float, step: int, plausibility: float, seed: int) -> None:
        self.alpha, self.step = alpha, step
        self.plausibility, self.seed = plausibility, seed

    def identity(self) -> dict[str, Any]:
        """Name and all settings."""
        return {
            **super().identity(),
            "alpha": self.alpha,
            "step": self.step,
            "plausibility": self.plausibility,
            "seed": self.seed,
        }

    @property
    def decides(self) -> bool:
        """Whether there is a contrast."""
        return self.alpha != 0

    def decide(
        self,
        vlm: VLM,
        samples: Sequence[Sample],
        batch: Batch,
        logits: Float[Tensor, "b vocabulary"],
    ) -> Float[Tensor, "b vocabulary"]:
        """The contrast with the same prompts and noisy images.

        Prompts without pixels have nothing to distort and are contrasted with themselves.

        Raises:
            UserError: the model's pixels cannot be noised.
        """
        if not self.decides:
            return logits
        weaker = logits
        if batch.pictures == "shown":
            weaker = next_logits(vlm, self.noised(vlm, samples, batch))
        return contrasted(logits, weaker, self.alpha, self.plausibility)

    def noised(self, vlm: VLM, samples: Sequence[Sample], batch: Batch) -> Batch:
        """The same prompts with noisy pixel values.

        Raises:
            UserError: there are no pixel values, or it is not known whose they are.
        """
        names = [name for name in batch.inputs if _has_values(name, batch.inputs[name])]
        if not names:
            raise UserError(f"{self.name!r} found no pixel values in the inputs of {vlm.name}")
        alone = [batch] if len(samples) == 1 else [vlm.prompter([each]) for each in samples]
        kept = signal_kept(self.step)
        inputs = dict(batch.inputs)
        for name in names:
            noise = torch.zeros_like(inputs[name])
            start = 0
            for sample, own in zip(samples, alone, strict=True):
                if name not in own.inputs:  # one prompt shows an image and another a video
                    continue
                shape = tuple(own.inputs[name].shape)
                rng = random_streams.generator(self.seed, "vcd", name, sample.id)
                # of fewer or smaller views than the batch's; what pads them stays without noise
                place = (slice(start, start + shape[0]), *map(slice, shape[1:]))
                drawn = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
                noise[place] = drawn.to(noise.dtype)
                start += shape[0]
            if start != len(noise):
                raise UserError(
                    f"{vlm.name} does not keep the pixels of each prompt apart in {name}: use "
                    f"{self.name!r} with batches of one sample"
                )
            inputs[name] = kept**0.5 * inputs[name] + (1 - kept) ** 0.5 * noise
        return replace(batch, inputs=BatchFeature(inputs))


def signal_kept(step: int) -> float:
    """The share of an image's variance that is left at a step of the diffusion.

    Args:
        step: 0 to 999.
    """
    rise = 1 / (1 + np.exp(-np.linspace(-6, 6, STEPS)))
    betas = rise * (0.5e-2 - 1e-5) + 1e-5
    return float(np.cumprod(1 - betas)[step])


def _has_values(name: str, value: Any) -> bool:
    """Whether a model input holds pixel values, and not a mask of them."""
    return is_pixels(name) and torch.is_tensor(value) and value.is_floating_point()
