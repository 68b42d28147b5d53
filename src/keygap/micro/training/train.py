"""``keygap micro train``: train a connector on easy-VQA's training split, on two CPU cores.

Everything except the connector is frozen, so the vision features are computed once, and the
questions about an image share its tokens (``packing.py``). During training, features are
standardised and the connector's output is scaled to the standard deviation of the word embeddings.
Both maps are affine. At the end they are folded into the connector's own weights, so that the
checkpoint has no trace of them.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float16
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaProcessor

from keygap.micro.checkpoint import assemble
from keygap.micro.connectors import VISION_CHANNELS, known_connector
from keygap.micro.training.packing import (
    Items,
    Packer,
    Pairs,
    answer_logits,
    questions_by_image,
)
from keygap.progress import track
from keygap.store.files import write_bytes
from keygap.store.lock import at_work

logger = logging.getLogger("keygap")
IMAGES_PER_STEP = 64  # whose vision features are computed at once
CONNECTOR = "connector"  # key of a file of weights: linear and mlp have tensors of the same shapes
STEPS_PER_LINE = 25  # of the log


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of one connector's training, stored with its weights."""

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
    """A connector with its input standardised and its output scaled, both by fixed numbers.

    Args:
        connector: the module to train.
        features: vision features (images, patches, channels) that give mean and deviation.
        scale: factor of the output.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, connector: nn.Module, features: Tensor, scale: float) -> None:
        super().__init__()
        flat = features.reshape(-1, features.shape[-1]).float()
        self.connector = connector
        self.register_buffer("mean", flat.mean(0))
        self.register_buffer("deviation", flat.std(0).clamp_min(1e-2))
        self.scale = scale

    def forward(
        self, features: Float[Tensor, "images patches channels"]
    ) -> Float[Tensor, "images tokens width"]:
        """Map vision features to image tokens."""
        return self.connector((features.float() - self.mean) / self.deviation) * self.scale

    @torch.no_grad()
    def fold(self) -> dict[str, Tensor]:
        """Return the connector's weights in float16 with both affine maps folded in."""
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
def image_features(
    model: Any, processor: LlavaProcessor, paths: list[Path]
) -> Float16[Tensor, "images patches channels"]:
    """Compute the vision features of images."""
    tower = model.model.vision_tower.float()
    rows = []
    starts = range(0, len(paths), IMAGES_PER_STEP)
    for start in track(starts, len(starts), "vision features"):
        images = [Image.open(path) for path in paths[start : start + IMAGES_PER_STEP]]
        pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"]
        rows.append(tower(pixels).last_hidden_state.flatten(2).transpose(1, 2).half())
    return torch.cat(rows)


def epochs(by_image: dict[int, Pairs], recipe: Recipe) -> Iterator[Items]:
    """Yield batches of images with questions without end, regrouped and shuffled in each epoch."""
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
    """Train one connector.

    Args:
        connector: one of ``CONNECTORS``.
        out: folder for the weights.
        recipe: hyperparameters; None means those of the connector that ships.

    Returns:
        The file with the weights, ``out/CONNECTOR.safetensors``.

    Raises:
        UserError: there is no such connector, a package of the extra ``micro`` is missing, the disk
            is full, or the folder cannot be written, which is found before the training.
    """
    recipe = recipe or RECIPES[known_connector(connector)]
    with at_work(out):
        return _save(_trained(connector, recipe), connector, out, recipe)


def _trained(connector: str, recipe: Recipe) -> Scaled:
    torch.manual_seed(recipe.seed)
    model, processor = assemble(connector)
    model.requires_grad_(False)
    model.set_attn_implementation({"text_config": "eager"})  # faster backward at this length
    paths, by_image = questions_by_image("train")
    features = image_features(model, processor, paths)
    scaled = _initialised(connector, model, features)
    _fit(scaled, model, features, Packer(processor), epochs(by_image, recipe), recipe)
    return scaled


def _save(scaled: Scaled, connector: str, out: Path, recipe: Recipe) -> Path:
    """Write the weights with their recipe, whole or not at all."""
    path = out / f"{connector}.safetensors"
    header = {CONNECTOR: connector, "recipe": json.dumps(asdict(recipe))}
    write_bytes(path, save(scaled.fold(), metadata=header))
    return path


def _initialised(connector: str, model: Any, features: Tensor) -> Scaled:
    """Wrap the model's connector for training."""
    words = model.get_parameter("model.language_model.embed_tokens.weight")
    projector = model.model.multi_modal_projector.float().requires_grad_(True)
    scaled = Scaled(projector, features, words.float().std().item())
    for layer in projector.modules():  # outputs of unit variance for the standardised input
        if isinstance(layer, nn.Linear) and connector != "qformer":
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    return scaled


def _fit(
    scaled: Scaled,
    model: Any,
    features: Tensor,
    packer: Packer,
    batches: Iterator[Items],
    recipe: Recipe,
) -> None:
    """Train the connector in place, and log the loss now and then."""
    parameters = list(scaled.parameters())
    optimizer, schedule = _optimizer(parameters, recipe)
    started, losses = time.monotonic(), []
    for step in range(1, recipe.steps + 1):
        pack = packer(next(batches))
        logits, labels = answer_logits(model, scaled(features[pack.image_index]), pack)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        losses.append(loss.item())
        if step % STEPS_PER_LINE == 0 or step == recipe.steps:
            rate = step / (time.monotonic() - started)
            progress = f"{rate:.2f} steps/s, {(recipe.steps - step) / rate:.0f} s left"
            mean = sum(losses) / len(losses)
            logger.info("step %d/%d, loss %.4f, %s", step, recipe.steps, mean, progress)
            losses.clear()


def _optimizer(
    parameters: list[nn.Parameter], recipe: Recipe
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW, with a linear warm-up and then a cosine schedule."""
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    warmup = recipe.warmup_steps
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps - warmup),
        ],
        [warmup],
    )
    return optimizer, schedule
