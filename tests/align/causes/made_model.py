"""A real tiny model whose answers are made from what its pass shows.

Steering, attention and vectors are those of the pass. Only the logits are replaced: the right
colour is in the question ("it is red"), the wrong one in the hint, and how far the right one leads
depends on the planted quantity of one layer, relative to what it was when the prompt was first
seen.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import keygap as kg
from keygap.benchmarks import InMemory, image_then_question
from keygap.benchmarks.sample import Entry
from keygap.models.load import wrap
from made import made_sample
from models.zoo import BY_FAMILY

COLOURS = ("red", "blue", "green")
LAYER, LEAD, HINT, NOISE = 1, 3.0, 2.0, 0.3
# Nats for each doubling. The maps of these models change the distance by about 70 % and the
# attention by about 3 %, so that either mechanism changes the lead by several nats. With one slope
# for both, what attention does would often be less than the smallest effect that counts.
SLOPES = {"distance": 6.0, "attention": 120.0, "neither": 6.0}


class Colours(InMemory):
    """Questions that say their answer, each with an image of its own."""

    @property
    def answers(self) -> tuple[str, ...]:
        return COLOURS

    def index(self) -> list[Entry]:
        return [Entry(item.id, item.subject, image_key=item.id) for item in self.samples]


def colours(count: int, subjects: int = 1) -> Colours:
    """Samples with pictures of noise; every subject has all answers, so that it has a wrong one.

    Args:
        count: of samples.
        subjects: how many they are spread over; with few samples of each, no linear probe of the
            image tokens is fitted, which no verdict needs.
    """
    rng = np.random.default_rng(0)
    samples = []
    for number in range(count):
        answer = COLOURS[number % 3]
        question = f"number {number}: it is {answer}, what is it?"
        pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        sample = made_sample(f"s{number}", question)
        samples.append(
            replace(
                sample,
                images=(Image.fromarray(pixels),),
                prompt=image_then_question(question),
                answer=answer,
                subject=f"subject {number // 3 % subjects}",
            )
        )
    return Colours("colours", samples)


class Planted:
    """Replaces logits by what a mechanism makes of a pass.

    Args:
        vlm: the model.
        mechanism: ``distance``, ``attention`` or ``neither``.
        seed: of the noise of samples.
    """

    def __init__(self, vlm: kg.VLM, mechanism: str, seed: int = 0) -> None:
        self.vlm, self.mechanism, self.seed = vlm, mechanism, seed
        self.first: dict[str, float] = {}
        self.distance = self.mass = torch.zeros(0)
        tokenizer = vlm.prompter.tokenizer
        self.ids = {
            name: [
                tokenizer(text, add_special_tokens=False).input_ids[0]
                for text in (name, f" {name}")
            ]
            for name in COLOURS
        }

    @contextmanager
    def applied(self):
        """Answer by the mechanism until the block is left."""
        layer: Any = self.vlm.layers[LAYER]
        hooks = [
            self.vlm.model.register_forward_pre_hook(self._begin, with_kwargs=True),
            layer.attention.k_proj.register_forward_hook(self._see_keys),
            self.vlm.model.register_forward_hook(self._answer),
        ]
        mapping = AttentionInterface._global_mapping
        before, mapping["sdpa"] = mapping["sdpa"], self._attend
        try:
            yield
        finally:
            mapping["sdpa"] = before
            for hook in hooks:
                hook.remove()

    def _begin(self, module, arguments, keywords) -> None:
        self.prompts = keywords["input_ids"]
        self.real = keywords["attention_mask"].bool()
        self.image = self.prompts == self.vlm.prompter.image_tokens.ids[0]

    def _see_keys(self, module, arguments, output: Tensor) -> None:
        means = [
            (output * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            for mask in (self.image, self.real & ~self.image)
        ]
        self.distance = (means[0] - means[1]).norm(dim=-1)

    def _attend(self, module, query, key, value, attention_mask=None, **keywords):
        if module is self.vlm.layers[LAYER].attention:
            keys = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
            last = self.real.sum(1) - 1
            rows = torch.arange(len(last))
            scale = keywords.get("scaling") or query.shape[-1] ** -0.5
            logits = torch.einsum("bhd,bhsd->bhs", query[rows, :, last], keys) * scale
            weights = logits.masked_fill(~self.real[:, None], -torch.inf).softmax(-1)
            self.mass = (weights * self.image[:, None]).sum(-1).mean(1)
        return sdpa_attention_forward(module, query, key, value, attention_mask, **keywords)

    def _answer(self, module, arguments, output):
        texts = self.vlm.prompter.tokenizer.batch_decode(self.prompts)
        seen = {"distance": self.distance, "attention": self.mass, "neither": self.real.sum(1)}
        output.logits = torch.full_like(output.logits, -20.0)
        for row, (text, found) in enumerate(zip(texts, seen[self.mechanism].tolist(), strict=True)):
            right = re.search(r"it is (\w+),", text)[1]
            hint = re.search(r"answer is (\w+)\.", text)
            lead = LEAD + SLOPES[self.mechanism] * (found / self.first.setdefault(text, found) - 1)
            for name, ids in self.ids.items():
                value = self._noise(text, name) + lead * (name == right)
                value += HINT * (hint is not None and name == hint[1])
                output.logits[row, :, ids] = value
        return output

    def _noise(self, text: str, name: str) -> float:
        number = re.search(r"number (\d+):", text)[1]
        digest = hashlib.sha256(f"{self.seed} {number} {name}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        return NOISE * float(rng.standard_normal())


def tiny(seed: int = 0) -> kg.VLM:
    """A tiny LLaVA whose weights are drawn anew for each seed."""
    vlm = wrap(*BY_FAMILY["llava"].build(), name="tiny llava")
    if seed:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in vlm.model.parameters():
                order = torch.randperm(weight.numel(), generator=generator)
                weight.copy_(weight.flatten()[order].view_as(weight))
    return vlm
