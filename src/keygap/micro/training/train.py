"""``keygap micro train``: the connector's weights, from easy-VQA's training split, on two cores.

Everything but the connector is frozen, so the vision features are computed once, and the questions
of one image share its tokens (``packing.py``). Features are standardised and the output scaled to
the deviation of word embeddings; both are affine and are folded into the connector's own weights at
the end, so the checkpoint has none of it.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import LlavaProcessor

from keygap.micro.checkpoint import assemble
from keygap.micro.connectors import VISION_CHANNELS
from keygap.micro.training.packing import Packer, answer_logits, questions_by_image
from keygap.progress import track

logger = logging.getLogger("keygap")


@dataclass(frozen=True)
class Recipe:
    """How one connector is trained; written into its model card."""

    steps: int
    images_per_step: int = 8
    questions_per_image: int = 4
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    weight_decay: float = 0.0
    seed: int = 0


RECIPES = {
    "linear": Recipe(steps=2000),
    "mlp": Recipe(steps=1500),
    "qformer": Recipe(steps=1500, learning_rate=1e-3),
}


class Scaled(nn.Module):
    """A connector between a fixed standardisation of its input and a fixed scale of its output."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, connector: nn.Module, features: torch.Tensor, scale: float) -> None:
        super().__init__()
        flat = features.reshape(-1, features.shape[-1]).float()
        self.connector = connector
        self.register_buffer("mean", flat.mean(0))
        self.register_buffer("deviation", flat.std(0).clamp_min(1e-2))
        self.scale = scale

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.connector((features.float() - self.mean) / self.deviation) * self.scale

    @torch.no_grad()
    def fold(self) -> dict[str, torch.Tensor]:
        """The connector's weights with both affine maps folded in, float16."""
        layers = [layer for layer in self.connector.modules() if isinstance(layer, nn.Linear)]
        for layer in layers:
            if layer.in_features == VISION_CHANNELS:
                layer.weight.div_(self.deviation)
                layer.bias.sub_(layer.weight @ self.mean)
        layers[-1].weight.mul_(self.scale)
        layers[-1].bias.mul_(self.scale)
        state = self.connector.state_dict()
        return {name: tensor.half().contiguous() for name, tensor in state.items()}


@torch.inference_mode()
def image_features(model: Any, processor: LlavaProcessor, paths: list[Path]) -> torch.Tensor:
    """Vision features of the images, (images, patches, channels), float16."""
    tower = model.model.vision_tower.float()
    rows = []
    starts = range(0, len(paths), 64)
    for start in track(starts, len(starts), "vision features"):
        images = [Image.open(path) for path in paths[start : start + 64]]
        pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"]
        rows.append(tower(pixels).last_hidden_state.flatten(2).transpose(1, 2).half())
    return torch.cat(rows)


def epochs(
    by_image: dict[int, list[tuple[str, str]]], recipe: Recipe
) -> Iterator[list[tuple[int, list[tuple[str, str]]]]]:
    """Batches of image and questions without end: each epoch a new order and new groups."""
    shuffler = random.Random(recipe.seed)
    while True:
        groups = []
        for image, pairs in by_image.items():
            order = shuffler.sample(pairs, len(pairs))
            size = recipe.questions_per_image
            groups += [(image, order[start : start + size]) for start in range(0, len(order), size)]
        shuffler.shuffle(groups)
        size = recipe.images_per_step
        yield from (groups[start : start + size] for start in range(0, len(groups), size))


def train(connector: str, out: Path, recipe: Recipe | None = None) -> Path:
    """Train one connector and write ``out/CONNECTOR.safetensors``; returns that path."""
    recipe = recipe or RECIPES[connector]
    torch.manual_seed(recipe.seed)
    model, processor = assemble(connector)
    model.requires_grad_(False)
    model.set_attn_implementation({"text_config": "eager"})  # faster backward at this length
    paths, by_image = questions_by_image("train")
    features = image_features(model, processor, paths)
    words = model.get_parameter("model.language_model.embed_tokens.weight")
    scale = words.float().std().item()
    projector = model.model.multi_modal_projector.float().requires_grad_(True)
    scaled = Scaled(projector, features, scale)
    for layer in projector.modules():  # unit variance through a standardised input
        if isinstance(layer, nn.Linear) and connector != "qformer":
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    optimizer = torch.optim.AdamW(
        projector.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=recipe.warmup_steps),
            torch.optim.lr_scheduler.CosineAnnealingLR(
                optimizer, recipe.steps - recipe.warmup_steps
            ),
        ],
        [recipe.warmup_steps],
    )
    packer, batches, started = Packer(processor), epochs(by_image, recipe), time.monotonic()
    running = 0.0
    for step in range(1, recipe.steps + 1):
        pack = packer(next(batches))
        logits, labels = answer_logits(model, scaled(features[pack.image_index]), pack)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        running += loss.item()
        if step % 25 == 0 or step == recipe.steps:
            rate = step / (time.monotonic() - started)
            left = (recipe.steps - step) / rate
            progress = f"{rate:.2f} steps/s, {left:.0f} s left"
            logger.info("step %d/%d, loss %.4f, %s", step, recipe.steps, running / 25, progress)
            running = 0.0
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{connector}.safetensors"
    save_file(scaled.fold(), path, metadata={"recipe": json.dumps(recipe.__dict__)})
    return path
